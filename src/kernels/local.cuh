// Locally connected layers: device code. A pixel's part is a convolution with one output, in the tiles of conv.cuh:
//                           m         n              k, the lowest first
//   local_forward           filter    image          channel, j, i
//   local_backward_data     channel   image          filter, tap x, tap y
//   local_backward_weights  filter    channel, i, j  image
// Blocks: x = tile of m, then tile of n, then pixel; y = group; z = part of the channels, or of the filters.
#pragma once
#include "conv.cuh"

namespace convnet {

// What a block computes: where its tile begins, and the pixel.
struct PixelTile {
  int first_m, first_n, y, x;
};
template <class Tile>
__device__ PixelTile pixel_tile(int m, int n, int width) {
  const int tiles_m = ceil_div(m, Tile::m), tiles_n = ceil_div(n, Tile::n), tile = int(blockIdx.x) / tiles_m;
  const int pixel = tile / tiles_n;
  return {int(blockIdx.x) % tiles_m * Tile::m, tile % tiles_n * Tile::n, pixel / width, pixel % width};
}

//   acts[f,y,x,n] = sum over i,j,c of images[g C + c, y stride - padding + i, x stride - padding + j, n] * weights[p,c,i,j,f]
// filters: the weights of pixel 0.
template <class T, class Tile, bool Vector, class Target>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
local_forward_kernel(Images<const T> images, Images<const Computed<T>> filters, Images<Target> acts, Conv conv) {
  const PixelTile at = pixel_tile<Tile>(filters.images / conv.groups, acts.images, acts.width);
  filters.data += (at.y * acts.width + at.x) * filters.rows() * filters.pitch;
  forward_tile<T, Tile, Vector>(images, filters, acts, conv, at.first_m, at.first_n / piece<T>,
                                forward_window(acts.height, filters.height, conv.stride, conv.padding).only(at.y),
                                forward_window(acts.width, filters.width, conv.stride, conv.padding).only(at.x));
}

//   images_grad[c,v,u,n] = sum over i,j,f of acts_grad[f,y,x,n] * weights[p,c - g C,i,j,f]
// Its windows are of one pixel: every stride-th of the acts, as in conv_backward_data_kernel. Two blocks are what its
// registers allow: for a third ptxas would spill 8 bytes (sm_86).
template <class T, class Tile, bool Vector, class Target>
__global__ void __launch_bounds__(Tile::threads, 2)
local_backward_data_kernel(Images<const T> acts_grad, Images<const Computed<T>> filters, Images<Target> images_grad, Conv conv) {
  const PixelTile at = pixel_tile<Tile>(filters.channels, images_grad.images, images_grad.width);
  backward_data_tile<T, Tile, Vector>(acts_grad, filters, images_grad, conv, int(filters.rows()), at.first_m, at.first_n / piece<T>,
                                      backward_window(at.y, at.y + 1, filters.height, conv.stride, conv.padding),
                                      backward_window(at.x, at.x + 1, filters.width, conv.stride, conv.padding));
}

//   weights_grad[p,c,i,j,f] = sum over n of images[g C + c, y stride - padding + i, x stride - padding + j, n] * acts_grad[f,y,x,n]
template <class T, class Tile, bool Vector>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
local_backward_weights_kernel(Images<const T> images, Images<const T> acts_grad, Images<Computed<T>> filters_grad, Conv conv) {
  const PixelTile at = pixel_tile<Tile>(filters_grad.images / conv.groups, int(filters_grad.rows()), acts_grad.width);
  const int pixel = at.y * acts_grad.width + at.x;
  backward_filters_tile<T, Tile, Vector>(images, acts_grad, filters_grad, conv, at.first_m, at.first_n, pixel * int(filters_grad.rows()), {pixel, 1});
}

}  // namespace convnet

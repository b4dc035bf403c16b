// Fully connected layers: what is not a convolution alone. Device code.
#pragma once
#include "conv.cuh"
#include "sgd.h"

namespace convnet {

// Blocks: x = tile of outputs, then tile of inputs. As conv_backward_filters_kernel, but for where the tile goes: into the
// increments and the weights, as in sgd_update_kernel.
//   gradient[i,o] = sum over n of inputs[i,n] * acts_grad[o,n]
template <class T, class Tile, bool Vector>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
fc_backward_update_kernel(Images<const T> inputs, Images<const T> acts_grad, Rows<const double> state, Images<Computed<T>> increments, Images<Computed<T>> weights,
                          Conv conv, int rate_slot, Computed<T> momentum, Computed<T> decay, Computed<T> images) {
  using Sum = Computed<T>;
  if (state.row(0)[state_finite] != 1) return;
  const int tiles = ceil_div(weights.images, Tile::m);
  backward_filters_tile<T, Tile, Vector>(inputs, acts_grad, weights, conv, int(blockIdx.x) % tiles * Tile::m, int(blockIdx.x) / tiles * Tile::n, 0, {0, 1},
                                         [&](Sum* weight, const Run<Sum, Tile::run_m>& gradient, int count) {
    const SgdStep<Sum> step{Sum(state.row(0)[state_rates + rate_slot]), momentum, decay, images};
    Sum* const increment = increments.data + (weight - weights.data);
    auto v = load_run<Vector, Tile::run_m>(true, increment, count), w = load_run<Vector, Tile::run_m>(true, weight, count);
#pragma unroll
    for (int e = 0; e < Tile::run_m; ++e) step(gradient.at[e], v.at[e], w.at[e]);
    store_run<Vector>(increment, v, count, false);
    store_run<Vector>(weight, w, count, false);
  });
}

}  // namespace convnet

// Pixels to activities: device code.
#pragma once
#include "device.cuh"
#include "image.h"

namespace convnet {

constexpr int image_tile = 32;  // images of a block, and pixels that it turns at once

// Blocks: x = line (channel, y) of acts, y = 32 images. The threads (32, 8) read pieces of the line of an image, whose
// pixels lie side by side in memory, and write those of a pixel, whose images do.
template <class T, bool noisy>
__global__ void __launch_bounds__(rows_threads)
image_forward_kernel(Images<const unsigned char> pixels, Rows<const Computed<T>> mean, Rows<const Computed<T>> colors, Rows<const double> state,
                     Images<T> acts, Computed<T> scale, Cropping cropping) {
  SMEM(Crop, crops, [image_tile]);
  SMEM(Computed<T>, noise, [image_tile]);
  SMEM(unsigned char, tile, [image_tile][image_tile + 1]);
  const int line = int(blockIdx.x), c = line / acts.height, y = line % acts.height;
  const int first = int(blockIdx.y) * image_tile, count = min(image_tile, acts.images - first), across = int(threadIdx.x);

  if (threadIdx.y == 0 && across < count) {
    const auto step = std::uint64_t(state.row(0)[state_step]);
    crops[across] = cropping.crop(first + across, step);
    if constexpr (noisy) noise[across] = noise_of(colors.row(c), colors.images, cropping.noise_words(first + across, step));
  }
  __syncthreads();
  for (int x = 0; x < acts.width; x += image_tile) {
    for (int n = int(threadIdx.y); n < count && x + across < acts.width; n += int(blockDim.y)) {
      const Crop crop = crops[n];
      tile[n][across] = pixels.row(first + n, c, y + crop.top)[crop.column(x + across, acts.width)];
    }
    __syncthreads();
    for (int u = int(threadIdx.y); u < min(image_tile, acts.width - x) && across < count; u += int(blockDim.y)) {
      const Computed<T> at_mean = mean.row(line)[x + u], pixel = tile[across][u];
      T* const act = &acts.row(c, y, x + u)[first + across];
      if constexpr (noisy) acts.store(act, scale * (pixel - at_mean + noise[across]));
      else acts.store(act, pixel - at_mean);
    }
    __syncthreads();
  }
}

}  // namespace convnet

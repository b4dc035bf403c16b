// Gaussian blur: device code.
#pragma once
#include "blur.h"
#include "device.cuh"

namespace convnet {

// Threads: x = image, y = row (channel, y, x) of acts. A thread blurs along each row of its window, and then down them:
// size^2 reads in place of 2 size, for windows of a few pixels that are in the cache, and no scratch memory. The weights
// stay in the constant memory of the arguments: without __grid_constant__ each thread makes a copy in local memory.
template <class T>
__global__ void blur_kernel(Images<const T> inputs, Images<T> acts, const __grid_constant__ BlurWeights<Computed<T>> weights) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const int bottom = min(acts.height, y + weights.radius + 1);
  const int left = max(0, x - weights.radius), right = min(acts.width, x + weights.radius + 1);
  Computed<T> sum = 0;
  for (int v = max(0, y - weights.radius); v < bottom; ++v) {
    const T* input = inputs.row(c, v, left) + n;
    Computed<T> along = 0;
    for (int u = left; u < right; ++u, input += inputs.pitch) along += weights.at(u - x) * *input;
    sum += weights.at(v - y) * along;
  }
  acts.store(&acts.row(c, y, x)[n], sum);
}

}  // namespace convnet

// Scaled copies: device code.
#pragma once
#include "runs.cuh"

namespace convnet {

// Threads: x = run of images, y = row.
template <int width, class T, class U>
__global__ void scaled_copy_kernel(Rows<const T> inputs, Rows<U> acts, Computed<T> factor) {
  const Place place = this_place();
  if (!exists<width>(acts, place)) return;
  auto values = converted<Computed<T>>(load_run<width>(inputs, place));
#pragma unroll
  for (int e = 0; e < width; ++e) values.at[e] *= factor;
  store_run(acts, place, values);
}

}  // namespace convnet

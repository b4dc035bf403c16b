// Softmax: device code.
#pragma once
#include "device.cuh"
#include "softmax.h"

namespace convnet {

// Lanes that share the rows of an image. Few images and many rows: 128 images are only 4 blocks, so the blocks are
// as large as they get.
constexpr int softmax_lanes = 32;

// Threads: x = image, y = lane, which takes the rows y, y + 32, y + 64, ...
template <class T>
__global__ void __launch_bounds__(32 * softmax_lanes, 1) softmax_forward_kernel(Rows<const T> inputs, Rows<T> acts) {
  SMEM(T, maxima, [softmax_lanes][32]);
  SMEM(T, sums, [softmax_lanes][32]);
  const int n = int(blockIdx.x * 32 + threadIdx.x);
  const std::int64_t rows = n < inputs.images ? inputs.rows : 0;  // all threads meet at the barriers

  T maximum = T(-INFINITY);
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) maximum = max(maximum, inputs.row(row)[n]);
  maximum = over_lanes(maxima, maximum, [](T a, T b) { return max(a, b); });

  T sum = 0;
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) sum += std::exp(inputs.row(row)[n] - maximum);
  sum = over_lanes(sums, sum, [](T a, T b) { return a + b; });

  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes)
    acts.store(&acts.row(row)[n], std::exp(inputs.row(row)[n] - maximum) / sum);
}

// Threads: x = image, y = lane, which takes the rows y, y + 32, y + 64, ...
template <class T>
__global__ void __launch_bounds__(32 * softmax_lanes, 1) softmax_backward_kernel(Rows<const T> acts, Rows<const T> acts_grad, Rows<T> inputs_grad) {
  SMEM(T, sums, [softmax_lanes][32]);
  const int n = int(blockIdx.x * 32 + threadIdx.x);
  const std::int64_t rows = n < acts.images ? acts.rows : 0;

  T sum = 0;
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) sum += acts_grad.row(row)[n] * acts.row(row)[n];
  sum = over_lanes(sums, sum, [](T a, T b) { return a + b; });

  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes)
    inputs_grad.store(&inputs_grad.row(row)[n], acts.row(row)[n] * (acts_grad.row(row)[n] - sum));
}

}  // namespace convnet

// Softmax: device code.
#pragma once
#include "device.cuh"
#include "softmax.h"

namespace convnet {

// Lanes that share the rows of an image. Few images and many rows: 128 images are only 4 blocks, so the blocks are
// as large as they get.
constexpr int softmax_lanes = 32;
inline Grid softmax_grid(const Shape& shape) {
  return {dim3(unsigned(ceil_div<std::int64_t>(shape.images(), 32))), dim3(32, softmax_lanes)};
}

// The softmax of one image, as a function of its inputs.
template <class T>
struct Softmax {
  T maximum, sum;

  __device__ T operator()(T input) const { return std::exp(input - maximum) / sum; }
};

// Of image n, whose lanes are a column of the block's threads: lane y takes the rows y, y + 32, y + 64, ... All threads of
// the block come here; `rows` is 0 for those of no image.
template <class T>
__device__ Softmax<Computed<T>> softmax_of(const Rows<const T>& inputs, std::int64_t rows, int n) {
  using Sum = Computed<T>;
  SMEM(Sum, maxima, [softmax_lanes][32]);
  SMEM(Sum, sums, [softmax_lanes][32]);

  Sum maximum = Sum(-INFINITY);
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) maximum = max(maximum, Sum(inputs.row(row)[n]));
  maximum = over_lanes(maxima, maximum, [](Sum a, Sum b) { return max(a, b); });

  Sum sum = 0;
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) sum += std::exp(Sum(inputs.row(row)[n]) - maximum);
  sum = over_lanes(sums, sum, [](Sum a, Sum b) { return a + b; });
  return {maximum, sum};
}

// Threads: x = image, y = lane.
template <class T>
__global__ void __launch_bounds__(32 * softmax_lanes, 1) softmax_forward_kernel(Rows<const T> inputs, Rows<T> acts) {
  const int n = int(blockIdx.x * 32 + threadIdx.x);
  const std::int64_t rows = n < inputs.images ? inputs.rows : 0;
  const Softmax<T> softmax = softmax_of(inputs, rows, n);
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) acts.store(&acts.row(row)[n], softmax(inputs.row(row)[n]));
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

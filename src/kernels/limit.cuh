// Limits on the columns of weights: device code.
#pragma once
#include "device.cuh"
#include "limit.h"

namespace convnet {

constexpr int limit_lanes = 32;

// Block: x = matrix, y = 32 of its columns. Threads: x = column, y = lane, which takes the rows y, y + 32, y + 64, ...
template <class T, class Limit>
__global__ void __launch_bounds__(32 * limit_lanes, 1) limit_kernel(Rows<const double> state, Rows<T> weights, std::int64_t rows_of_one, Limit limit) {
  SMEM(T, totals, [limit_lanes][32]);
  SMEM(T, squares, [limit_lanes][32]);
  if (state.row(0)[state_finite] != 1) return;
  const int n = int(blockIdx.y * 32 + threadIdx.x);
  const std::int64_t first = blockIdx.x * rows_of_one, end = first + (n < weights.images ? rows_of_one : 0);  // all threads meet at the barriers

  T mean = 0;
  if constexpr (Limit::centred) {
    T total = 0;
    for (std::int64_t row = first + threadIdx.y; row < end; row += limit_lanes) total += weights.row(row)[n];
    mean = over_lanes(totals, total, [](T a, T b) { return a + b; }) / T(rows_of_one);
  }

  T sum = 0;
  for (std::int64_t row = first + threadIdx.y; row < end; row += limit_lanes) sum += square(weights.row(row)[n] - mean);
  sum = over_lanes(squares, sum, [](T a, T b) { return a + b; });

  const T factor = limit.factor(sum, rows_of_one);
  for (std::int64_t row = first + threadIdx.y; row < end; row += limit_lanes) weights.row(row)[n] *= factor;
}

}  // namespace convnet

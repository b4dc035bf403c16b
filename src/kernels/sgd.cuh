// SGD, and the check that comes before it: device code.
#pragma once
#include "runs.cuh"
#include "sgd.h"

namespace convnet {

constexpr int update_threads = 256;  // of a block of sgd_update_many

// Threads: x = run of outputs, y = row of weights.
template <int width, class T>
__global__ void __launch_bounds__(rows_threads) sgd_update_kernel(Rows<const double> state, Rows<const T> weights_grad, Rows<T> increments, Rows<T> weights,
                                                                  int rate_slot, T momentum, T decay, T images) {
  const Place place = this_place();
  if (!exists<width>(weights, place)) return;
  if (state.row(0)[state_finite] != 1) return;

  const SgdStep<T> step{T(state.row(0)[state_rates + rate_slot]), momentum, decay, images};
  const Run<T, width> gradient = load_run<width>(weights_grad, place);
  Run<T, width> increment = load_run<width>(increments, place), weight = load_run<width>(weights, place);
#pragma unroll
  for (int e = 0; e < width; ++e) step(gradient.at[e], increment.at[e], weight.at[e]);
  store_run(increments, place, increment);
  store_run(weights, place, weight);
}

// A tensor of sgd_update_many.
template <class T>
struct SgdTensor {
  Rows<const T> weights_grad;
  Rows<T> increments, weights;
  int rate_slot;
  T momentum, decay, images;
};

template <class T>
struct SgdTensors {
  SgdTensor<T> tensors[most_tensors];

  const SgdTensor<T>* begin() const { return tensors; }
  const SgdTensor<T>* end() const { return tensors + most_tensors; }
};
static_assert(sizeof(SgdTensors<double>) + sizeof(Rows<double>) <= 4096);

// Blocks: x = a stretch of its numbers, y = tensor. Threads: a number. Most blocks of a small tensor beside a large one have none.
template <class T>
__global__ void __launch_bounds__(update_threads) sgd_update_many_kernel(Rows<const double> state, SgdTensors<T> all) {
  const SgdTensor<T>& of = all.tensors[blockIdx.y];
  const std::int64_t i = std::int64_t(blockIdx.x) * update_threads + threadIdx.x;
  if (i >= of.weights.rows * of.weights.images) return;
  if (state.row(0)[state_finite] != 1) return;

  const std::int64_t row = i / of.weights.images;
  const int n = int(i % of.weights.images);
  const SgdStep<T> step{T(state.row(0)[state_rates + of.rate_slot]), of.momentum, of.decay, of.images};
  step(of.weights_grad.row(row)[n], of.increments.row(row)[n], of.weights.row(row)[n]);
}

// Threads: x = output, y = row of weights.
template <class T>
__global__ void adaptive_update_kernel(Rows<const double> state, Rows<const T> weights_grad, Rows<T> means, Rows<T> squares, Rows<T> increments,
                                       Rows<T> weights, int rate_slot, T momentum, T decay, T epsilon, T images) {
  const auto [row, n] = this_place();
  if (row >= weights.rows || n >= weights.images) return;
  if (state.row(0)[state_finite] != 1) return;

  const T rate = T(state.row(0)[state_rates + rate_slot]), g = weights_grad.row(row)[n] / images;
  T& increment = increments.row(row)[n];
  T& weight = weights.row(row)[n];
  const T spread = spread_with(g, momentum, epsilon, means.row(row)[n], squares.row(row)[n]);
  increment = momentum * increment - rate * g / spread - decay * rate * weight;
  weight += increment;
}

// Threads: x = image, y = row of values. Every block that finds something stores the same number, 0: in whole and
// at once, by an integer exchange.
template <class T>
__global__ void check_finite_kernel(Rows<const T> values, Rows<double> state) {
  const auto [row, n] = this_place();
  const bool inside = row < values.rows && n < values.images;
  const int found = __syncthreads_or(inside && !std::isfinite(values.row(row)[n]));
  if (found && threadIdx.x == 0 && threadIdx.y == 0)
    atomicExch(reinterpret_cast<unsigned long long*>(&state.row(0)[state_finite]), 0ull);
}

}  // namespace convnet

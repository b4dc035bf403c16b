// Stochastic pooling: what device code and host share.
#pragma once
#include "philox.h"
#include "pool.h"

namespace convnet {

// What an input weighs in the draw; a NaN stays one, and its window's.
template <class T>
HOST_DEVICE T weight_of(T input) {
  return input < 0 ? T(0) : input;
}

// Where to stop in the draw for row `row` (channel, y, x) of acts: at the first input with which the sum of the
// weights so far is above this.
template <class T>
HOST_DEVICE T stop_of(std::int64_t row, int n, T total, std::uint64_t step, std::uint32_t seed, std::uint32_t purpose) {
  const RandomWords random = random_words(std::uint32_t(row / 4), std::uint32_t(n), step, seed, purpose);
  return random_fraction<T>(random.any(int(row % 4))) * total;
}

// What a window gives that draws nothing: 0, but what is infinite or not a number must not hide.
template <class T>
HOST_DEVICE T nothing_drawn(T total) {
  return total - total;
}

// Mean of the draw, from the sums of the weights and of their squares.
template <class T>
HOST_DEVICE T expected(T total, T squares) {
  return total > 0 ? squares / total : total;
}

// Its slope at an input.
template <class T>
HOST_DEVICE T expected_slope(T input, T total, T act) {
  return input > 0 ? (2 * input - act) / total : T(0);
}

namespace checks {

inline WindowGrid random_pool_forward(const In& inputs, const In& state, const Out& acts, int size, int stride, int start) {
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  return windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
}

inline WindowGrid random_pool_backward(const In& inputs, const In& state, const In& acts_grad, const Out& inputs_grad, int size, int stride, int start) {
  CHECK_DTYPE(acts_grad, inputs.dtype);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  CHECK_LIKE(inputs_grad, inputs);
  return windows_of(__func__, inputs.shape, acts_grad.shape, size, stride, start);
}

inline WindowGrid expected_pool_forward(const In& inputs, const Out& acts, int size, int stride, int start) {
  CHECK_DTYPE(acts, inputs.dtype);
  return windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
}

inline WindowGrid expected_pool_backward(const In& inputs, const In& acts, const In& acts_grad, const Out& inputs_grad, int size, int stride, int start) {
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  return windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
}

}  // namespace checks

}  // namespace convnet

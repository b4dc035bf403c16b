// Relu with noise: what device code and host share.
#pragma once
#include "ops.h"
#include "philox.h"

namespace convnet {

// Comparisons are written so that a NaN stays one.
template <class T>
HOST_DEVICE T noisy_relu_value(T x, T noise) {
  const T r = x < 0 ? T(0) : x, act = r + r * noise;
  return act < 0 ? T(0) : act;
}

namespace checks {

inline void noisy_relu(const In& inputs, const In& state, const Out& acts) {
  CHECK_LIKE(acts, inputs);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
}

}  // namespace checks

}  // namespace convnet

// SGD, and the check that comes before it: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet::checks {

inline void sgd_update(const In& state, const In& weights_grad, const Out& increments,
                       const Out& weights, int rate_slot, int images) {
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(rate_slot >= 0 && state.shape[0] > state_rates + rate_slot);
  CHECK_LIKE(increments, weights_grad);
  CHECK_LIKE(weights, weights_grad);
  CHECK(!increments.add && !weights.add);
  CHECK(images > 0);
}

inline void check_finite(const Out& state) {
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_finite);
  CHECK(!state.add);
}

}  // namespace convnet::checks

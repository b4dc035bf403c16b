// Element-wise maxima: what device code and host share.
#pragma once
#include "ops.h"
#include "pool.h"

namespace convnet::checks {

inline void eltmax_forward(const In& inputs, const In& others, const Out& acts) {
  CHECK_LIKE(others, inputs);
  CHECK_LIKE(acts, inputs);
}

inline void eltmax_backward(const In& inputs, const In& acts, const In& acts_grad, const Out& inputs_grad) {
  CHECK_LIKE(acts, inputs);
  CHECK_LIKE(acts_grad, inputs);
  CHECK_LIKE(inputs_grad, inputs);
}

}  // namespace convnet::checks

// Softmax: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet::checks {

inline void softmax_forward(const In& inputs, const Out& acts) { CHECK_LIKE(acts, inputs); }

inline void softmax_backward(const In& acts, const In& acts_grad, const Out& inputs_grad) {
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, acts);
}

}  // namespace convnet::checks

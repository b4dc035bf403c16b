// Max-pooling over normalized maps: what device code and host share.
#pragma once
#include "lrn.h"
#include "pool.h"

namespace convnet::checks {

inline WindowGrid lrn_max_pool_forward(const In& inputs, const Out& acts, int size, int pool_size, int stride, int start) {
  CHECK(size > 0);
  CHECK_DTYPE(acts, inputs.dtype);
  return windows_of(__func__, inputs.shape, acts.shape, pool_size, stride, start);
}

inline WindowGrid lrn_max_pool_backward(const In& inputs, const In& acts, const In& acts_grad, const Out& inputs_grad, int size, int pool_size,
                                        int stride, int start) {
  CHECK(size > 0);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  return windows_of(__func__, inputs.shape, acts.shape, pool_size, stride, start);
}

}  // namespace convnet::checks

// Normalization within a map: what device code and host share.
#pragma once
#include "lrn.h"
#include "pool.h"

namespace convnet {

// A window around each pixel: those of a pooling with stride 1.
inline WindowGrid windows_around(const Shape& maps, int size) {
  const int height = int(maps[1]), width = int(maps[2]);
  return {{size, 1, -(size / 2), height, height}, {size, 1, -(size / 2), width, width}};
}

namespace checks {

inline void spatial_lrn_forward(const In& inputs, const Out& denoms, const Out& acts, int size) {
  CHECK_RANK(inputs, 4);
  CHECK_SHAPE(denoms, inputs.shape);
  CHECK_DTYPE(denoms, computed(inputs.dtype));
  CHECK_LIKE(acts, inputs);
  CHECK(size > 0);
}

inline void spatial_lrn_backward(const In& inputs, const In& denoms, const In& acts_grad, const Out& inputs_grad, int size) {
  CHECK_RANK(inputs, 4);
  CHECK_SHAPE(denoms, inputs.shape);
  CHECK_DTYPE(denoms, computed(inputs.dtype));
  CHECK_LIKE(acts_grad, inputs);
  CHECK_LIKE(inputs_grad, inputs);
  CHECK(size > 0);
}

inline void lcn_forward(const In& inputs, const In& means, const Out& denoms, const Out& acts, int size) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(means, inputs);
  CHECK_SHAPE(denoms, inputs.shape);
  CHECK_DTYPE(denoms, computed(inputs.dtype));
  CHECK_LIKE(acts, inputs);
  CHECK(size > 0);
}

inline void lcn_backward(const In& inputs, const In& means, const In& denoms, const In& acts_grad, const Out& inputs_grad, int size) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(means, inputs);
  CHECK_SHAPE(denoms, inputs.shape);
  CHECK_DTYPE(denoms, computed(inputs.dtype));
  CHECK_LIKE(acts_grad, inputs);
  CHECK_LIKE(inputs_grad, inputs);
  CHECK(size > 0);
}

}  // namespace checks

}  // namespace convnet

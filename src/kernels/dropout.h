// Dropout: what device code and host share.
#pragma once
#include "ops.h"
#include "philox.h"

namespace convnet {

// The words below it keep their unit: keep * 2^32, which takes 33 bits when keep is 1.
inline std::uint64_t dropout_threshold(double keep) { return std::uint64_t(keep * 0x1p32); }

namespace checks {

inline void dropout(const In& inputs, const In& state, const Out& acts, double keep) {
  CHECK_LIKE(acts, inputs);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  CHECK(keep >= 0 && keep <= 1);
}

}  // namespace checks

}  // namespace convnet

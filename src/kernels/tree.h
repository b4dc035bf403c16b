// Weights on the nodes of a tree: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"

namespace convnet {

// The sum of one row's numbers at `members`, from `first` to `last` - 1 of them; NaN where something is not there.
template <class T>
HOST_DEVICE T sum_of_members(const T* row, int columns, const T* members, std::int64_t count, T first, T last) {
  if (!(first >= 0 && last <= T(count))) return T(NAN);
  T sum = 0;
  for (auto k = std::int64_t(first); k < std::int64_t(last); ++k) sum += members[k] >= 0 && members[k] < T(columns) ? row[std::int64_t(members[k])] : T(NAN);
  return sum;
}

namespace checks {

inline void sum_columns(const In& inputs, const In& starts, const In& members, const Out& sums) {
  CHECK_RANK(starts, 1);
  CHECK_RANK(members, 1);
  CHECK_DTYPE(starts, inputs.dtype);
  CHECK_DTYPE(members, inputs.dtype);
  CHECK_DTYPE(sums, inputs.dtype);
  Shape expected = inputs.shape;
  expected.dims[expected.rank - 1] = starts.shape[0] - 1;
  CHECK_SHAPE(sums, expected);
  constexpr std::int64_t most = 1 << 24;  // whole numbers that float32 tells apart
  CHECK(inputs.shape.images() <= most && members.shape[0] <= most);
}

inline void tree_update(const In& state, const In& weights_grad, const In& counts, const Out& increments, const Out& weights,
                        int rate_slot, int images) {
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(rate_slot >= 0 && state.shape[0] > state_rates + rate_slot);
  CHECK_LIKE(increments, weights_grad);
  CHECK_LIKE(weights, weights_grad);
  CHECK_SHAPE(counts, (Shape{1, {weights.shape.images()}}));
  CHECK_DTYPE(counts, weights.dtype);
  CHECK(!increments.add && !weights.add);
  CHECK(images > 0);
}

}  // namespace checks

}  // namespace convnet

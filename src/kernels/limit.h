// Limits on the columns of weights: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"

namespace convnet {

// By what a column is multiplied. `sum`: of the squares of its weights or, where the limit is `centred`, of how far they
// are from their mean.
template <class T>
struct NormLimit {
  static constexpr bool centred = false;
  T limit;
  bool exactly;

  HOST_DEVICE T factor(T sum, std::int64_t) const {
    const T norm = std::sqrt(sum);
    return norm > 0 && (exactly || norm > limit) ? limit / norm : 1;
  }
};

template <class T>
struct SpreadLimits {
  static constexpr bool centred = true;
  T least, most;

  HOST_DEVICE T factor(T sum, std::int64_t rows) const {
    const T spread = std::sqrt(sum) / T(rows);
    return spread > most ? most / spread : spread > 0 && spread < least ? least / spread : 1;
  }
};

namespace checks {

inline void limited(const In& state, const Out& weights) {
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_finite);
  CHECK_RANK(weights, 3);
  CHECK(!weights.add);
}

inline void limit_norms(const In& state, const Out& weights, double limit) {
  limited(state, weights);
  CHECK(limit > 0);
}

inline void limit_spreads(const In& state, const Out& weights, double least, double most) {
  limited(state, weights);
  CHECK(least >= 0 && most >= least && most > 0);
}

}  // namespace checks

}  // namespace convnet

// Cross-map response normalization: what device code and host share.
#pragma once
#include <cmath>
#include <type_traits>
#include "ops.h"

namespace convnet {

// d^-power. At 3/4, the power that nets use, it is made of roots, each rounded correctly: within 4 units in the last
// place, vectorised on the host, and many times as fast as pow.
template <bool three_quarters, class T>
HOST_DEVICE T inverse_power(T d, T power) {
  if constexpr (three_quarters) return 1 / (std::sqrt(d) * std::sqrt(std::sqrt(d)));
  return std::pow(d, -power);
}

// Some channels, from first to last - 1.
struct Channels {
  int first, last;
};

// The channels whose squares make the denominator of channel c.
HOST_DEVICE inline Channels window_of(int c, int channels, int size, bool blocked) {
  const int first = blocked ? c / size * size : c - size / 2, last = first + size;
  return {first > 0 ? first : 0, last < channels ? last : channels};
}

// The channels whose window holds channel c: unless they are blocks, the window is mirrored.
HOST_DEVICE inline Channels windows_with(int c, int channels, int size, bool blocked) {
  if (blocked) return window_of(c, channels, size, blocked);
  const int first = c + size / 2 - size + 1, last = c + size / 2 + 1;
  return {first > 0 ? first : 0, last < channels ? last : channels};
}

// Calls body(ThreeQuarters{}) with ThreeQuarters::value whether the power is 3/4, known when compiling.
template <class Body>
void with_power(double power, Body body) {
  if (power == 0.75) body(std::true_type{});
  else body(std::false_type{});
}

namespace checks {

inline void lrn_forward(const In& inputs, const Out& denoms, const Out& acts, int size) {
  CHECK_RANK(inputs, 4);
  CHECK_SHAPE(denoms, inputs.shape);
  CHECK_DTYPE(denoms, computed(inputs.dtype));
  CHECK_LIKE(acts, inputs);
  CHECK(size > 0);
}

inline void lrn_backward(const In& inputs, const In& denoms, const In& acts_grad,
                         const Out& inputs_grad, int size) {
  CHECK_RANK(inputs, 4);
  CHECK_SHAPE(denoms, inputs.shape);
  CHECK_DTYPE(denoms, computed(inputs.dtype));
  CHECK_LIKE(acts_grad, inputs);
  CHECK_LIKE(inputs_grad, inputs);
  CHECK(size > 0);
}

}  // namespace checks

}  // namespace convnet

// Cross-map response normalization: what device code and host share.
#pragma once
#include <cmath>
#include <type_traits>
#include "ops.h"

namespace convnet {

// d^-power. The powers that nets use, multiples of a quarter, are roots, each rounded correctly: within 4 units in
// the last place, vectorised on the host, and many times as fast as pow, which is left for all others (quarters 0).
template <int quarters, class T>
HOST_DEVICE T inverse_power(T d, T power) {
  if constexpr (quarters == 2) return 1 / std::sqrt(d);
  if constexpr (quarters == 3) return 1 / (std::sqrt(d) * std::sqrt(std::sqrt(d)));
  if constexpr (quarters == 4) return 1 / d;
  return std::pow(d, -power);
}

// d^-(power + 1), with one division; times d it is the inverse power within 6 units in the last place.
template <int quarters, class T>
HOST_DEVICE T inverse_power_plus_1(T d, T power) {
  if constexpr (quarters == 2) return 1 / (std::sqrt(d) * d);
  if constexpr (quarters == 3) return 1 / (std::sqrt(d) * std::sqrt(std::sqrt(d)) * d);
  if constexpr (quarters == 4) return 1 / (d * d);
  return std::pow(d, -power - 1);
}

// Calls body(Quarters{}) with Quarters::value the quarters of the power, known when compiling.
template <class Body>
void with_quarters(double power, Body body) {
  if (power == 0.5) body(std::integral_constant<int, 2>{});
  else if (power == 0.75) body(std::integral_constant<int, 3>{});
  else if (power == 1) body(std::integral_constant<int, 4>{});
  else body(std::integral_constant<int, 0>{});
}

}  // namespace convnet

// Powers of the denominators of response normalization, many at a time: roots, divisions and pow would limit the speed.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include "../lrn.h"
#include "simd.h"

namespace convnet {

// Where the approximations below hold: nothing in them overflows.
constexpr float least_base = 0x1p-100f, largest_base = 0x1p100f;

// d^exponent within 1e-9: 2^(exponent log2 d), with the logarithm of the mantissa as the series of artanh, and 2^f as that
// of exp.
ALWAYS_INLINE simd::Vector<double> power_of(simd::Vector<double> d, double exponent) {
  using Index = simd::VectorOf<double>::index;
  using Vector = simd::Vector<double>;
  // The mantissa from sqrt(1/2) to sqrt(2), and its exponent.
  const Index bits = Index(d), e = (bits - 0x3fe6a09e667f3bcd) >> 52;
  const Vector m = Vector(bits - (e << 52)), t = (m - 1) / (m + 1), t2 = t * t;
  const Vector log2_m = t * (2.885390081777927 + t2 * (0.961796693925976 + t2 * (0.5770780163555854 + t2 * (0.41219858311113244 +
                        t2 * (0.3205988979753252 + t2 * 0.2623081892525388)))));
  // Adding `rounder` rounds to whole numbers, which its last bits then are.
  constexpr double rounder = 0x1.8p52;
  Vector z = exponent * (__builtin_convertvector(e, Vector) + log2_m);
  z = z > 1000.0 ? Vector{} + 1000.0 : z < -1000.0 ? Vector{} - 1000.0 : z;
  const Vector rounded = z + rounder, f = (z - (rounded - rounder)) * 0.6931471805599453;
  const Vector two_to_f = 1 + f * (1 + f * (1 / 2. + f * (1 / 6. + f * (1 / 24. + f * (1 / 120. + f * (1 / 720. + f * (1 / 5040. + f * (1 / 40320.))))))));
  return two_to_f * Vector((Index(rounded) + 1023) << 52);
}

ALWAYS_INLINE simd::Vector<float> power_of(simd::Vector<float> d, double exponent) {
  constexpr int half = simd::lanes<double>;
  typedef float Half __attribute__((vector_size(half * sizeof(float)), aligned(4), may_alias));
  simd::Vector<float> result;
  for (int i = 0; i < 2; ++i) {
    const auto part = __builtin_convertvector(reinterpret_cast<const Half*>(&d)[i], simd::Vector<double>);
    reinterpret_cast<Half*>(&result)[i] = __builtin_convertvector(power_of(part, exponent), Half);
  }
  return result;
}

// inverse[n] = d[n]^-power. Each number depends on its own d alone, whatever stands beside it. At 3/4 roots and divisions
// are quicker than Newton's method for the fourth root (10 to 15 % of the ops' time on AVX-512); at other powers this takes
// 0.6 times as long as pow.
template <class T>
void inverse_powers(const T* d, int count, T power, T* inverse) {
  const auto exactly = [=]<class ThreeQuarters>(ThreeQuarters, auto wanted) {
    for (int n = 0; n < count; ++n)
      if (wanted(d[n])) inverse[n] = inverse_power<ThreeQuarters::value>(d[n], power);
  };
  with_power(power, [&]<class ThreeQuarters>(ThreeQuarters three_quarters) {
    if constexpr (std::is_same_v<T, double> || ThreeQuarters::value) {
      exactly(three_quarters, [](T) { return true; });
    } else {
      constexpr int lanes = simd::lanes<T>;
      int n = 0;
      for (; n + lanes <= count; n += lanes) simd::store(inverse + n, power_of(simd::load(d + n), -double(power)));
      if (n < count) {
        const auto last = power_of(simd::load_first(d + n, count - n), -double(power));
        std::memcpy(inverse + n, &last, (count - n) * sizeof(T));
      }
      const auto outside = [](T d) { return !(d >= least_base && d <= largest_base); };
      if (std::any_of(d, d + count, outside)) exactly(three_quarters, outside);
    }
  });
}

}  // namespace convnet

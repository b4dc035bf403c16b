// Half precision: what device code and host share.
#pragma once
#include <cstring>
#include "ops.h"

namespace convnet {

// The bits of the nearest IEEE binary16, ties to even. Integer arithmetic, so that every backend gives the same.
HOST_DEVICE inline std::uint16_t half_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7FFFFFFF;
  if (bits >= 0x47800000)  // 2^16 and above: infinity, or not a number
    return std::uint16_t(sign | (bits > 0x7F800000 ? 0x7E00 : 0x7C00));
  if (bits < 0x38800000) {  // below 2^-14: a multiple of 2^-24, which is what a float next to 0.5 is rounded to
    float magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, sizeof bits);
    return std::uint16_t(sign | (bits - 0x3F000000));
  }
  return std::uint16_t(sign | (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13);
}

HOST_DEVICE inline float half_value(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t(half & 0x8000) << 16, magnitude = half & 0x7FFF;
  float value = float(magnitude) * 0x1p-24f;  // below 2^-14
  std::uint32_t bits = magnitude << 13;
  if (magnitude < 0x400) memcpy(&bits, &value, sizeof bits);
  else bits += magnitude < 0x7C00 ? 0x38000000 : 0x70000000;  // the exponent's bias; infinity, not a number
  bits |= sign;
  memcpy(&value, &bits, sizeof value);
  return value;
}

namespace checks {

inline void to_half(const In& values, const Out& halves) {
  CHECK_SHAPE(halves, values.shape);
  CHECK_DTYPE(halves, Dtype::float16);
  CHECK(!halves.add);
}

inline void from_half(const In& halves, const Out& values) {
  CHECK_SHAPE(values, halves.shape);
  CHECK_DTYPE(halves, Dtype::float16);
}

}  // namespace checks

}  // namespace convnet

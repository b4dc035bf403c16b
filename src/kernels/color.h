// Colour spaces: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"

namespace convnet {

// The three channels of a pixel.
template <class T>
struct Color {
  T channel[3];
};

template <class T>
HOST_DEVICE Color<T> yuv_of(T r, T g, T b) {
  return {{T(0.2126) * r + T(0.7152) * g + T(0.0722) * b,
           T(-0.09991) * r - T(0.33609) * g + T(0.436) * b,
           T(0.615) * r - T(0.55861) * g - T(0.05639) * b}};
}

// The cube root of a channel of XYZ, and a line near 0.
template <class T>
HOST_DEVICE T lab_root(T t) {
  return t > T(0.0088564517) ? std::pow(t, T(0.3333)) : T(7.787037) * t + T(0.13793103);
}

template <class T>
HOST_DEVICE Color<T> lab_of(T r, T g, T b, bool center) {
  const T x = lab_root(T(0.49) * r + T(0.31) * g + T(0.2) * b);
  const T y = lab_root(T(0.17697) * r + T(0.8124) * g + T(0.01063) * b);
  const T z = lab_root(T(0.01) * g + T(0.99) * b);
  return {{116 * y - 16 - (center ? T(50) : T(0)), 500 * (x - y), 200 * (y - z)}};
}

namespace checks {

inline void rgb_to_yuv(const In& inputs, const Out& acts) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(acts, inputs);
  CHECK(inputs.shape[0] == 3);
}

inline void rgb_to_lab(const In& inputs, const Out& acts) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(acts, inputs);
  CHECK(inputs.shape[0] == 3);
}

}  // namespace checks

}  // namespace convnet

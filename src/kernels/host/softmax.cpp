// Softmax on the host: 32 images at a time, so that their maxima and sums stay in registers or nearly so.
#include <bit>
#include <cmath>
#include <limits>
#include <vector>
#include "../softmax.h"
#include "loops.h"

namespace convnet {

// e^x of an x that is not above 0, within 2 units in the last place, in operations that the compiler can do for many at
// a time: 2^n e^f, with e^f as the series of exp and n a whole number. std::exp took half of the op's time.
static inline float exponential(float x) {
  x = x < -104 ? -104 : x;  // where all is 0; a NaN stays one
  constexpr float rounder = 0x1.8p23f;  // adding it rounds to whole numbers, which its last bits then are
  const float rounded = x * 1.44269504f + rounder, n = rounded - rounder;
  const float f = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts: the first product is exact
  const float e_to_f = 1 + f * (1 + f * (1 / 2.f + f * (1 / 6.f + f * (1 / 24.f + f * (1 / 120.f + f * (1 / 720.f + f * (1 / 5040.f)))))));
  const std::int32_t whole = std::bit_cast<std::int32_t>(rounded) - std::bit_cast<std::int32_t>(rounder), half = whole >> 1;
  const auto two_to = [](std::int32_t power) { return std::bit_cast<float>((power + 127) << 23); };
  return e_to_f * two_to(half) * two_to(whole - half);  // in two steps: the last ones are below the normal numbers
}
static inline double exponential(double x) { return std::exp(x); }

// body(first, images) for every 32 images, the last ones fewer: one task each.
template <class Body>
static void for_images(Stream stream, int images, Body body) {
  parallel_for(stream, (images + 31) / 32, [&](std::int64_t task, int) {
    const int first = int(task) * 32;
    body(first, std::min(32, images - first));
  });
}

void softmax_forward(Stream stream, In inputs, Out acts) {
  checks::softmax_forward(inputs, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = rows_of<T>(inputs);
    const auto y = rows_of<T>(acts);
    for_images(stream, x.images, [&](int first, int images) {
      T maximum[32], sum[32] = {};
      std::fill(maximum, maximum + 32, -std::numeric_limits<T>::infinity());
      for (std::int64_t r = 0; r < x.rows; ++r) {
        const T* row = x.row(r) + first;
        for (int n = 0; n < images; ++n) maximum[n] = row[n] > maximum[n] ? row[n] : maximum[n];
      }
      std::vector<T> exponentials(std::size_t(x.rows) * 32);  // (rows, 32)
      for (std::int64_t r = 0; r < x.rows; ++r) {
        const T* row = x.row(r) + first;
        T* e = exponentials.data() + r * 32;
        for (int n = 0; n < images; ++n) e[n] = exponential(row[n] - maximum[n]);
        for (int n = 0; n < images; ++n) sum[n] += e[n];
      }
      for (std::int64_t r = 0; r < x.rows; ++r) {
        const T* e = exponentials.data() + r * 32;
        store_row(y.row(r) + first, images, y.add, [&](int n) { return e[n] / sum[n]; });
      }
    });
  });
}

void softmax_backward(Stream stream, In acts, In acts_grad, Out inputs_grad) {
  checks::softmax_backward(acts, acts_grad, inputs_grad);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    const auto y = rows_of<T>(acts), g = rows_of<T>(acts_grad);
    const auto result = rows_of<T>(inputs_grad);
    for_images(stream, y.images, [&](int first, int images) {
      T sum[32] = {};
      for (std::int64_t r = 0; r < y.rows; ++r) {
        const T *yr = y.row(r) + first, *gr = g.row(r) + first;
        for (int n = 0; n < images; ++n) sum[n] += gr[n] * yr[n];
      }
      for (std::int64_t r = 0; r < y.rows; ++r) {
        const T *yr = y.row(r) + first, *gr = g.row(r) + first;
        store_row(result.row(r) + first, images, result.add, [&](int n) { return yr[n] * (gr[n] - sum[n]); });
      }
    });
  });
}

}  // namespace convnet

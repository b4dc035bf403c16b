// Pooling: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet {

// The windows along one side of the images, clipped to it.
struct Windows {
  int size, stride, start, pixels, count;

  // Window o holds the pixels from begin(o) to end(o) - 1.
  HOST_DEVICE int begin(int o) const {
    const int first = start + o * stride;
    return first > 0 ? first : 0;
  }
  HOST_DEVICE int end(int o) const {
    const int last = start + o * stride + size;
    return last < pixels ? last : pixels;
  }
  HOST_DEVICE int length(int o) const { return end(o) - begin(o); }

  // The windows from first_with(p) to end_with(p) - 1 hold pixel p.
  HOST_DEVICE int first_with(int p) const {
    const int before = p - start - size;  // where a window ends that just misses p
    return before < 0 ? 0 : before / stride + 1;
  }
  HOST_DEVICE int end_with(int p) const {
    const int last = p < start ? 0 : (p - start) / stride + 1;
    return last < count ? last : count;
  }
};

// Some windows: rows top to bottom - 1, columns left to right - 1 of them.
struct WindowsWith {
  int top, bottom, left, right;
};

struct WindowGrid {
  Windows down, across;

  // Those that hold pixel (v, u).
  HOST_DEVICE WindowsWith with(int v, int u) const { return {down.first_with(v), down.end_with(v), across.first_with(u), across.end_with(u)}; }
};

// The larger of two, and NaN if one is: a NaN among the inputs must not hide in the maximum of its window.
// Of 0 and -0 the first stays. In the backward pass nothing equals a NaN, so its window passes no gradient.
template <class T>
HOST_DEVICE T larger(T best, T value) {
  return (value > best) | (value != value) ? value : best;  // of vectors, too
}

// The one that is farther from 0, and NaN if one is; the second of equally far ones.
template <class T>
HOST_DEVICE T farther(T best, T value) {
  const T of_best = best < 0 ? -best : best, of_value = value < 0 ? -value : value;
  return (of_best > of_value) | (best != best) ? best : value;
}

// What a window goes on with.
template <bool by_magnitude, class T>
HOST_DEVICE T better(T best, T value) {
  if constexpr (by_magnitude) return farther(best, value);
  return larger(best, value);
}

// The windows of dimension `i` of the inputs, which holds pixels, or channels.
inline Windows windows_along(const char* op, int i, const Shape& inputs, const Shape& acts, int size, int stride, int start) {
  const std::string what = i ? " pixels" : " channels";
  if (size < 1 || stride < 1)
    fail_check(op, "size " + std::to_string(size) + " and stride " + std::to_string(stride) + ", expected at least 1");
  if (start + size < 1 || start + (acts[i] - 1) * stride >= inputs[i])
    fail_check(op, std::to_string(acts[i]) + " windows of " + std::to_string(size) + what + " from " + std::to_string(start) + " in steps of " +
                       std::to_string(stride) + " do not all meet an image of " + std::to_string(inputs[i]) + what);
  return {size, stride, start, int(inputs[i]), int(acts[i])};
}

// Checks the arguments that all ops on windows of pixels share; outputs are counted by acts' shape.
inline WindowGrid windows_of(const char* op, const Shape& inputs, const Shape& acts, int size, int stride, int start) {
  check_rank(op, "inputs", inputs, 4);
  check_rank(op, "acts", acts, 4);
  check_shape(op, "acts", acts, {4, {inputs[0], acts[1], acts[2], inputs[3]}});
  return {windows_along(op, 1, inputs, acts, size, stride, start), windows_along(op, 2, inputs, acts, size, stride, start)};
}

// The same for windows of channels, on tensors seen as one map: down are the channels, across the pixels.
inline WindowGrid cross_map_windows_of(const char* op, const Shape& inputs, const Shape& acts, int size, int stride, int start) {
  check_rank(op, "inputs", inputs, 4);
  check_rank(op, "acts", acts, 4);
  check_shape(op, "acts", acts, {4, {acts[0], inputs[1], inputs[2], inputs[3]}});
  const int pixels = int(inputs[1] * inputs[2]);
  return {windows_along(op, 0, inputs, acts, size, stride, start), {1, 1, 0, pixels, pixels}};
}
template <class T>
Images<T> as_one_map(const Images<T>& t) {
  return {t.data, 1, t.channels, t.height * t.width, t.images, t.pitch, t.add};
}

}  // namespace convnet

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

struct WindowGrid {
  Windows down, across;
};

// The larger of two, and NaN if one is: a NaN among the inputs must not hide in the maximum of its window.
// Of 0 and -0 the first stays. In the backward pass nothing equals a NaN, so its window passes no gradient.
template <class T>
HOST_DEVICE T larger(T best, T value) {
  return (value > best) | (value != value) ? value : best;  // of vectors, too
}

// Checks the arguments that all four ops share; outputs are counted by acts' shape.
inline WindowGrid windows_of(const char* op, const Shape& inputs, const Shape& acts, int size, int stride, int start) {
  check_rank(op, "inputs", inputs, 4);
  check_rank(op, "acts", acts, 4);
  check_shape(op, "acts", acts, {4, {inputs[0], acts[1], acts[2], inputs[3]}});
  if (size < 1 || stride < 1)
    fail_check(op, "size " + std::to_string(size) + " and stride " + std::to_string(stride) + ", expected at least 1");
  for (int i : {1, 2})
    if (start + size < 1 || start + (acts[i] - 1) * stride >= inputs[i])
      fail_check(op, std::to_string(acts[i]) + " windows of " + std::to_string(size) + " pixels from " + std::to_string(start) + " in steps of " +
                         std::to_string(stride) + " do not all meet an image of " + std::to_string(inputs[i]) + " pixels");
  return {{size, stride, start, int(inputs[1]), int(acts[1])}, {size, stride, start, int(inputs[2]), int(acts[2])}};
}

}  // namespace convnet

// Slices of images: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet {

// The pixels of a slice along one side: start, start + step, ... , `count` of them.
struct SideSlice {
  int start, step, count;

  HOST_DEVICE int pixel(int i) const { return start + i * step; }

  // Which of them a pixel is; -1: none.
  HOST_DEVICE int index(int pixel) const {
    const int distance = pixel - start, i = distance / step;
    return distance % step == 0 && i >= 0 && i < count ? i : -1;
  }
};

struct SliceGrid {
  SideSlice down, across;
};

// Checks the arguments that both ops share.
inline SliceGrid slices_of(const char* op, const Shape& inputs, const Shape& acts, int top, int left, int down, int across) {
  check_rank(op, "inputs", inputs, 4);
  check_rank(op, "acts", acts, 4);
  check_shape(op, "acts", acts, {4, {inputs[0], acts[1], acts[2], inputs[3]}});
  const auto slice = [&](const char* side, std::int64_t pixels, int start, int step, std::int64_t count) {
    const std::int64_t last = start + (count - 1) * step;
    if (step == 0 || start < 0 || start >= pixels || last < 0 || last >= pixels)
      fail_check(op, std::to_string(count) + " pixels " + side + " from " + std::to_string(start) + " in steps of " + std::to_string(step) +
                         ", expected steps other than 0 and pixels from 0 to " + std::to_string(pixels - 1));
    return SideSlice{start, step, int(count)};
  };
  return {slice("down", inputs[1], top, down, acts[1]), slice("across", inputs[2], left, across, acts[2])};
}

}  // namespace convnet

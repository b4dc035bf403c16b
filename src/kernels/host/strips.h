// How ops that look at neighbouring pixels walk a map: row by row, some images at a time.
#pragma once
#include <algorithm>
#include <initializer_list>

#include "loops.h"

namespace convnet {

constexpr int strip_images = 128;

// Some images of a channel: what one task works on.
struct Strip {
  int channel, first, count;  // images first to first + count - 1
  bool joined;                // the pixels of a row are one run of numbers, of width * count

  template <class T>
  T* row(const Images<T>& tensor, int y) const { return tensor.row(channel, y, 0) + first; }

  // body(pixel, length) for the runs of a row of pixels: `length` numbers from the first of `pixel` on, which is at
  // pixel * pitch in a tensor and at pixel * count in a row of scratch memory.
  template <class Body>
  void for_runs(int width, Body body) const {
    if (joined) body(0, width * count);
    else for (int x = 0; x < width; ++x) body(x, count);
  }
};

// body(strip, thread) for all channels and images of a shape. Where the tensors have the same pitch, few images are no
// slower than many: rows are joined, and up to 16 bytes of padding are worked on, too.
template <class Body>
void for_strips(Stream stream, const Shape& shape, Dtype dtype, std::initializer_list<std::int64_t> pitches, Body body) {
  const std::int64_t images = shape.images(), pitch = *pitches.begin();
  const bool joined = images <= strip_images && can_join(int(images), dtype, pitches);
  const std::int64_t strips = (images + strip_images - 1) / strip_images;
  parallel_for(stream, shape[0] * strips, [&](std::int64_t task, int thread) {
    const std::int64_t first = task % strips * strip_images;
    body(Strip{int(task / strips), int(first), int(joined ? pitch : std::min(images - first, std::int64_t(strip_images))), joined}, thread);
  });
}

// Numbers of a row of scratch memory: what a strip has of a row of pixels, padding included.
inline std::int64_t strip_row(const Shape& shape, std::int64_t pitch) { return shape[2] * std::min<std::int64_t>(pitch, strip_images + 16); }

// sums[x] = weight(first) * columns[x + first] + ... + weight(last - 1) * columns[x + last - 1], clipped to the row; each is
// the `count` numbers of a pixel.
template <class T, class Weight>
void sum_along(const T* columns, T* sums, int width, int count, int first, int last, Weight weight) {
  std::fill_n(sums, width * count, T(0));
  for (int by = std::max(first, 1 - width); by < std::min(last, width); ++by) {
    const int begin = std::max(0, -by) * count, end = (width - std::max(0, by)) * count, step = by * count;
    const T factor = weight(by);
    for (int i = begin; i < end; ++i) sums[i] += factor * columns[i + step];
  }
}

}  // namespace convnet

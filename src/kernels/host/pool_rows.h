// Pooling of few images. A pixel is less than a vector then, but a row of pixels is a run of numbers in which the k-th
// pixels of all windows lie k pixels behind their first ones: rows of windows are computed along the row, at every pixel
// as if a window began there. Window by window, or pixel by pixel, it takes six times as long.
#pragma once
#include <utility>
#include <vector>
#include "../pool.h"
#include "loops.h"
#include "pool_tile.h"

namespace convnet {

// Whether pixels of tensors with these pitches are less than a vector, and rows of pixels one run of them.
template <class T>
bool are_few(int images, std::initializer_list<std::int64_t> pitches) {
  return *pitches.begin() < simd::lanes<T> && can_join(images, sizeof(T) == 8 ? Dtype::float64 : Dtype::float32, pitches);
}

// body(i, tile) for the numbers from i on, `begin` to `end` or some more; where `readable` ends, one by one.
template <class T, class Body>
ALWAYS_INLINE void for_run(std::int64_t begin, std::int64_t end, std::int64_t readable, Body body) {
  std::int64_t i = begin;
  for (; i < end && i + simd::lanes<T> <= readable; i += simd::lanes<T>) body(i, Tile<T, simd::lanes<T>, 1>());
  for (; i < end; ++i) body(i, Tile<T, 1, 1>());
}

// Numbers from a row's first one to the end of its tensor.
template <class T>
std::int64_t numbers_from(const Images<const T>& tensor, const T* row) {
  return tensor.data + (tensor.rows() - 1) * tensor.pitch + tensor.images - row;
}

// Numbers of a row of windows from one distance to another: to[x * step + n] = value(x, from[x * pitch + n]).
template <class T, class Value>
void spread(T* to, std::int64_t step, const T* from, std::int64_t pitch, int images, int count, Value value) {
  if (images == 1)
    for (int x = 0; x < count; ++x) to[x * step] = value(x, from[x * pitch]);
  else
    for (int x = 0; x < count; ++x)
      for (int n = 0; n < images; ++n) to[x * step + n] = value(x, from[x * pitch + n]);
}

template <class T>
struct RowWindows {
  const Images<const T>& in;
  const Images<T>& out;
  const WindowGrid& windows;
  int first, last;  // windows from first to last - 1 lie within the rows

  RowWindows(const Images<const T>& in, const Images<T>& out, const WindowGrid& windows) : in(in), out(out), windows(windows) {
    const Windows& w = windows.across;
    first = w.start < 0 ? (-w.start + w.stride - 1) / w.stride : 0;
    last = w.pixels - w.size - w.start < 0 ? 0 : std::min(w.count, (w.pixels - w.size - w.start) / w.stride + 1);
    // A window is computed at every pixel: more than four for one that is wanted take longer than one by one.
    if (!are_few<T>(in.images, {in.pitch, out.pitch}) || w.stride > 4 || last < first) first = last = 0;
  }

  std::int64_t scratch_size() const { return first < last ? in.width * in.pitch + simd::lanes<T> : 0; }

  // For windows first to last of a row (c, y): fold(sum, value) over each of them, finish(sum).
  template <class Fold, class Finish>
  void operator()(int c, int y, T* scratch, Fold fold, Finish finish) const {
    if (first == last) return;
    const Windows& w = windows.across;
    const int top = windows.down.begin(y), bottom = windows.down.end(y);
    const std::int64_t begin = (w.start + first * w.stride) * in.pitch, end = (w.start + (last - 1) * w.stride + 1) * in.pitch;
    for_run<T>(begin, end, numbers_from(in, in.row(c, bottom - 1, w.size - 1)), [&](std::int64_t i, auto tile) {
      tile.update(0, [](auto, auto value) { return value; }, in.row(c, top, 0) + i);
      bool is_first = true;
      for (int v = top; v < bottom; ++v) {
        const T* pixel = in.row(c, v, 0) + i;
        for (int k = 0; k < w.size; ++k, pixel += in.pitch, is_first = false)
          if (!is_first) tile.update(0, fold, pixel);
      }
      tile.apply(finish);
      tile.store(scratch + i, false);
    });
    const std::int64_t step = w.stride * in.pitch;
    if (!out.add) spread(out.row(c, y, first), out.pitch, scratch + begin, step, out.images, last - first, [](int, T value) { return value; });
    else
      for (int x = first; x < last; ++x)
        store_row(out.row(c, y, x), out.images, true, [source = scratch + begin + (x - first) * step](int n) { return source[n]; });
  }
};

// What a task holds of the rows of windows that it meets: two numbers of each window, where it begins, and zeros where
// none does. As many rows as hold a pixel are kept.
template <class T>
class SpreadWindows {
 public:
  SpreadWindows(const WindowGrid& windows, std::int64_t pitch)
      : windows_(windows), pitch_(pitch), first_((windows.across.start + windows.across.size - 1) * pitch),
        size_((windows.across.pixels + windows.across.size - 1) * pitch + simd::lanes<T>),
        held_((windows.down.size + windows.down.stride - 1) / windows.down.stride, -1), numbers_(held_.size() * 2 * size_) {}

  // Sums of `count` numbers of a row (c, v) of pixels, to be stored where there is room for a vector more: add(sum, input, a, b)
  // of each window that holds the pixel, whose row (c, y) of windows fill(c, y, a, b) spreads. inputs: may be read up to `readable`.
  template <class Fill, class Add>
  void sum_row(int c, int v, const T* inputs, std::int64_t readable, std::int64_t count, T* sums, Fill fill, Add add) {
    rows_.clear();
    for (int y = windows_.down.first_with(v); y < windows_.down.end_with(v); ++y) rows_.push_back(at(c, y, fill));
    for_run<T>(0, count, readable, [&](std::int64_t i, auto sum) {
      for (const auto& [a, b] : rows_)
        for (int k = 0; k < windows_.across.size; ++k) sum.update(0, add, inputs + i, a + i + k * pitch_, b + i + k * pitch_);
      sum.store(sums + i, false);
    });
  }

 private:
  // Two rows of (pixels + size - 1) x pitch numbers; the k-th pixel of the window that begins at pixel u is at u + size - 1 - k.
  template <class Fill>
  std::pair<const T*, const T*> at(int c, int y, Fill fill) {
    const std::size_t slot = std::size_t(y) % held_.size();
    T *const a = numbers_.data() + slot * 2 * size_, *const b = a + size_;
    const std::int64_t row = std::int64_t(c) * windows_.down.count + y;
    if (std::exchange(held_[slot], row) != row) fill(c, y, a + first_, b + first_);
    return {a, b};
  }

  const WindowGrid& windows_;
  std::int64_t pitch_, first_, size_;
  std::vector<std::int64_t> held_;
  std::vector<T> numbers_;
  std::vector<std::pair<const T*, const T*>> rows_;
};

// Gradients of few images, summed in the order in which a pixel would look at the windows that hold it: it adds
// add(sum, its input, a, b) of each of them, whose numbers fill(c, y, a, b) spreads. in: null where `add` needs no input.
template <class T, class Fill, class Add>
void sum_windows(Stream stream, const Images<const T>* in, const Images<T>& out, const WindowGrid& windows, bool relu, Fill fill, Add add) {
  const std::int64_t width = out.width * out.pitch, count = width - out.pitch + out.images;
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, width, [&](std::int64_t first, std::int64_t last) {
    SpreadWindows<T> held(windows, out.pitch);
    std::vector<T> sums(width + simd::lanes<T>);
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / out.height), v = int(row % out.height);
      const T* const inputs = in ? in->row(c, v, 0) : sums.data();
      held.sum_row(c, v, inputs, in ? numbers_from(*in, inputs) : std::int64_t(sums.size()), count, sums.data(), fill, add);
      store_row(out.row(c, v, 0), int(count), out.add, [&](int i) { return sums[i]; });
      if (relu) relu_row(out.row(c, v, 0), inputs, int(count));
    }
  });
}

}  // namespace convnet

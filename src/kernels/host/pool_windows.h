// Windows and the pixels in them: what pooling, and pooling over normalized maps, do for some rows on one core.
#pragma once
#include <vector>
#include "pool_rows.h"

namespace convnet {

// Numbers in 16 bytes, the shortest vector of a tile.
template <class T>
constexpr int least_lanes = 16 / int(sizeof(T));

// body(n, tile) for the images from n on, as many as the tile holds; it is zero. Tiles of 16 bytes take the padding with
// them: what is computed of one number has branches, which the CPU cannot foresee in a maximum.
template <class T, class Body>
ALWAYS_INLINE void for_tiles(int images, Body body) {
  constexpr int lanes = simd::lanes<T>;
  int n = 0;
  for (; n + 8 * lanes <= images; n += 8 * lanes) body(n, Tile<T, lanes, 8>());
  for (; n + lanes <= images; n += lanes) body(n, Tile<T, lanes, 1>());
  for (; n + least_lanes<T> <= images; n += least_lanes<T>) body(n, Tile<T, least_lanes<T>, 1>());
  for (; n < images; ++n) body(n, Tile<T, 1, 1>());
}

// The images of a pixel, and as much of the padding behind them as all tensors have, up to 16 bytes.
template <class T>
int with_padding(int images, std::initializer_list<std::int64_t> pitches) {
  const int wanted = (images + least_lanes<T> - 1) / least_lanes<T> * least_lanes<T>;
  return wanted <= std::min(pitches) ? wanted : images;
}

// For the rows of windows (channel, y) from `first` to `last` - 1: finish_of(y) of the fold over each window, for those
// of few images; pixel(c, y, x) for the others.
template <class T, class Fold, class FinishOf, class Pixel>
void for_windows(const Images<const T>& in, const Images<T>& out, const WindowGrid& windows, std::int64_t first, std::int64_t last, Fold fold,
                 FinishOf finish_of, Pixel pixel) {
  const RowWindows<T> of_a_row(in, out, windows);
  std::vector<T> scratch(of_a_row.scratch_size());
  for (std::int64_t row = first; row < last; ++row) {
    const int c = int(row / out.height), y = int(row % out.height);
    of_a_row(c, y, scratch.data(), fold, finish_of(y));
    for (int x = 0; x < of_a_row.first; ++x) pixel(c, y, x);
    for (int x = of_a_row.last; x < out.width; ++x) pixel(c, y, x);
  }
}

// The best of each window of those rows.
template <bool by_magnitude, class T>
void best_of_windows(const Images<const T>& in, const Images<T>& out, const WindowGrid& windows, std::int64_t first, std::int64_t last) {
  const std::int64_t ahead = 4 * in.pitch;
  const int images = with_padding<T>(out.images, {in.pitch, out.pitch});
  const auto fold = [](auto best, auto value) { return better<by_magnitude>(best, value); };
  const auto finish_of = [](int) { return [](auto best) { return best; }; };
  for_windows(in, out, windows, first, last, fold, finish_of, [&](int c, int y, int x) {
    const int top = windows.down.begin(y), bottom = windows.down.end(y);
    const int left = windows.across.begin(x), right = windows.across.end(x);
    for_tiles<T>(images, [&](int n, auto best) {
      best.update(ahead, [](auto, auto value) { return value; }, in.row(c, top, left) + n);
      for (int v = top; v < bottom; ++v) {
        const T* pixel = in.row(c, v, left) + n;
        for (int u = left; u < right; ++u, pixel += in.pitch)
          best.update(ahead, fold, pixel);
      }
      best.store(out.row(c, y, x) + n, out.add);
    });
  });
}

// sum + grad where the input is its window's best.
constexpr auto add_if_best = [](auto sum, auto input, auto act, auto grad) { return sum + (input == act ? grad : decltype(grad){}); };

// What `images` numbers of a pixel, from image `from` on, get from the windows of channel c that hold it. `ahead`: how far ahead to fetch.
template <class T>
ALWAYS_INLINE void gather_if_best(const T* input, const Images<const T>& acts, const Images<const T>& grads, int c, const WindowsWith& holding, int from,
                                  int images, std::int64_t ahead, T* target, bool add) {
  for_tiles<T>(images, [&](int n, auto sum) {
    for (int y = holding.top; y < holding.bottom; ++y) {
      const T *act = acts.row(c, y, holding.left) + from + n, *grad = grads.row(c, y, holding.left) + from + n;
      for (int x = holding.left; x < holding.right; ++x, act += acts.pitch, grad += grads.pitch) sum.update(ahead, add_if_best, input + n, act, grad);
    }
    sum.store(target + n, add);
  });
}

// Spreads the numbers of a row of windows, and their gradients, over the pixels that they begin at: see SpreadWindows.
template <class T>
void spread_best(const Images<const T>& acts, const Images<const T>& grads, int c, int y, std::int64_t step, T* act, T* grad) {
  spread(act, step, acts.row(c, y, 0), acts.pitch, acts.images, acts.width, [](int, T value) { return value; });
  spread(grad, step, grads.row(c, y, 0), grads.pitch, grads.images, grads.width, [](int, T value) { return value; });
}

}  // namespace convnet

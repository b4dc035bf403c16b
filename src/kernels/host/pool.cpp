// Pooling on the host: the formulas, along the images.
#include <vector>
#include "../pool.h"
#include "loops.h"
#include "pool_rows.h"

namespace convnet {
namespace {

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

// finish_of(y) of the fold over each window, for those of few images; pixel(c, y, x) for the others.
template <class T, class Fold, class FinishOf, class Pixel>
void for_windows(Stream stream, const Images<const T>& in, const Images<T>& out, const WindowGrid& windows, Fold fold, FinishOf finish_of, Pixel pixel) {
  const RowWindows<T> of_a_row(in, out, windows);
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, out.width * out.pitch, [&](std::int64_t first, std::int64_t last) {
    std::vector<T> scratch(of_a_row.scratch_size());
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / out.height), y = int(row % out.height);
      of_a_row(c, y, scratch.data(), fold, finish_of(y));
      for (int x = 0; x < of_a_row.first; ++x) pixel(c, y, x);
      for (int x = of_a_row.last; x < out.width; ++x) pixel(c, y, x);
    }
  });
}

template <bool by_magnitude, class T>
void pool_best(Stream stream, const Images<const T>& in, const Images<T>& out, const WindowGrid& windows) {
  const std::int64_t ahead = 4 * in.pitch;
  const int images = with_padding<T>(out.images, {in.pitch, out.pitch});
  const auto fold = [](auto best, auto value) { return better<by_magnitude>(best, value); };
  const auto finish_of = [](int) { return [](auto best) { return best; }; };
  for_windows(stream, in, out, windows, fold, finish_of, [&](int c, int y, int x) {
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

struct Span {
  int begin, end;
};

// body(c, v, u, down, across) for every pixel of a tensor, with the windows that hold it. To find these takes divisions,
// which are done once a row and once a column.
template <class T, class Body>
void for_pixels_in_windows(Stream stream, const Images<T>& out, const WindowGrid& windows, Body body) {
  std::vector<Span> across;
  for (int u = 0; u < out.width; ++u) across.push_back({windows.across.first_with(u), windows.across.end_with(u)});
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, out.width * out.pitch, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / out.height), v = int(row % out.height);
      const Span down = {windows.down.first_with(v), windows.down.end_with(v)};
      for (int u = 0; u < out.width; ++u) body(c, v, u, down, across[u]);
    }
  });
}

// Gathers: a pixel looks at the windows that hold it.
template <class T>
void pass_to_best(Stream stream, const Images<const T>& in, const Images<const T>& acts, const Images<const T>& grads, const Images<T>& out,
                  const WindowGrid& windows, bool relu = false) {
  const std::int64_t ahead = 4 * in.pitch;
  const int images = with_padding<T>(out.images, {in.pitch, acts.pitch, grads.pitch, out.pitch});
  if (are_few<T>(out.images, {out.pitch, in.pitch, acts.pitch, grads.pitch})) {
    const auto fill = [&](int c, int y, T* act, T* grad) {
      const std::int64_t step = windows.across.stride * out.pitch;
      spread(act, step, acts.row(c, y, 0), acts.pitch, acts.images, acts.width, [](int, T value) { return value; });
      spread(grad, step, grads.row(c, y, 0), grads.pitch, grads.images, grads.width, [](int, T value) { return value; });
    };
    sum_windows(stream, &in, out, windows, relu, fill, [](auto sum, auto input, auto act, auto grad) { return sum + (input == act ? grad : decltype(grad){}); });
    return;
  }
  for_pixels_in_windows(stream, out, windows, [&](int c, int v, int u, Span down, Span across) {
    for_tiles<T>(images, [&](int n, auto sum) {
      const T* const input = in.row(c, v, u) + n;
      for (int y = down.begin; y < down.end; ++y) {
        const T *act = acts.row(c, y, across.begin) + n, *grad = grads.row(c, y, across.begin) + n;
        for (int x = across.begin; x < across.end; ++x, act += acts.pitch, grad += grads.pitch)
          sum.update(ahead, [](auto sum, auto input, auto act, auto grad) { return sum + (input == act ? grad : decltype(grad){}); },
                     input, act, grad);
      }
      sum.store(out.row(c, v, u) + n, out.add);
    });
    if (relu) relu_row(out.row(c, v, u), in.row(c, v, u), out.images);
  });
}

}  // namespace

void max_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) { pool_best<false>(stream, images_of<T>(inputs), images_of<T>(acts), windows); });
}

void max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start, bool relu) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    pass_to_best(stream, images_of<T>(inputs), images_of<T>(acts), images_of<T>(acts_grad), images_of<T>(inputs_grad), windows, relu);
  });
}

void maxabs_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) { pool_best<true>(stream, images_of<T>(inputs), images_of<T>(acts), windows); });
}

void cross_map_max_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = cross_map_windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    pool_best<false>(stream, as_one_map(images_of<T>(inputs)), as_one_map(images_of<T>(acts)), windows);
  });
}

void cross_map_max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start) {
  const WindowGrid windows = cross_map_windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    pass_to_best(stream, as_one_map(images_of<T>(inputs)), as_one_map(images_of<T>(acts)), as_one_map(images_of<T>(acts_grad)),
                 as_one_map(images_of<T>(inputs_grad)), windows);
  });
}

void avg_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    const std::int64_t ahead = 4 * in.pitch;
    const int images = with_padding<T>(out.images, {in.pitch, out.pitch});
    const auto fold = [](auto total, auto value) { return total + value; };
    const auto finish_of = [&](int y) {
      return [area = sum ? T(1) : T(windows.down.length(y) * size)](auto total) { return total / area; };
    };
    for_windows(stream, in, out, windows, fold, finish_of, [&](int c, int y, int x) {
      const int top = windows.down.begin(y), bottom = windows.down.end(y);
      const int left = windows.across.begin(x), right = windows.across.end(x);
      const T area = sum ? T(1) : T((bottom - top) * (right - left));
      for_tiles<T>(images, [&](int n, auto total) {
        for (int v = top; v < bottom; ++v) {
          const T* pixel = in.row(c, v, left) + n;
          for (int u = left; u < right; ++u, pixel += in.pitch)
            total.update(ahead, fold, pixel);
        }
        total.apply([area](auto total) { return total / area; });
        total.store(out.row(c, y, x) + n, out.add);
      });
    });
  });
}

void avg_pool_backward(Stream stream, In acts_grad, Out inputs_grad, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs_grad.shape, acts_grad.shape, size, stride, start);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  WITH_FLOAT_TYPE(acts_grad, [&]<class T>(T) {
    const auto grads = images_of<T>(acts_grad);
    const auto out = images_of<T>(inputs_grad);
    const std::int64_t ahead = 4 * grads.pitch;
    const int images = with_padding<T>(out.images, {grads.pitch, out.pitch});
    std::vector<T> shares;  // of (y, x)
    for (int y = 0; y < grads.height; ++y)
      for (int x = 0; x < grads.width; ++x) shares.push_back(sum ? T(1) : 1 / T(windows.down.length(y) * windows.across.length(x)));
    if (are_few<T>(out.images, {out.pitch, grads.pitch})) {
      const auto fill = [&](int c, int y, T* share, T*) {
        spread(share, windows.across.stride * out.pitch, grads.row(c, y, 0), grads.pitch, grads.images, grads.width,
               [of_row = shares.data() + y * grads.width](int x, T grad) { return grad * of_row[x]; });
      };
      sum_windows<T>(stream, nullptr, out, windows, false, fill, [](auto sum, auto, auto share, auto) { return sum + share; });
      return;
    }
    for_pixels_in_windows(stream, out, windows, [&](int c, int v, int u, Span down, Span across) {
      for_tiles<T>(images, [&](int n, auto total) {
        for (int y = down.begin; y < down.end; ++y) {
          const T* grad = grads.row(c, y, across.begin) + n;
          for (int x = across.begin; x < across.end; ++x, grad += grads.pitch) {
            const T share = shares[y * grads.width + x];
            total.update(ahead, [share](auto total, auto grad) { return total + grad * share; }, grad);
          }
        }
        total.store(out.row(c, v, u) + n, out.add);
      });
    });
  });
}

}  // namespace convnet

// Pooling on the host: the formulas, along the images.
#include <vector>
#include "../pool.h"
#include "loops.h"
#include "simd.h"

namespace convnet {
namespace {

// Images that are reduced together, in `parts` vectors of `lanes`. Explicit vectors, since they stay in registers
// over all pixels of a window; plain loops over an array on the stack took two to four times as long.
template <class T, int lanes, int parts>
struct Tile {
  typedef T Part __attribute__((vector_size(lanes * sizeof(T)), aligned(sizeof(T)), may_alias));
  Part part[parts] = {};

  // part = f(part, the same part of each row). Windows are too short for the CPU to foresee what comes next: fetching
  // what lies `ahead`, four pixels on, takes a third off the time of max_pool.
  template <class F, class... Row>
  ALWAYS_INLINE void update(std::int64_t ahead, F f, const Row*... rows) {
#pragma GCC unroll 8
    for (int i = 0; i < parts; ++i) {
      (__builtin_prefetch(rows + ahead + i * lanes), ...);
      part[i] = f(part[i], *reinterpret_cast<const Part*>(rows + i * lanes)...);
    }
  }
  template <class F>
  ALWAYS_INLINE void apply(F f) {
#pragma GCC unroll 8
    for (int i = 0; i < parts; ++i) part[i] = f(part[i]);
  }
  ALWAYS_INLINE void store(T* target, bool add) const {
#pragma GCC unroll 8
    for (int i = 0; i < parts; ++i) {
      Part& old = *reinterpret_cast<Part*>(target + i * lanes);
      old = add ? old + part[i] : part[i];
    }
  }
};

// Numbers that are 16 bytes: pixels of few images are some of these, padding included.
template <class T>
constexpr int few = 16 / int(sizeof(T));

// body(n, tile) for the images from n on, as many as the tile holds; it is zero. Tiles of 16 bytes take the padding with
// them: what is computed of one number has branches, which the CPU cannot foresee in a maximum.
template <class T, class Body>
ALWAYS_INLINE void for_tiles(int images, Body body) {
  constexpr int lanes = simd::lanes<T>;
  int n = 0;
  for (; n + 8 * lanes <= images; n += 8 * lanes) body(n, Tile<T, lanes, 8>());
  for (; n + lanes <= images; n += lanes) body(n, Tile<T, lanes, 1>());
  for (; n + few<T> <= images; n += few<T>) body(n, Tile<T, few<T>, 1>());
  for (; n < images; ++n) body(n, Tile<T, 1, 1>());
}

// The images of a pixel, and as much of the padding behind them as all tensors have, up to 16 bytes.
template <class T>
int with_padding(int images, std::initializer_list<std::int64_t> pitches) {
  const int wanted = (images + few<T> - 1) / few<T> * few<T>;
  return wanted <= std::min(pitches) ? wanted : images;
}

// Whether pixels of tensors with these pitches are few numbers, and rows of pixels one run of them.
template <class T>
bool are_few(int images, std::initializer_list<std::int64_t> pitches) {
  return *pitches.begin() < simd::lanes<T> && *pitches.begin() % few<T> == 0 && can_join(images, sizeof(T) == 8 ? Dtype::float64 : Dtype::float32, pitches);
}

// Windows of few images: each row of acts is computed for windows at every pixel, whose numbers lie one behind the other
// and fill vectors, of which those that there are are then taken. Window by window it takes six times as long.
template <class T>
struct FewImages {
  const Images<const T>& in;
  const Images<T>& out;
  const WindowGrid& windows;
  int first, last;  // windows from first to last - 1 lie within the rows

  FewImages(const Images<const T>& in, const Images<T>& out, const WindowGrid& windows) : in(in), out(out), windows(windows) {
    const Windows& w = windows.across;
    first = w.start < 0 ? (-w.start + w.stride - 1) / w.stride : 0;
    last = w.pixels - w.size - w.start < 0 ? 0 : std::min(w.count, (w.pixels - w.size - w.start) / w.stride + 1);
    if (!are_few<T>(in.images, {in.pitch, out.pitch}) || w.stride > 4 || last < first) first = last = 0;
  }

  // For all of a row (c, y): fold(sum, value) over each window, finish(sum).
  template <class Fold, class Finish>
  void row(int c, int y, T* scratch, Fold fold, Finish finish) const {
    const Windows& w = windows.across;
    const std::int64_t begin = (w.start + first * w.stride) * in.pitch, end = (w.start + (last - 1) * w.stride + 1) * in.pitch;
    const auto at = [&](std::int64_t i, auto tile) {
      tile.update(0, [](auto, auto value) { return value; }, in.row(c, windows.down.begin(y), 0) + i);
      bool is_first = true;
      for (int v = windows.down.begin(y); v < windows.down.end(y); ++v) {
        const T* pixel = in.row(c, v, 0) + i;
        for (int k = 0; k < w.size; ++k, pixel += in.pitch, is_first = false)
          if (!is_first) tile.update(0, fold, pixel);
      }
      tile.apply(finish);
      tile.store(scratch + i, false);
    };
    constexpr int lanes = simd::lanes<T>;
    std::int64_t i = begin;
    for (; i + lanes <= end; i += lanes) at(i, Tile<T, lanes, 1>());
    for (; i < end; i += few<T>) at(i, Tile<T, few<T>, 1>());
    for (int x = first; x < last; ++x)
      store_row(out.row(c, y, x), out.images, out.add, [source = scratch + (w.start + x * w.stride) * in.pitch](int n) { return source[n]; });
  }
};

// finish_of(y) of the fold over each window, for those of few images; pixel(c, y, x) for the others.
template <class T, class Fold, class FinishOf, class Pixel>
void for_windows(Stream stream, const Images<const T>& in, const Images<T>& out, const WindowGrid& windows, Fold fold, FinishOf finish_of, Pixel pixel) {
  const FewImages<T> few(in, out, windows);
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, out.width * out.pitch, [&](std::int64_t first, std::int64_t last) {
    std::vector<T> scratch(few.first < few.last ? in.width * in.pitch : 0);
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / out.height), y = int(row % out.height);
      if (few.first < few.last) few.row(c, y, scratch.data(), fold, finish_of(y));
      for (int x = 0; x < few.first; ++x) pixel(c, y, x);
      for (int x = few.last; x < out.width; ++x) pixel(c, y, x);
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

// Gradients of few images: each row of them is summed in the cache, window by window, in the order in which a pixel would
// look at the windows that hold it: to find these for each pixel takes most of the time.
//   term(c, y, x, n)(input) is what window (y, x) adds to a pixel, for some images from n on; in: of all pixels
template <class T, class Term>
void add_windows(Stream stream, const Images<const T>& in, const Images<T>& out, const WindowGrid& windows, bool relu, Term term) {
  typedef typename Tile<T, few<T>, 1>::Part Part;
  const int width = int(out.width * out.pitch);
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, width, [&](std::int64_t first, std::int64_t last) {
    std::vector<T> sums(width);
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / out.height), v = int(row % out.height);
      std::fill(sums.begin(), sums.end(), T(0));
      const T* const inputs = in.row(c, v, 0);
      for (int y = windows.down.first_with(v); y < windows.down.end_with(v); ++y)
        for (int x = 0; x < windows.across.count; ++x)
          for (int n = 0; n < out.pitch; n += few<T>) {
            const auto add = term(c, y, x, n);
            for (std::int64_t i = windows.across.begin(x) * out.pitch + n; i < windows.across.end(x) * out.pitch; i += out.pitch)
              *reinterpret_cast<Part*>(&sums[i]) += add(*reinterpret_cast<const Part*>(inputs + i));
          }
      const int count = width - int(out.pitch) + out.images;
      store_row(out.row(c, v, 0), count, out.add, [&](int i) { return sums[i]; });
      if (relu) relu_row(out.row(c, v, 0), inputs, count);
    }
  });
}
template <class T>
auto few_at(const T* numbers) { return *reinterpret_cast<const typename Tile<T, few<T>, 1>::Part*>(numbers); }

// Gathers: a pixel looks at the windows that hold it.
template <class T>
void pass_to_best(Stream stream, const Images<const T>& in, const Images<const T>& acts, const Images<const T>& grads, const Images<T>& out,
                  const WindowGrid& windows, bool relu = false) {
  const std::int64_t ahead = 4 * in.pitch;
  const int images = with_padding<T>(out.images, {in.pitch, acts.pitch, grads.pitch, out.pitch});
  if (are_few<T>(out.images, {out.pitch, in.pitch, acts.pitch, grads.pitch})) {
    add_windows(stream, in, out, windows, relu, [&](int c, int y, int x, int n) {
      return [act = few_at(acts.row(c, y, x) + n), grad = few_at(grads.row(c, y, x) + n)](auto input) { return input == act ? grad : decltype(grad){}; };
    });
    return;
  }
  for_pixels(stream, out, [&](int c, int v, int u) {
    const int top = windows.down.first_with(v), bottom = windows.down.end_with(v);
    const int left = windows.across.first_with(u), right = windows.across.end_with(u);
    for_tiles<T>(images, [&](int n, auto sum) {
      const T* const input = in.row(c, v, u) + n;
      for (int y = top; y < bottom; ++y) {
        const T *act = acts.row(c, y, left) + n, *grad = grads.row(c, y, left) + n;
        for (int x = left; x < right; ++x, act += acts.pitch, grad += grads.pitch)
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
    const auto share_of = [&](int y, int x) { return sum ? T(1) : 1 / T(windows.down.length(y) * windows.across.length(x)); };
    if (are_few<T>(out.images, {out.pitch, grads.pitch})) {
      const Images<const T> none{out.data, out.channels, out.height, out.width, out.images, out.pitch, false};
      add_windows(stream, none, out, windows, false, [&](int c, int y, int x, int n) {
        return [part = few_at(grads.row(c, y, x) + n) * share_of(y, x)](auto) { return part; };
      });
      return;
    }
    for_pixels(stream, out, [&](int c, int v, int u) {
      const int top = windows.down.first_with(v), bottom = windows.down.end_with(v);
      const int left = windows.across.first_with(u), right = windows.across.end_with(u);
      for_tiles<T>(images, [&](int n, auto total) {
        for (int y = top; y < bottom; ++y) {
          const T* grad = grads.row(c, y, left) + n;
          for (int x = left; x < right; ++x, grad += grads.pitch) {
            const T share = share_of(y, x);
            total.update(ahead, [share](auto total, auto grad) { return total + grad * share; }, grad);
          }
        }
        total.store(out.row(c, v, u) + n, out.add);
      });
    });
  });
}

}  // namespace convnet

// Pooling on the host: the formulas, along the images.
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

// body(n, tile) for the images from n on, as many as the tile holds; it is zero.
template <class T, class Body>
ALWAYS_INLINE void for_tiles(int images, Body body) {
  constexpr int lanes = simd::lanes<T>;
  int n = 0;
  for (; n + 8 * lanes <= images; n += 8 * lanes) body(n, Tile<T, lanes, 8>());
  for (; n + lanes <= images; n += lanes) body(n, Tile<T, lanes, 1>());
  for (; n + 2 <= images; n += 2) body(n, Tile<T, 2, 1>());
  for (; n < images; ++n) body(n, Tile<T, 1, 1>());
}

template <bool by_magnitude, class T>
void pool_best(Stream stream, const Images<const T>& in, const Images<T>& out, const WindowGrid& windows) {
  const std::int64_t ahead = 4 * in.pitch;
  for_pixels(stream, out, [&](int c, int y, int x) {
    const int top = windows.down.begin(y), bottom = windows.down.end(y);
    const int left = windows.across.begin(x), right = windows.across.end(x);
    for_tiles<T>(out.images, [&](int n, auto best) {
      best.update(ahead, [](auto, auto value) { return value; }, in.row(c, top, left) + n);
      for (int v = top; v < bottom; ++v)
        for (int u = left; u < right; ++u)
          best.update(ahead, [](auto best, auto value) { return better<by_magnitude>(best, value); }, in.row(c, v, u) + n);
      best.store(out.row(c, y, x) + n, out.add);
    });
  });
}

// Gathers: a pixel looks at the windows that hold it.
template <class T>
void pass_to_best(Stream stream, const Images<const T>& in, const Images<const T>& acts, const Images<const T>& grads, const Images<T>& out,
                  const WindowGrid& windows, bool relu = false) {
  const std::int64_t ahead = 4 * in.pitch;
  for_pixels(stream, out, [&](int c, int v, int u) {
    const int top = windows.down.first_with(v), bottom = windows.down.end_with(v);
    const int left = windows.across.first_with(u), right = windows.across.end_with(u);
    for_tiles<T>(out.images, [&](int n, auto sum) {
      for (int y = top; y < bottom; ++y)
        for (int x = left; x < right; ++x)
          sum.update(ahead, [](auto sum, auto input, auto act, auto grad) { return sum + (input == act ? grad : decltype(grad){}); },
                     in.row(c, v, u) + n, acts.row(c, y, x) + n, grads.row(c, y, x) + n);
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
    for_pixels(stream, out, [&](int c, int y, int x) {
      const int top = windows.down.begin(y), bottom = windows.down.end(y);
      const int left = windows.across.begin(x), right = windows.across.end(x);
      const T area = sum ? T(1) : T((bottom - top) * (right - left));
      for_tiles<T>(out.images, [&](int n, auto total) {
        for (int v = top; v < bottom; ++v)
          for (int u = left; u < right; ++u)
            total.update(ahead, [](auto total, auto value) { return total + value; }, in.row(c, v, u) + n);
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
    for_pixels(stream, out, [&](int c, int v, int u) {
      const int top = windows.down.first_with(v), bottom = windows.down.end_with(v);
      const int left = windows.across.first_with(u), right = windows.across.end_with(u);
      for_tiles<T>(out.images, [&](int n, auto total) {
        for (int y = top; y < bottom; ++y)
          for (int x = left; x < right; ++x) {
            const T share = sum ? T(1) : 1 / T(windows.down.length(y) * windows.across.length(x));
            total.update(ahead, [share](auto total, auto grad) { return total + grad * share; }, grads.row(c, y, x) + n);
          }
        total.store(out.row(c, v, u) + n, out.add);
      });
    });
  });
}

}  // namespace convnet

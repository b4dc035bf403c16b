// Stochastic pooling on the host: the formulas, along the images.
#include "../random_pool.h"
#include "loops.h"

namespace convnet {
namespace {

constexpr int tile = 128;  // images that are worked on together, so that what a window needs of them stays in the L1 cache

// body(c, y, x, first, images) for the tiles of every pixel of a tensor.
template <class T, class Body>
void for_tiles(Stream stream, const Images<T>& tensor, Body body) {
  for_row_ranges(stream, tensor.rows(), tensor.pitch, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const int pixel = int(row % (tensor.height * tensor.width)), c = int(row / (tensor.height * tensor.width));
      for (int n = 0; n < tensor.images; n += tile) body(c, pixel / tensor.width, pixel % tensor.width, n, std::min(tile, tensor.images - n));
    }
  });
}

// body(v, u, pixels) for the pixels of window (y, x) of channel c, row by row; `pixels` are its images from `first` on.
template <class T, class Body>
void for_window(const Images<const T>& in, const WindowGrid& windows, int c, int y, int x, int first, Body body) {
  for (int v = windows.down.begin(y); v < windows.down.end(y); ++v)
    for (int u = windows.across.begin(x); u < windows.across.end(x); ++u) body(v, u, in.row(c, v, u) + first);
}

// total[n] = the sum of the weights of a window.
template <class T>
void add_weights(const Images<const T>& in, const WindowGrid& windows, int c, int y, int x, int first, int images, T* total) {
  std::fill(total, total + images, T(0));
  for_window(in, windows, c, y, x, first, [&](int, int, const T* input) {
    for (int n = 0; n < images; ++n) total[n] += weight_of(input[n]);
  });
}

// body(v, u, drawn, pixels) for the pixels of a window: whether the draw of image first + n stops there is drawn[n].
// `row` is the window's in acts, `total` the sums of its weights.
template <class T, class Body>
void draw(const Images<const T>& in, const WindowGrid& windows, int c, int y, int x, int first, int images, std::int64_t row, const T* total,
          std::uint64_t step, std::uint32_t seed, std::uint32_t purpose, int first_image, Body body) {
  T stop[tile], sum[tile] = {};
  for (int n = 0; n < images; ++n) stop[n] = stop_of(row, first_image + first + n, total[n], step, seed, purpose);
  for_window(in, windows, c, y, x, first, [&](int v, int u, const T* input) {
    bool drawn[tile];
    for (int n = 0; n < images; ++n) {
      const bool before = sum[n] <= stop[n];
      sum[n] += weight_of(input[n]);
      drawn[n] = before & (sum[n] > stop[n]);
    }
    body(v, u, drawn, input);
  });
}

}  // namespace

void random_pool_forward(Stream stream, In inputs, In state, Out acts, int size, int stride, int start, std::uint32_t seed, std::uint32_t purpose,
                         int first_image) {
  const WindowGrid windows = checks::random_pool_forward(inputs, state, acts, size, stride, start);
  const auto step = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    for_tiles(stream, out, [&](int c, int y, int x, int first, int images) {
      T total[tile], act[tile];
      add_weights(in, windows, c, y, x, first, images, total);
      for (int n = 0; n < images; ++n) act[n] = nothing_drawn(total[n]);
      const std::int64_t row = (std::int64_t(c) * out.height + y) * out.width + x;
      draw(in, windows, c, y, x, first, images, row, total, step, seed, purpose, first_image, [&](int, int, const bool* drawn, const T* input) {
        for (int n = 0; n < images; ++n) act[n] = drawn[n] ? input[n] : act[n];
      });
      store_row(out.row(c, y, x) + first, images, out.add, [&](int n) { return act[n]; });
    });
  });
}

void random_pool_backward(Stream stream, In inputs, In state, In acts_grad, Out inputs_grad, int size, int stride, int start, std::uint32_t seed,
                          std::uint32_t purpose, int first_image) {
  const WindowGrid windows = checks::random_pool_backward(inputs, state, acts_grad, inputs_grad, size, stride, start);
  const auto step = std::uint64_t(rows_of<double>(state).row(0)[state_step]);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs), grads = images_of<T>(acts_grad);
    const auto out = images_of<T>(inputs_grad);
    for_tiles(stream, out, [&](int c, int v, int u, int first, int images) {
      T gradient[tile] = {};
      for (int y = windows.down.first_with(v); y < windows.down.end_with(v); ++y)
        for (int x = windows.across.first_with(u); x < windows.across.end_with(u); ++x) {
          T total[tile];
          add_weights(in, windows, c, y, x, first, images, total);
          const T* const grad = grads.row(c, y, x) + first;
          const std::int64_t row = (std::int64_t(c) * grads.height + y) * grads.width + x;
          draw(in, windows, c, y, x, first, images, row, total, step, seed, purpose, first_image, [&](int at_v, int at_u, const bool* drawn, const T*) {
            if (at_v == v && at_u == u)
              for (int n = 0; n < images; ++n) gradient[n] += drawn[n] ? grad[n] : T(0);
          });
        }
      store_row(out.row(c, v, u) + first, images, out.add, [&](int n) { return gradient[n]; });
    });
  });
}

void expected_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = checks::expected_pool_forward(inputs, acts, size, stride, start);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    for_tiles(stream, out, [&](int c, int y, int x, int first, int images) {
      T total[tile] = {}, squares[tile] = {};
      for_window(in, windows, c, y, x, first, [&](int, int, const T* input) {
        for (int n = 0; n < images; ++n) {
          total[n] += weight_of(input[n]);
          squares[n] += weight_of(input[n]) * weight_of(input[n]);
        }
      });
      store_row(out.row(c, y, x) + first, images, out.add, [&](int n) { return expected(total[n], squares[n]); });
    });
  });
}

void expected_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start) {
  const WindowGrid windows = checks::expected_pool_backward(inputs, acts, acts_grad, inputs_grad, size, stride, start);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs), means = images_of<T>(acts), grads = images_of<T>(acts_grad);
    const auto out = images_of<T>(inputs_grad);
    for_tiles(stream, out, [&](int c, int v, int u, int first, int images) {
      const T* const input = in.row(c, v, u) + first;
      T gradient[tile] = {};
      for (int y = windows.down.first_with(v); y < windows.down.end_with(v); ++y)
        for (int x = windows.across.first_with(u); x < windows.across.end_with(u); ++x) {
          T total[tile];
          add_weights(in, windows, c, y, x, first, images, total);
          const T *const act = means.row(c, y, x) + first, *const grad = grads.row(c, y, x) + first;
          for (int n = 0; n < images; ++n) gradient[n] += grad[n] * expected_slope(input[n], total[n], act[n]);
        }
      store_row(out.row(c, v, u) + first, images, out.add, [&](int n) { return gradient[n]; });
    });
  });
}

}  // namespace convnet

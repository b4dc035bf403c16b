// Pooling on the host: the formulas, along the images.
#include <vector>
#include "pool_windows.h"

namespace convnet {
namespace {

template <bool by_magnitude, class T>
void pool_best(Stream stream, const Images<const T>& in, const Images<T>& out, const WindowGrid& windows) {
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, out.width * out.pitch,
                 [&](std::int64_t first, std::int64_t last) { best_of_windows<by_magnitude>(in, out, windows, first, last); });
}

// body(c, v, u, windows) for every pixel of a tensor, with the windows that hold it. To find these takes divisions,
// which are done once a row and once a column.
template <class T, class Body>
void for_pixels_in_windows(Stream stream, const Images<T>& out, const WindowGrid& windows, Body body) {
  std::vector<WindowsWith> columns;
  for (int u = 0; u < out.width; ++u) columns.push_back(windows.with(0, u));
  for_row_ranges(stream, std::int64_t(out.channels) * out.height, out.width * out.pitch, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / out.height), v = int(row % out.height);
      const int top = windows.down.first_with(v), bottom = windows.down.end_with(v);
      for (int u = 0; u < out.width; ++u) body(c, v, u, WindowsWith{top, bottom, columns[u].left, columns[u].right});
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
    const auto fill = [&](int c, int y, T* act, T* grad) { spread_best(acts, grads, c, y, windows.across.stride * out.pitch, act, grad); };
    sum_windows(stream, &in, out, windows, relu, fill, add_if_best);
    return;
  }
  for_pixels_in_windows(stream, out, windows, [&](int c, int v, int u, const WindowsWith& holding) {
    gather_if_best(in.row(c, v, u), acts, grads, c, holding, 0, images, ahead, out.row(c, v, u), out.add);
    if (relu) relu_row(out.row(c, v, u), in.row(c, v, u), out.images);
  });
}

// inputs: the acts of a relu, or null.
void share_out(Stream stream, In acts_grad, In inputs, Out inputs_grad, const WindowGrid& windows, bool sum) {
  WITH_FLOAT_TYPE(acts_grad, [&]<class T>(T) {
    const auto grads = images_of<T>(acts_grad), in = images_of<T>(inputs);
    const auto out = images_of<T>(inputs_grad);
    const bool relu = in.data;
    const std::int64_t ahead = 4 * grads.pitch;
    const std::int64_t pitch_of_relu = relu ? in.pitch : out.pitch;
    const int images = with_padding<T>(out.images, {grads.pitch, out.pitch, pitch_of_relu});
    std::vector<T> shares;  // of (y, x)
    for (int y = 0; y < grads.height; ++y)
      for (int x = 0; x < grads.width; ++x) shares.push_back(sum ? T(1) : 1 / T(windows.down.length(y) * windows.across.length(x)));
    if (are_few<T>(out.images, {out.pitch, grads.pitch, pitch_of_relu})) {
      const auto fill = [&](int c, int y, T* share, T*) {
        spread(share, windows.across.stride * out.pitch, grads.row(c, y, 0), grads.pitch, grads.images, grads.width,
               [of_row = shares.data() + y * grads.width](int x, T grad) { return grad * of_row[x]; });
      };
      sum_windows<T>(stream, relu ? &in : nullptr, out, windows, relu, fill, [](auto sum, auto, auto share, auto) { return sum + share; });
      return;
    }
    for_pixels_in_windows(stream, out, windows, [&](int c, int v, int u, const WindowsWith& holding) {
      for_tiles<T>(images, [&](int n, auto total) {
        for (int y = holding.top; y < holding.bottom; ++y) {
          const T* grad = grads.row(c, y, holding.left) + n;
          for (int x = holding.left; x < holding.right; ++x, grad += grads.pitch) {
            const T share = shares[y * grads.width + x];
            total.update(ahead, [share](auto total, auto grad) { return total + grad * share; }, grad);
          }
        }
        if (relu) {
          if (out.add) total.update(0, [](auto total, auto before) { return before + total; }, out.row(c, v, u) + n);
          total.update(4 * in.pitch, [](auto total, auto act) { return total * (act > decltype(act){} ? decltype(act){} + T(1) : decltype(act){}); }, in.row(c, v, u) + n);
        }
        total.store(out.row(c, v, u) + n, out.add && !relu);
      });
    });
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
    const auto pixel = [&](int c, int y, int x) {
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
    };
    for_row_ranges(stream, std::int64_t(out.channels) * out.height, out.width * out.pitch,
                   [&](std::int64_t first, std::int64_t last) { for_windows(in, out, windows, first, last, fold, finish_of, pixel); });
  });
}

void avg_pool_backward(Stream stream, In acts_grad, Out inputs_grad, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs_grad.shape, acts_grad.shape, size, stride, start);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  share_out(stream, acts_grad, {}, inputs_grad, windows, sum);
}

void avg_pool_relu_backward(Stream stream, In acts_grad, In inputs, Out inputs_grad, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs_grad.shape, acts_grad.shape, size, stride, start);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  CHECK_LIKE(inputs, inputs_grad);
  share_out(stream, acts_grad, inputs, inputs_grad, windows, sum);
}

}  // namespace convnet

// Slices of images on the host.
#include "../slice.h"
#include "loops.h"

namespace convnet {

void slice_forward(Stream stream, In inputs, Out acts, int top, int left, int down, int across) {
  const SliceGrid slices = slices_of(__func__, inputs.shape, acts.shape, top, left, down, across);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    for_pixels(stream, out, [&](int c, int y, int x) {
      const T* const input = in.row(c, slices.down.pixel(y), slices.across.pixel(x));
      store_row(out.row(c, y, x), out.images, out.add, [&](int n) { return input[n]; });
    });
  });
}

void slice_backward(Stream stream, In acts_grad, Out inputs_grad, int top, int left, int down, int across) {
  const SliceGrid slices = slices_of(__func__, inputs_grad.shape, acts_grad.shape, top, left, down, across);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  WITH_FLOAT_TYPE(acts_grad, [&]<class T>(T) {
    const auto grads = images_of<T>(acts_grad);
    const auto out = images_of<T>(inputs_grad);
    for_pixels(stream, out, [&](int c, int v, int u) {
      const int y = slices.down.index(v), x = slices.across.index(u);
      if (y < 0 || x < 0) {
        store_row(out.row(c, v, u), out.images, out.add, [](int) { return T(0); });
      } else {
        const T* const grad = grads.row(c, y, x);
        store_row(out.row(c, v, u), out.images, out.add, [&](int n) { return grad[n]; });
      }
    });
  });
}

}  // namespace convnet

// Pooling: launchers.
#include "pool.cuh"

namespace convnet {

namespace {

template <bool by_magnitude, class T>
void launch_forward(Stream stream, const Images<const T>& inputs, const Images<T>& acts, const WindowGrid& windows) {
  launch<max_pool_forward_kernel<by_magnitude, T>>(rows_grid(acts.rows(), acts.images), stream, inputs, acts, windows);
}

template <class T>
void launch_backward(Stream stream, const Images<const T>& inputs, const Images<const T>& acts, const Images<const T>& acts_grad,
                     const Images<T>& inputs_grad, const WindowGrid& windows, bool relu = false) {
  launch<max_pool_backward_kernel<T>>(rows_grid(inputs.rows(), inputs.images), stream, inputs, acts, acts_grad, inputs_grad, windows, relu);
}

void launch_avg_backward(Stream stream, In acts_grad, Out inputs_grad, const WindowGrid& windows, bool sum, In inputs = {}) {
  WITH_STORED_TYPE(acts_grad, [&]<class T>(T) {
    launch<avg_pool_backward_kernel<T>>(rows_grid(inputs_grad.shape.rows(), inputs_grad.shape.images()), stream,
           images_of<T>(acts_grad), images_of<T>(inputs_grad), windows, sum, images_of<T>(inputs));
  });
}

}  // namespace

void max_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) { launch_forward<false>(stream, images_of<T>(inputs), images_of<T>(acts), windows); });
}

void max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start, bool relu) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch_backward(stream, images_of<T>(inputs), images_of<T>(acts), images_of<T>(acts_grad), images_of<T>(inputs_grad), windows, relu);
  });
}

void maxabs_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) { launch_forward<true>(stream, images_of<T>(inputs), images_of<T>(acts), windows); });
}

void avg_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<avg_pool_forward_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), windows, sum);
  });
}

void avg_pool_backward(Stream stream, In acts_grad, Out inputs_grad, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs_grad.shape, acts_grad.shape, size, stride, start);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  launch_avg_backward(stream, acts_grad, inputs_grad, windows, sum);
}

void avg_pool_relu_backward(Stream stream, In acts_grad, In inputs, Out inputs_grad, int size, int stride, int start, bool sum) {
  const WindowGrid windows = windows_of(__func__, inputs_grad.shape, acts_grad.shape, size, stride, start);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  CHECK_LIKE(inputs, inputs_grad);
  launch_avg_backward(stream, acts_grad, inputs_grad, windows, sum, inputs);
}

void cross_map_max_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = cross_map_windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch_forward<false>(stream, as_one_map(images_of<T>(inputs)), as_one_map(images_of<T>(acts)), windows);
  });
}

void cross_map_max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start) {
  const WindowGrid windows = cross_map_windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch_backward(stream, as_one_map(images_of<T>(inputs)), as_one_map(images_of<T>(acts)), as_one_map(images_of<T>(acts_grad)),
                    as_one_map(images_of<T>(inputs_grad)), windows);
  });
}

}  // namespace convnet

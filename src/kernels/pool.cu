// Max- and average-pooling: launchers.
#include "pool.cuh"

namespace convnet {

void max_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch(max_pool_forward_kernel<T>, rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), windows);
  });
}

void max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_LIKE(acts_grad, acts);
  CHECK_LIKE(inputs_grad, inputs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch(max_pool_backward_kernel<T>, rows_grid(inputs.shape.rows(), inputs.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), images_of<T>(acts_grad), images_of<T>(inputs_grad), windows);
  });
}

void avg_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs.shape, acts.shape, size, stride, start);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch(avg_pool_forward_kernel<T>, rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), windows);
  });
}

void avg_pool_backward(Stream stream, In acts_grad, Out inputs_grad, int size, int stride, int start) {
  const WindowGrid windows = windows_of(__func__, inputs_grad.shape, acts_grad.shape, size, stride, start);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  WITH_FLOAT_TYPE(acts_grad, [&]<class T>(T) {
    launch(avg_pool_backward_kernel<T>, rows_grid(inputs_grad.shape.rows(), inputs_grad.shape.images()), stream,
           images_of<T>(acts_grad), images_of<T>(inputs_grad), windows);
  });
}

}  // namespace convnet

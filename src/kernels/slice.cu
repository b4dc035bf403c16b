// Slices of images: launchers.
#include "slice.cuh"

namespace convnet {

void slice_forward(Stream stream, In inputs, Out acts, int top, int left, int down, int across) {
  const SliceGrid slices = slices_of(__func__, inputs.shape, acts.shape, top, left, down, across);
  CHECK_DTYPE(acts, inputs.dtype);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<slice_forward_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           images_of<T>(inputs), images_of<T>(acts), slices);
  });
}

void slice_backward(Stream stream, In acts_grad, Out inputs_grad, int top, int left, int down, int across) {
  const SliceGrid slices = slices_of(__func__, inputs_grad.shape, acts_grad.shape, top, left, down, across);
  CHECK_DTYPE(inputs_grad, acts_grad.dtype);
  WITH_STORED_TYPE(acts_grad, [&]<class T>(T) {
    launch<slice_backward_kernel<T>>(rows_grid(inputs_grad.shape.rows(), inputs_grad.shape.images()), stream,
           images_of<T>(acts_grad), images_of<T>(inputs_grad), slices);
  });
}

}  // namespace convnet

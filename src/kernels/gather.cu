// Chosen channels: launchers.
#include "gather.cuh"

namespace convnet {

void gather_forward(Stream stream, In inputs, In channels, Out acts) {
  checks::gather(__func__, inputs, channels, acts);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<gather_forward_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           images_of<T>(inputs), static_cast<const Computed<T>*>(channels.ptr), images_of<T>(acts));
  });
}

void gather_backward(Stream stream, In acts_grad, In channels, Out inputs_grad) {
  checks::gather(__func__, inputs_grad, channels, acts_grad);
  WITH_STORED_TYPE(acts_grad, [&]<class T>(T) {
    launch<gather_backward_kernel<T>>(rows_grid(inputs_grad.shape.rows(), inputs_grad.shape.images()), stream,
           images_of<T>(acts_grad), static_cast<const Computed<T>*>(channels.ptr), images_of<T>(inputs_grad));
  });
}

}  // namespace convnet

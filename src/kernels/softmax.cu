// Softmax: launchers.
#include "softmax.cuh"

namespace convnet {

void softmax_forward(Stream stream, In inputs, Out acts) {
  checks::softmax_forward(inputs, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<softmax_forward_kernel<T>>(softmax_grid(acts.shape), stream, rows_of<T>(inputs), rows_of<T>(acts));
  });
}

void softmax_backward(Stream stream, In acts, In acts_grad, Out inputs_grad) {
  checks::softmax_backward(acts, acts_grad, inputs_grad);
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    launch<softmax_backward_kernel<T>>(softmax_grid(acts.shape), stream, rows_of<T>(acts), rows_of<T>(acts_grad), rows_of<T>(inputs_grad));
  });
}

}  // namespace convnet

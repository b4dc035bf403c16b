// Element-wise maxima: launchers.
#include "eltmax.cuh"

namespace convnet {

void eltmax_forward(Stream stream, In inputs, In others, Out acts) {
  checks::eltmax_forward(inputs, others, acts);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<eltmax_forward_kernel<T>>(rows_grid(acts.shape.rows(), int(acts.shape.images())), stream,
           rows_of<T>(inputs), rows_of<T>(others), rows_of<T>(acts));
  });
}

void eltmax_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad) {
  checks::eltmax_backward(inputs, acts, acts_grad, inputs_grad);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<eltmax_backward_kernel<T>>(rows_grid(inputs.shape.rows(), int(inputs.shape.images())), stream,
           rows_of<T>(inputs), rows_of<T>(acts), rows_of<T>(acts_grad), rows_of<T>(inputs_grad));
  });
}

}  // namespace convnet

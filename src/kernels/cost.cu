// Multinomial logistic regression: launchers.
#include "cost.cuh"

namespace convnet {

void logreg_forward(Stream stream, In labels, In probs, Out costs, int topk) {
  checks::logreg_forward(labels, probs, costs, topk);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<logreg_forward_kernel<T>>({dim3(1), dim3(32, 32)}, stream, rows_of<T>(labels), rows_of<T>(probs), rows_of<double>(costs), topk);
  });
}

void logreg_backward(Stream stream, In labels, In probs, Out probs_grad, double coeff) {
  checks::logreg_backward(labels, probs, probs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<logreg_backward_kernel<T>>(rows_grid(probs.shape.rows(), int(probs.shape.images())), stream,
           rows_of<T>(labels), rows_of<T>(probs), rows_of<T>(probs_grad), T(coeff));
  });
}

void logreg_softmax_backward(Stream stream, In labels, In probs, Out inputs_grad, double coeff) {
  checks::logreg_softmax_backward(labels, probs, inputs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<logreg_softmax_backward_kernel<T>>(rows_grid(probs.shape.rows(), int(probs.shape.images())), stream,
           rows_of<T>(labels), rows_of<T>(probs), rows_of<T>(inputs_grad), T(coeff));
  });
}

}  // namespace convnet

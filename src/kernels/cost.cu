// Multinomial logistic regression: launchers.
#include "cost.cuh"
#include "ops.h"

namespace convnet {

void logreg_forward(Stream stream, In labels, In probs, Out costs, int topk) {
  CHECK_SHAPE(labels, (Shape{4, {1, 1, 1, probs.shape.images()}}));
  CHECK_DTYPE(labels, probs.dtype);
  CHECK_SHAPE(costs, (Shape{1, {3}}));
  CHECK_DTYPE(costs, Dtype::float64);
  CHECK(topk > 0);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch(logreg_forward_kernel<T>, {dim3(1), dim3(32, 32)}, stream, rows_of<T>(labels), rows_of<T>(probs), rows_of<double>(costs), topk);
  });
}

void logreg_backward(Stream stream, In labels, In probs, Out probs_grad, double coeff) {
  CHECK_SHAPE(labels, (Shape{4, {1, 1, 1, probs.shape.images()}}));
  CHECK_DTYPE(labels, probs.dtype);
  CHECK_LIKE(probs_grad, probs);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch(logreg_backward_kernel<T>, rows_grid(probs.shape.rows(), int(probs.shape.images())), stream,
           rows_of<T>(labels), rows_of<T>(probs), rows_of<T>(probs_grad), T(coeff));
  });
}

void logreg_softmax_backward(Stream stream, In labels, In probs, Out inputs_grad, double coeff) {
  CHECK_SHAPE(labels, (Shape{4, {1, 1, 1, probs.shape.images()}}));
  CHECK_DTYPE(labels, probs.dtype);
  CHECK_LIKE(inputs_grad, probs);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch(logreg_softmax_backward_kernel<T>, rows_grid(probs.shape.rows(), int(probs.shape.images())), stream,
           rows_of<T>(labels), rows_of<T>(probs), rows_of<T>(inputs_grad), T(coeff));
  });
}

}  // namespace convnet

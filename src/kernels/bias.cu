// Biases: launchers.
#include "bias.cuh"
#include "bias.h"

namespace convnet {

void bias_forward(Stream stream, In biases, Out acts) {
  const std::int64_t rows = rows_per_bias(__func__, biases.shape, acts.shape);
  CHECK_DTYPE(biases, computed(acts.dtype));
  WITH_STORED_TYPE(acts, [&]<class T>(T) {
    launch<bias_forward_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           static_cast<const Computed<T>*>(biases.ptr), rows_of<T>(acts), rows);
  });
}

void bias_backward(Stream stream, In acts_grad, Out biases_grad, Out) {
  const std::int64_t rows = rows_per_bias(__func__, biases_grad.shape, acts_grad.shape);
  CHECK_DTYPE(biases_grad, computed(acts_grad.dtype));
  unsigned rows_at_once = 1;
  while (rows_at_once < 32 && rows_at_once < rows) rows_at_once *= 2;
  WITH_STORED_TYPE(acts_grad, [&]<class T>(T) {
    launch<bias_backward_kernel<T>>({dim3(unsigned(biases_grad.shape[0])), dim3(32, rows_at_once)}, stream,
           rows_of<T>(acts_grad), rows_of<Computed<T>>(biases_grad), rows);
  });
}

std::int64_t bias_backward_workspace(Stream, In, Out) { return 0; }

}  // namespace convnet

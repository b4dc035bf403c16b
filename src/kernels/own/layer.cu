// A layer of one's own as a library: its source, which CONVNET_LAYER names, and how `call` of runtime.h enters it.
// convnet/own_kernels.py compiles this by nvcc, or by the C++ compiler over simt/.
#include "layer.cuh"
#include CONVNET_LAYER

namespace convnet {

namespace {

template <class T>
Numbers<T> numbers_of(const double* values) {
  Numbers<T> numbers;
  for (int i = 0; i < most_numbers; ++i) numbers.values[i] = T(values[i]);
  return numbers;
}

// The tensors are another module's, of which the simt runtime in this library knows nothing: to it they are a caller's.
Stream here(Stream stream) {
#ifndef __CUDACC__
  stream.handle = 0;
#endif
  return stream;
}

}  // namespace

extern "C" {

#define EXPORTED __attribute__((visibility("default")))

// tensors: inputs, acts
EXPORTED void convnet_layer_forward(Stream stream, const Out* tensors, const double* numbers) {
  const Out &inputs = tensors[0], &acts = tensors[1];
  WITH_FLOAT_TYPE(acts, [&]<class T>(T) {
    launch<forward_kernel<T>>(rows_grid(acts.shape.rows(), int(acts.shape.images())), here(stream), images_of<T>(as_in(inputs)),
           images_of<T>(acts), numbers_of<T>(numbers));
  });
}

// tensors: inputs, acts, acts_grad, inputs_grad
EXPORTED void convnet_layer_backward(Stream stream, const Out* tensors, const double* numbers) {
  const Out &inputs = tensors[0], &acts = tensors[1], &acts_grad = tensors[2], &inputs_grad = tensors[3];
  WITH_FLOAT_TYPE(inputs_grad, [&]<class T>(T) {
    launch<backward_kernel<T>>(rows_grid(inputs_grad.shape.rows(), int(inputs_grad.shape.images())), here(stream), images_of<T>(as_in(inputs)),
           images_of<T>(as_in(acts)), images_of<T>(as_in(acts_grad)), images_of<T>(inputs_grad), numbers_of<T>(numbers));
  });
}

}  // extern "C"

}  // namespace convnet

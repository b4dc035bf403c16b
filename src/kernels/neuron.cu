// Neurons: launchers.
#include "neuron.cuh"

namespace convnet {

void neuron_forward(Stream stream, In inputs, Out acts, Neuron neuron, double a, double b) {
  CHECK_LIKE(acts, inputs);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    with_neuron(neuron, [&]<class Kind>(Kind) {
      launch<neuron_forward_kernel<Kind::value, T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
             rows_of<T>(inputs), rows_of<T>(acts), Computed<T>(a), Computed<T>(b));
    });
  });
}

void neuron_backward(Stream stream, In saved, In acts_grad, Out inputs_grad, Neuron neuron, double a, double b) {
  CHECK_LIKE(acts_grad, saved);
  CHECK_LIKE(inputs_grad, saved);
  WITH_STORED_TYPE(saved, [&]<class T>(T) {
    with_neuron(neuron, [&]<class Kind>(Kind) {
      launch<neuron_backward_kernel<Kind::value, T>>(rows_grid(saved.shape.rows(), saved.shape.images()), stream,
             rows_of<T>(saved), rows_of<T>(acts_grad), rows_of<T>(inputs_grad), Computed<T>(a), Computed<T>(b));
    });
  });
}

}  // namespace convnet

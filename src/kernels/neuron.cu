// Neurons: launchers.
#include "neuron.cuh"

namespace convnet {

void neuron_forward(Stream stream, In inputs, Out acts, Neuron neuron, double a, double b) {
  CHECK_LIKE(acts, inputs);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    with_neuron(neuron, [&]<class Kind>(Kind) {
      with_width<T>([&]<class Width>(Width) {
        constexpr int width = Width::value;
        const Rows<T> y = in_runs<width>(rows_of<T>(acts));
        launch<neuron_forward_kernel<Kind::value, width, T>>(runs_grid<width>(y), stream, in_runs<width>(rows_of<T>(inputs)), y, Computed<T>(a), Computed<T>(b));
      }, acts, inputs);
    });
  });
}

void neuron_backward(Stream stream, In saved, In acts_grad, Out inputs_grad, Neuron neuron, double a, double b) {
  CHECK_LIKE(acts_grad, saved);
  CHECK_LIKE(inputs_grad, saved);
  WITH_STORED_TYPE(saved, [&]<class T>(T) {
    with_neuron(neuron, [&]<class Kind>(Kind) {
      with_width<T>([&]<class Width>(Width) {
        constexpr int width = Width::value;
        const Rows<T> x_grad = in_runs<width>(rows_of<T>(inputs_grad));
        launch<neuron_backward_kernel<Kind::value, width, T>>(runs_grid<width>(x_grad), stream, in_runs<width>(rows_of<T>(saved)),
               in_runs<width>(rows_of<T>(acts_grad)), x_grad, Computed<T>(a), Computed<T>(b));
      }, inputs_grad, saved, acts_grad);
    });
  });
}

}  // namespace convnet

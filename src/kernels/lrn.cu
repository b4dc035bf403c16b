// Cross-map response normalization: launchers.
#include "lrn.cuh"

namespace convnet {

void lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias, bool blocked) {
  checks::lrn_forward(inputs, denoms, acts, size);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      launch<lrn_forward_kernel<ThreeQuarters::value, T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
             images_of<T>(inputs), images_of<T>(denoms), images_of<T>(acts), size, T(scale), T(power), T(bias), blocked);
    });
  });
}

void lrn_backward(Stream stream, In inputs, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power, bool blocked, bool relu) {
  checks::lrn_backward(inputs, denoms, acts_grad, inputs_grad, size);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      launch<lrn_backward_kernel<ThreeQuarters::value, T>>(rows_grid(inputs.shape.rows(), inputs.shape.images()), stream,
             images_of<T>(inputs), images_of<T>(denoms), images_of<T>(acts_grad), images_of<T>(inputs_grad), size, T(scale), T(power), blocked, relu);
    });
  });
}

}  // namespace convnet

// Cross-map response normalization: launchers.
#include "lrn.cuh"

namespace convnet {

namespace {

// Calls body(Size{}) with the size of a window that slides, one of those that nets have; 0: any other, and blocks.
template <class Body>
void with_sliding_size(int size, bool blocked, Body body) {
  switch (blocked ? 0 : size) {
    case 3: return body(std::integral_constant<int, 3>{});
    case 5: return body(std::integral_constant<int, 5>{});
    case 9: return body(std::integral_constant<int, 9>{});
    default: return body(std::integral_constant<int, 0>{});
  }
}

}  // namespace

void lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias, bool blocked) {
  checks::lrn_forward(inputs, denoms, acts, size);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      with_sliding_size(size, blocked, [&]<class Size>(Size) {
        const Images<T> target = images_of<T>(acts);
        if constexpr (Size::value != 0)
          launch<lrn_sliding_forward_kernel<Size::value, ThreeQuarters::value, T>>(rows_grid(sliding_rows(target, channels_each(target)), target.images), stream,
                 images_of<T>(inputs), images_of<Computed<T>>(denoms), target, channels_each(target), Computed<T>(scale), Computed<T>(power), Computed<T>(bias));
        else
          launch<lrn_forward_kernel<ThreeQuarters::value, T>>(rows_grid(target.rows(), target.images), stream,
                 images_of<T>(inputs), images_of<Computed<T>>(denoms), target, size, Computed<T>(scale), Computed<T>(power), Computed<T>(bias), blocked);
      });
    });
  });
}

void lrn_backward(Stream stream, In inputs, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power, bool blocked, bool relu) {
  checks::lrn_backward(inputs, denoms, acts_grad, inputs_grad, size);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      with_sliding_size(size, blocked, [&]<class Size>(Size) {
        const Images<T> target = images_of<T>(inputs_grad);
        if constexpr (Size::value != 0)
          launch<lrn_sliding_backward_kernel<Size::value, ThreeQuarters::value, T>>(rows_grid(sliding_rows(target, channels_each(target)), target.images), stream,
                 images_of<T>(inputs), images_of<Computed<T>>(denoms), images_of<T>(acts_grad), target, channels_each(target), Computed<T>(scale), Computed<T>(power), relu);
        else
          launch<lrn_backward_kernel<ThreeQuarters::value, T>>(rows_grid(target.rows(), target.images), stream,
                 images_of<T>(inputs), images_of<Computed<T>>(denoms), images_of<T>(acts_grad), target, size, Computed<T>(scale), Computed<T>(power), blocked, relu);
      });
    });
  });
}

}  // namespace convnet

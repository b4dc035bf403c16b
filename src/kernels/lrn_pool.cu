// Max-pooling over normalized maps: launchers.
#include "lrn_pool.cuh"

namespace convnet {

namespace {

// Calls body(Size{}) with the size of an LRN window that slides; 0: any other. Of 9 channels, what a thread has of a row of
// pixels would be more than its registers hold.
template <class Body>
void with_sliding_size(int size, Body body) {
  if (size == 3) body(std::integral_constant<int, 3>{});
  else if (size == 5) body(std::integral_constant<int, 5>{});
  else body(std::integral_constant<int, 0>{});
}

}  // namespace

void lrn_max_pool_forward(Stream stream, In inputs, Out acts, int size, double scale, double power, double bias, int pool_size, int stride, int start) {
  const WindowGrid windows = checks::lrn_max_pool_forward(inputs, acts, size, pool_size, stride, start);
  const Patch patch = {(tile_down - pool_size) / stride + 1, (tile_across - pool_size) / stride + 1};
  const bool fits = pool_size <= tile_down;
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      with_sliding_size(fits ? size : 0, [&]<class Size>(Size) {
        const auto x = images_of<T>(inputs);
        const auto y = images_of<T>(acts);
        if constexpr (Size::value != 0) {
          const int patches = ceil_div(y.height, patch.down) * ceil_div(y.width, patch.across), channels = channels_each(x);
          const Grid grid = {dim3(unsigned(patches * ceil_div(y.channels, channels)), unsigned(ceil_div(y.images, 32))), dim3(32, tile_down)};
          launch<lrn_max_pool_sliding_forward_kernel<Size::value, ThreeQuarters::value, T>>(grid, stream, x, y, windows, patch, channels, Computed<T>(scale), Computed<T>(power), Computed<T>(bias));
        } else {
          launch<lrn_max_pool_forward_kernel<ThreeQuarters::value, T>>(rows_grid(y.rows(), y.images), stream, x, y, windows, size, Computed<T>(scale), Computed<T>(power), Computed<T>(bias));
        }
      });
    });
  });
}

void lrn_max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, double scale, double power, double bias, int pool_size,
                           int stride, int start, bool relu) {
  const WindowGrid windows = checks::lrn_max_pool_backward(inputs, acts, acts_grad, inputs_grad, size, pool_size, stride, start);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      with_sliding_size(size, [&]<class Size>(Size) {
        const auto x = images_of<T>(inputs), y = images_of<T>(acts), g = images_of<T>(acts_grad);
        const auto target = images_of<T>(inputs_grad);
        if constexpr (Size::value != 0)
          launch<lrn_max_pool_sliding_backward_kernel<Size::value, ThreeQuarters::value, T>>(rows_grid(sliding_rows(target, channels_each(target)), target.images),
                 stream, x, y, g, target, windows, channels_each(target), Computed<T>(scale), Computed<T>(power), Computed<T>(bias), relu);
        else
          launch<lrn_max_pool_backward_kernel<ThreeQuarters::value, T>>(rows_grid(target.rows(), target.images), stream, x, y, g, target, windows, size,
                 Computed<T>(scale), Computed<T>(power), Computed<T>(bias), relu);
      });
    });
  });
}

}  // namespace convnet

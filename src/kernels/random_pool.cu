// Stochastic pooling: launchers.
#include "random_pool.cuh"

namespace convnet {

void random_pool_forward(Stream stream, In inputs, In state, Out acts, int size, int stride, int start, std::uint32_t seed, std::uint32_t purpose,
                         int first_image) {
  const WindowGrid windows = checks::random_pool_forward(inputs, state, acts, size, stride, start);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<random_pool_forward_kernel<T>>(rows_grid(acts.shape.rows(), int(acts.shape.images())), stream,
           images_of<T>(inputs), rows_of<double>(state), images_of<T>(acts), windows, seed, purpose, first_image);
  });
}

void random_pool_backward(Stream stream, In inputs, In state, In acts_grad, Out inputs_grad, int size, int stride, int start, std::uint32_t seed,
                          std::uint32_t purpose, int first_image) {
  const WindowGrid windows = checks::random_pool_backward(inputs, state, acts_grad, inputs_grad, size, stride, start);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<random_pool_backward_kernel<T>>(rows_grid(inputs.shape.rows(), int(inputs.shape.images())), stream,
           images_of<T>(inputs), rows_of<double>(state), images_of<T>(acts_grad), images_of<T>(inputs_grad), windows, seed, purpose, first_image);
  });
}

void expected_pool_forward(Stream stream, In inputs, Out acts, int size, int stride, int start) {
  const WindowGrid windows = checks::expected_pool_forward(inputs, acts, size, stride, start);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<expected_pool_forward_kernel<T>>(rows_grid(acts.shape.rows(), int(acts.shape.images())), stream,
           images_of<T>(inputs), images_of<T>(acts), windows);
  });
}

void expected_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, int stride, int start) {
  const WindowGrid windows = checks::expected_pool_backward(inputs, acts, acts_grad, inputs_grad, size, stride, start);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<expected_pool_backward_kernel<T>>(rows_grid(inputs.shape.rows(), int(inputs.shape.images())), stream,
           images_of<T>(inputs), images_of<T>(acts), images_of<T>(acts_grad), images_of<T>(inputs_grad), windows);
  });
}

}  // namespace convnet

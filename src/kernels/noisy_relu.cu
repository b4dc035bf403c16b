// Relu with noise: launcher.
#include "noisy_relu.cuh"

namespace convnet {

void noisy_relu(Stream stream, In inputs, In state, Out acts, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  checks::noisy_relu(inputs, state, acts);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<noisy_relu_kernel<T>>(rows_grid(ceil_div<std::int64_t>(acts.shape.rows(), 4), int(acts.shape.images())), stream,
           rows_of<T>(inputs), rows_of<double>(state), rows_of<T>(acts), seed, purpose, first_image);
  });
}

}  // namespace convnet

// Dropout: launchers.
#include "dropout.cuh"

namespace convnet {

void dropout(Stream stream, In inputs, In state, Out acts, double keep, double scale, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  checks::dropout(inputs, state, acts, keep);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    launch<dropout_kernel<T>>(rows_grid(ceil_div<std::int64_t>(acts.shape.rows(), 4), int(acts.shape.images())), stream,
           rows_of<T>(inputs), rows_of<double>(state), rows_of<T>(acts), dropout_threshold(keep), Computed<T>(scale), seed, purpose, first_image);
  });
}

}  // namespace convnet

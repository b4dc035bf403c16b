// Dropout: launchers.
#include "dropout.cuh"
#include "ops.h"

namespace convnet {

void dropout(Stream stream, In inputs, In state, Out acts, double keep, double scale, std::uint32_t seed, std::uint32_t purpose) {
  CHECK_LIKE(acts, inputs);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  CHECK(keep >= 0 && keep <= 1);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch(dropout_kernel<T>, rows_grid(ceil_div<std::int64_t>(acts.shape.rows(), 4), int(acts.shape.images())), stream,
           rows_of<T>(inputs), rows_of<double>(state), rows_of<T>(acts), std::uint64_t(keep * 0x1p32), T(scale), seed, purpose);
  });
}

}  // namespace convnet

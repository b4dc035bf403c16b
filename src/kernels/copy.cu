// Scaled copies: launcher.
#include "copy.cuh"
#include "ops.h"

namespace convnet {

void scaled_copy(Stream stream, In inputs, Out acts, double factor) {
  CHECK_LIKE(acts, inputs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<scaled_copy_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           rows_of<T>(inputs), rows_of<T>(acts), T(factor));
  });
}

}  // namespace convnet

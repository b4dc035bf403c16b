// Scaled copies: launcher.
#include "copy.cuh"
#include "ops.h"

namespace convnet {

void scaled_copy(Stream stream, In inputs, Out acts, double factor) {
  CHECK_SHAPE(acts, inputs.shape);
  if (computed(acts.dtype) != computed(inputs.dtype)) CHECK_DTYPE(acts, inputs.dtype);
  const char* const op = __func__;
  with_stored_type(op, inputs.dtype, [&]<class T>(T) {
    with_stored_type(op, acts.dtype, [&]<class U>(U) {
      if constexpr (std::is_same_v<Computed<T>, Computed<U>>)
        launch<scaled_copy_kernel<T, U>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
               rows_of<T>(inputs), rows_of<U>(acts), Computed<T>(factor));
    });
  });
}

}  // namespace convnet

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
        with_width<std::conditional_t<(sizeof(T) < sizeof(U)), T, U>>([&]<class Width>(Width) {
          constexpr int width = Width::value;
          const Rows<U> y = in_runs<width>(rows_of<U>(acts));
          launch<scaled_copy_kernel<width, T, U>>(runs_grid<width>(y), stream, in_runs<width>(rows_of<T>(inputs)), y, Computed<T>(factor));
        }, acts, inputs);
    });
  });
}

}  // namespace convnet

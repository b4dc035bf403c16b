// Scaled copies on the host.
#include "../ops.h"
#include "loops.h"

namespace convnet {

void scaled_copy(Stream stream, In inputs, Out acts, double factor) {
  CHECK_LIKE(acts, inputs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = rows_of<T>(inputs);
    const auto out = rows_of<T>(acts);
    for_numbers(stream, out.rows, out.images, inputs.dtype, {out.pitch, in.pitch}, [&](std::int64_t r, int count) {
      store_row(out.row(r), count, out.add, [&, row = in.row(r)](int n) { return T(factor) * row[n]; });
    });
  });
}

}  // namespace convnet

// Element-wise maxima on the host.
#include "../eltmax.h"
#include "loops.h"

namespace convnet {

void eltmax_forward(Stream stream, In inputs, In others, Out acts) {
  checks::eltmax_forward(inputs, others, acts);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto a = rows_of<T>(inputs), b = rows_of<T>(others);
    const auto out = rows_of<T>(acts);
    for_row_ranges(stream, out.rows, out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        store_row(out.row(r), out.images, out.add, [x = a.row(r), y = b.row(r)](int n) { return larger(x[n], y[n]); });
    });
  });
}

void eltmax_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad) {
  checks::eltmax_backward(inputs, acts, acts_grad, inputs_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = rows_of<T>(inputs), maxima = rows_of<T>(acts), grads = rows_of<T>(acts_grad);
    const auto out = rows_of<T>(inputs_grad);
    for_row_ranges(stream, out.rows, out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        store_row(out.row(r), out.images, out.add,
                  [x = in.row(r), y = maxima.row(r), g = grads.row(r)](int n) { return x[n] == y[n] ? g[n] : T(0); });
    });
  });
}

}  // namespace convnet

// Weights on the nodes of a tree, on the host.
#include "../tree.h"
#include "loops.h"

namespace convnet {

void sum_columns(Stream stream, In inputs, In starts, In members, Out sums) {
  checks::sum_columns(inputs, starts, members, sums);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = rows_of<T>(inputs), from = rows_of<T>(starts), list = rows_of<T>(members);
    const auto out = rows_of<T>(sums);
    for_row_ranges(stream, out.rows, out.pitch + list.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        store_row(out.row(r), out.images, out.add, [&, row = in.row(r), start = from.row(0)](int i) {
          return sum_of_members(row, in.images, list.row(0), list.images, start[i], start[i + 1]);
        });
    });
  });
}

void tree_update(Stream stream, In state, In weights_grad, In counts, Out increments, Out weights, int rate_slot, double momentum, double decay,
                 int images) {
  checks::tree_update(state, weights_grad, counts, increments, weights, rate_slot, images);
  const double* const now = rows_of<double>(state).row(0);
  if (now[state_finite] != 1) return;
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) {
    const auto g = rows_of<T>(weights_grad);
    const auto v = rows_of<T>(increments), w = rows_of<T>(weights);
    const T* const count = rows_of<T>(counts).row(0);
    const T m = T(momentum), d = T(decay), rate = T(now[state_rates + rate_slot]), all = T(images);
    for_row_ranges(stream, w.rows, w.pitch, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t r = first; r < end; ++r) {
        const T* gradient = g.row(r);
        T *increment = v.row(r), *weight = w.row(r);
        for (int n = 0; n < w.images; ++n) {
          increment[n] = m * increment[n] - rate / count[n] * (gradient[n] / all + d / count[n] * weight[n]);
          weight[n] += increment[n];
        }
      }
    });
  });
}

}  // namespace convnet

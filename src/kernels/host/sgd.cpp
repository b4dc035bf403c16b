// SGD on the host, and the check that comes before it.
#include <atomic>
#include "../sgd.h"
#include "loops.h"
#include "sgd_rows.h"

namespace convnet {

// Here and not in fc.cpp, where the compiler would contract products and sums: the bits are to be those of sgd_update.
template <class T>
void sgd_rows(const SgdStep<T>& step, const T* gradient, std::int64_t gradient_pitch, const Rows<T>& increments, const Rows<T>& weights,
              std::int64_t first_row, std::int64_t rows, int first, int count) {
  const SgdStep<T> change = step;  // a copy: what could be one of the weights would be read anew for each of them
  for (std::int64_t r = first_row; r < first_row + rows; ++r, gradient += gradient_pitch) {
    T *increment = increments.row(r) + first, *weight = weights.row(r) + first;
    for (int n = 0; n < count; ++n) change(gradient[n], increment[n], weight[n]);
  }
}
template void sgd_rows(const SgdStep<float>&, const float*, std::int64_t, const Rows<float>&, const Rows<float>&, std::int64_t, std::int64_t, int, int);
template void sgd_rows(const SgdStep<double>&, const double*, std::int64_t, const Rows<double>&, const Rows<double>&, std::int64_t, std::int64_t, int, int);

void sgd_update(Stream stream, In state, In weights_grad, Out increments, Out weights, int rate_slot, double momentum, double decay, int images) {
  checks::sgd_update(state, weights_grad, increments, weights, rate_slot, images);
  const double* const now = rows_of<double>(state).row(0);
  if (now[state_finite] != 1) return;
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) {
    const auto g = rows_of<T>(weights_grad);
    const auto v = rows_of<T>(increments), w = rows_of<T>(weights);
    const SgdStep<T> step{T(now[state_rates + rate_slot]), T(momentum), T(decay), T(images)};
    for_row_ranges(stream, w.rows, w.pitch, [&](std::int64_t first, std::int64_t end) {
      sgd_rows(step, g.row(first), g.pitch, v, w, first, end - first, 0, w.images);
    });
  });
}

void sgd_update_many(Stream stream, In state, Many<In> weights_grad, Many<Out> increments, Many<Out> weights, Many<int> rate_slot, Many<double> momentum,
                     Many<double> decay, Many<int> images) {
  checks::sgd_update_many(state, weights_grad, increments, weights, rate_slot, momentum, decay, images);
  for (std::size_t i = 0; i < weights.size(); ++i)
    sgd_update(stream, state, weights_grad[i], increments[i], weights[i], rate_slot[i], momentum[i], decay[i], images[i]);
}

void adaptive_update(Stream stream, In state, In weights_grad, Out means, Out squares, Out increments, Out weights, int rate_slot, double momentum,
                     double decay, double epsilon, int images) {
  checks::adaptive_update(state, weights_grad, means, squares, increments, weights, rate_slot, momentum, epsilon, images);
  const double* const now = rows_of<double>(state).row(0);
  if (now[state_finite] != 1) return;
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) {
    const auto gradients = rows_of<T>(weights_grad);
    const auto mean = rows_of<T>(means), square = rows_of<T>(squares), v = rows_of<T>(increments), w = rows_of<T>(weights);
    const T m = T(momentum), d = T(decay), e = T(epsilon), rate = T(now[state_rates + rate_slot]), count = T(images);
    for_row_ranges(stream, w.rows, w.pitch, [=](std::int64_t first, std::int64_t end) {
      for (std::int64_t r = first; r < end; ++r) {
        const T* gradient = gradients.row(r);
        T *increment = v.row(r), *weight = w.row(r);
        for (int n = 0; n < w.images; ++n) {
          const T g = gradient[n] / count;
          increment[n] = m * increment[n] - rate * g / spread_with(g, m, e, mean.row(r)[n], square.row(r)[n]) - d * rate * weight[n];
          weight[n] += increment[n];
        }
      }
    });
  });
}

void check_finite(Stream stream, In values, Out state) {
  checks::check_finite(state);
  WITH_FLOAT_TYPE(values, [&]<class T>(T) {
    const auto x = rows_of<T>(values);
    std::atomic<bool> finite = true;
    for_row_ranges(stream, x.rows, x.pitch, [&](std::int64_t first, std::int64_t end) {
      int wrong = 0;
      for (std::int64_t r = first; r < end; ++r) {
        const T* row = x.row(r);
        for (int n = 0; n < x.images; ++n) wrong |= row[n] - row[n] != 0;  // infinity and NaN: NaN
      }
      if (wrong) finite = false;
    });
    if (!finite) rows_of<double>(state).row(0)[state_finite] = 0;
  });
}

}  // namespace convnet

// Limits on the columns of weights, on the host: 64 columns at a time, so that their sums stay in registers or nearly so.
#include "../limit.h"
#include "loops.h"

namespace convnet {

template <class T, class Limit>
static void limit_columns(Stream stream, const In& state, const Out& weights, Limit limit) {
  if (rows_of<double>(state).row(0)[state_finite] != 1) return;
  constexpr int width = 64;
  const auto w = rows_of<T>(weights);
  const std::int64_t rows = weights.shape[1], blocks = (w.images + width - 1) / width;
  for_row_ranges(stream, weights.shape[0] * blocks, rows * width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t first = task / blocks * rows, left = task % blocks * width;
      const int columns = int(std::min<std::int64_t>(width, w.images - left));
      T mean[width] = {}, sum[width] = {}, factor[width];
      if constexpr (Limit::centred) {
        for (std::int64_t r = first; r < first + rows; ++r)
          for (int n = 0; n < columns; ++n) mean[n] += w.row(r)[left + n];
        for (int n = 0; n < columns; ++n) mean[n] /= T(rows);
      }
      for (std::int64_t r = first; r < first + rows; ++r) {
        const T* row = w.row(r) + left;
        for (int n = 0; n < columns; ++n) sum[n] += (row[n] - mean[n]) * (row[n] - mean[n]);
      }
      for (int n = 0; n < columns; ++n) factor[n] = limit.factor(sum[n], rows);
      for (std::int64_t r = first; r < first + rows; ++r) {
        T* row = w.row(r) + left;
        for (int n = 0; n < columns; ++n) row[n] *= factor[n];
      }
    }
  });
}

void limit_norms(Stream stream, In state, Out weights, double limit, bool exactly) {
  checks::limit_norms(state, weights, limit);
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) { limit_columns<T>(stream, state, weights, NormLimit<T>{T(limit), exactly}); });
}

void limit_spreads(Stream stream, In state, Out weights, double least, double most) {
  checks::limit_spreads(state, weights, least, most);
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) { limit_columns<T>(stream, state, weights, SpreadLimits<T>{T(least), T(most)}); });
}

}  // namespace convnet

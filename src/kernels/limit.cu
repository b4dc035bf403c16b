// Limits on the columns of weights: launchers.
#include "limit.cuh"

namespace convnet {

template <class T, class Limit>
static void limit_columns(Stream stream, const In& state, const Out& weights, Limit limit) {
  const Grid grid{dim3(unsigned(weights.shape[0]), unsigned(ceil_div<std::int64_t>(weights.shape.images(), 32))), dim3(32, limit_lanes)};
  launch<limit_kernel<T, Limit>>(grid, stream, rows_of<double>(state), rows_of<T>(weights), weights.shape[1], limit);
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

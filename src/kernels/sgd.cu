// SGD, and the check that comes before it: launchers.
#include "sgd.cuh"
#include <algorithm>

namespace convnet {

void sgd_update(Stream stream, In state, In weights_grad, Out increments, Out weights, int rate_slot, double momentum, double decay, int images) {
  checks::sgd_update(state, weights_grad, increments, weights, rate_slot, images);
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) {
    with_width<T>([&]<class Width>(Width) {
      constexpr int width = Width::value;
      const Rows<T> w = in_runs<width>(rows_of<T>(weights));
      launch<sgd_update_kernel<width, T>>(runs_grid<width>(w), stream, rows_of<double>(state), in_runs<width>(rows_of<T>(weights_grad)),
             in_runs<width>(rows_of<T>(increments)), w, rate_slot, T(momentum), T(decay), T(images));
    }, weights, weights_grad, increments);
  });
}

void sgd_update_many(Stream stream, In state, Many<In> weights_grad, Many<Out> increments, Many<Out> weights, Many<int> rate_slot, Many<double> momentum,
                     Many<double> decay, Many<int> images) {
  checks::sgd_update_many(state, weights_grad, increments, weights, rate_slot, momentum, decay, images);
  WITH_FLOAT_TYPE(weights[0], [&]<class T>(T) {
    SgdTensors<T> all{};
    std::int64_t most = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      all.tensors[i] = {rows_of<T>(weights_grad[i]), rows_of<T>(increments[i]), rows_of<T>(weights[i]), rate_slot[i], T(momentum[i]), T(decay[i]), T(images[i])};
      most = std::max(most, weights[i].shape.size());
    }
    launch<sgd_update_many_kernel<T>>({dim3(unsigned(ceil_div<std::int64_t>(most, update_threads)), unsigned(weights.size())), dim3(update_threads)}, stream,
           rows_of<double>(state), all);
  });
}

void adaptive_update(Stream stream, In state, In weights_grad, Out means, Out squares, Out increments, Out weights, int rate_slot, double momentum,
                     double decay, double epsilon, int images) {
  checks::adaptive_update(state, weights_grad, means, squares, increments, weights, rate_slot, momentum, epsilon, images);
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) {
    launch<adaptive_update_kernel<T>>(rows_grid(weights.shape.rows(), int(weights.shape.images())), stream, rows_of<double>(state),
           rows_of<T>(weights_grad), rows_of<T>(means), rows_of<T>(squares), rows_of<T>(increments), rows_of<T>(weights), rate_slot, T(momentum),
           T(decay), T(epsilon), T(images));
  });
}

void check_finite(Stream stream, In values, Out state) {
  checks::check_finite(state);
  WITH_FLOAT_TYPE(values, [&]<class T>(T) {
    launch<check_finite_kernel<T>>(rows_grid(values.shape.rows(), int(values.shape.images())), stream, rows_of<T>(values), rows_of<double>(state));
  });
}

}  // namespace convnet

// Weights on the nodes of a tree: launchers.
#include "tree.cuh"

namespace convnet {

void sum_columns(Stream stream, In inputs, In starts, In members, Out sums) {
  checks::sum_columns(inputs, starts, members, sums);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<sum_columns_kernel<T>>(rows_grid(sums.shape.rows(), int(sums.shape.images())), stream,
           rows_of<T>(inputs), rows_of<T>(starts), rows_of<T>(members), rows_of<T>(sums));
  });
}

void tree_update(Stream stream, In state, In weights_grad, In counts, Out increments, Out weights, int rate_slot, double momentum, double decay,
                 int images) {
  checks::tree_update(state, weights_grad, counts, increments, weights, rate_slot, images);
  WITH_FLOAT_TYPE(weights, [&]<class T>(T) {
    launch<tree_update_kernel<T>>(rows_grid(weights.shape.rows(), int(weights.shape.images())), stream, rows_of<double>(state),
           rows_of<T>(weights_grad), rows_of<T>(counts), rows_of<T>(increments), rows_of<T>(weights), rate_slot, T(momentum), T(decay), T(images));
  });
}

}  // namespace convnet

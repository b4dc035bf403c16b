// Biases: launchers.
#include <algorithm>
#include "bias.cuh"
#include "bias.h"

namespace convnet {

namespace {

// The blocks of bias_backward: pieces and rows that their threads are for, and the parts of a bias, so many that a large GPU is full where
// a thread still has some rows: of the 96 filters of AlexNet's conv1 a block each would leave multiprocessors without one.
struct BiasBlocks {
  unsigned pieces, rows, parts;
};
BiasBlocks bias_blocks(const In& acts_grad, const Out& biases_grad) {
  constexpr std::int64_t blocks_wanted = 1024;
  const std::int64_t biases = std::max<std::int64_t>(1, biases_grad.shape[0]), rows = acts_grad.shape.rows() / biases;
  const std::int64_t pieces = ceil_div<std::int64_t>(acts_grad.shape.images(), acts_grad.dtype == Dtype::bfloat16 ? piece<bfloat16> : piece<float>);
  BiasBlocks blocks = {1, 1, 1};
  while (blocks.pieces < 32 && blocks.pieces < pieces) blocks.pieces *= 2;
  while (blocks.pieces * blocks.rows < bias_threads && blocks.rows < rows) blocks.rows *= 2;
  blocks.parts = unsigned(std::clamp<std::int64_t>(rows / (bias_ahead * blocks.rows), 1, std::max<std::int64_t>(1, blocks_wanted / biases)));
  return blocks;
}

}  // namespace

void bias_forward(Stream stream, In biases, Out acts) {
  const std::int64_t rows = rows_per_bias(__func__, biases.shape, acts.shape);
  CHECK_DTYPE(biases, computed(acts.dtype));
  WITH_STORED_TYPE(acts, [&]<class T>(T) {
    launch<bias_forward_kernel<T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
           static_cast<const Computed<T>*>(biases.ptr), rows_of<T>(acts), rows);
  });
}

void bias_backward(Stream stream, In acts_grad, Out biases_grad, Out workspace) {
  const std::int64_t rows = rows_per_bias(__func__, biases_grad.shape, acts_grad.shape);
  CHECK_DTYPE(biases_grad, computed(acts_grad.dtype));
  CHECK_WORKSPACE(workspace, bias_backward_workspace(stream, acts_grad, biases_grad));
  const BiasBlocks blocks = bias_blocks(acts_grad, biases_grad);
  const Grid grid = {dim3(unsigned(biases_grad.shape[0]), blocks.parts), dim3(blocks.pieces, blocks.rows)};
  WITH_STORED_TYPE(acts_grad, [&]<class T>(T) {
    using Sum = Computed<T>;
    const Rows<Sum> target = rows_of<Sum>(biases_grad);
    const Rows<Sum> sums = blocks.parts == 1 ? target : Rows<Sum>{static_cast<Sum*>(workspace.ptr), blocks.parts, target.images, target.images, false};
    const bool whole_pieces = sizeof(T) < 8 && is_vectorizable(acts_grad);  // a row of float64 may end in half of one
    if (whole_pieces) launch<bias_backward_kernel<T, true>>(grid, stream, rows_of<T>(acts_grad), sums, rows);
    else launch<bias_backward_kernel<T, false>>(grid, stream, rows_of<T>(acts_grad), sums, rows);
    if (blocks.parts > 1)
      launch<sum_parts_kernel<Sum>>(rows_grid(1, target.images), stream, Rows<const Sum>{sums.data, sums.rows, sums.images, sums.pitch, false}, target,
             int(blocks.parts), 1, Epilogue<Sum>{});
  });
}

std::int64_t bias_backward_workspace(Stream, In acts_grad, Out biases_grad) {
  rows_per_bias("bias_backward", biases_grad.shape, acts_grad.shape);
  const unsigned parts = bias_blocks(acts_grad, biases_grad).parts;
  return parts > 1 ? parts * biases_grad.shape[0] * size_of(biases_grad.dtype) : 0;
}

}  // namespace convnet

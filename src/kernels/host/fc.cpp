// Fully connected layers on the host: products of matrices, in blocks that the caches hold.
//   columns (reductions, lanes) are packed once, in the order (lane block, reduction, lanes);
//   the other matrix is read once, a block of rows and reductions at a time, by the task that needs
//   it.
#include "../ops.h"
#include "fc_few.h"
#include "fc_problem.h"
#include "parallel.h"
#include "sgd_rows.h"
#include "tiles.h"

namespace convnet {

namespace {

// Rows of a task, in tiles: 8 of them.
template <class T>
constexpr int task_rows = 8 * max_rows<T>(2);
// Products between two touches of a tile; a multiple of row_length.
constexpr int most_products = 256;

// Images are the lanes, forward and backward_data:
//   result[row,n] = sum over k of matrix(row, k) * source[k,n]
// with the weights as matrix: rows are their columns forward, their rows backward.
template <class T>
struct ImageLanes {
  std::int64_t rows, products;
  int images;
  Order order;
  std::vector<LaneBlock> blocks;
  int width;  // of all lane blocks

  ImageLanes(const FcProblem& p, Order order)
      : rows(order == Order::columns ? p.outputs : p.inputs),
        products(order == Order::columns ? p.inputs : p.outputs),
        images(p.images),
        order(order),
        blocks(lane_blocks<T>(p.images, 2)),
        width(whole_vectors<T>(p.images)) {}

  struct Workspace {
    T *columns, *matrix, *partial;  // matrix and partial sums of a thread
  };
  static constexpr std::int64_t matrix_size() {
    return std::int64_t(task_rows<T>) * (most_products / row_length) * row_pitch;
  }
  std::int64_t partial_size() const {
    return products > most_products ? std::int64_t(task_rows<T>) * width : 0;
  }
  Workspace divide(WorkspaceParts& parts, int threads) const {
    return {parts.take<T>(products * width), parts.take<T>(2 * matrix_size() * threads),
            parts.take<T>(partial_size() * threads)};
  }

  void run(Stream stream, In source_tensor, In weights_tensor, Out result, void* memory,
           const Epilogue<T>& epilogue = {}) const {
    WorkspaceParts parts(memory);
    const Workspace w = divide(parts, thread_count(stream));
    const auto source = rows_of<T>(source_tensor), weights = rows_of<T>(weights_tensor);
    const auto target = rows_of<T>(result);
    constexpr int rows_packed = 64;
    parallel_for(stream, ceil_div(products, rows_packed), [&](std::int64_t task, int) {
      for (std::int64_t k = task * rows_packed; k < std::min(products, (task + 1) * rows_packed);
           ++k)
        for (const LaneBlock& block : blocks)
          copy_lanes(w.columns + products * block.first + k * block.vectors * simd::lanes<T>,
                     source.row(k) + block.first, block.count, block.vectors);
    });
    std::vector<std::int64_t> row_offsets(task_rows<T>);
    for (int i = 0; i < task_rows<T>; ++i) row_offsets[i] = i * target.pitch;

    parallel_for(stream, ceil_div(rows, task_rows<T>), [&](std::int64_t task, int thread) {
      const std::int64_t first_row = task * task_rows<T>;
      const auto tiles =
          equal_blocks(int(std::min<std::int64_t>(task_rows<T>, rows - first_row)), max_rows<T>(2));
      const Rows<const T> mine{
          order == Order::columns ? weights.row(0) + first_row : weights.row(first_row), 0, 0,
          weights.pitch, false};
      T *matrix = w.matrix + 2 * matrix_size() * thread, *next_matrix = matrix + matrix_size();
      T* partial = w.partial + partial_size() * thread;
      const int slices = int(blocks.size() * tiles.size());
      for (int slice = 0; slice < slices; ++slice)
        pack_slice(mine, matrix, rows - first_row, tiles, 0, slice, slices);
      for (std::int64_t k = 0; k < products; k += most_products, std::swap(matrix, next_matrix)) {
        const std::int64_t next = k + most_products;
        int slice = 0;
        for (const LaneBlock& block : blocks)
          for (const Block& tile : tiles) {
            if (next < products)
              pack_slice(mine, next_matrix, rows - first_row, tiles, next, slice++, slices);
            Segment<T> segments[runs_of_a_tile];
            const int runs = tile_segments(
                segments, w.columns + products * block.first + k * block.vectors * simd::lanes<T>,
                matrix, tile, block.vectors * simd::lanes<T>, products_from(k));
            prefetch_slice(segments, runs, mine, tiles,
                           slice < slices ? next : next + most_products, slice % slices, slices);
            multiply_tile(segments, runs, partial, target, first_row, tile, block, k,
                          row_offsets.data(), epilogue.from(first_row + tile.first));
          }
      }
    });
  }

  int products_from(std::int64_t k) const {
    return int(std::min<std::int64_t>(most_products, products - k));
  }

  // The weights come from memory, in pieces too short for the hardware to foresee, and at distances
  // that fill few sets of the caches: so they are fetched and packed a slice at a time, between the
  // tiles before. weights: from the task's first row.
  void pack_slice(const Rows<const T>& weights, T* target, std::int64_t rows_left,
                  const std::vector<Block>& tiles, std::int64_t first, int slice,
                  int slices) const {
    const int count = products_from(first),
              task_row_count = tiles.back().first + tiles.back().count;
    if (order == Order::columns) {
      // (products, rows) -> (tiles, products, rows of the tile)
      const int k0 = count * slice / slices, k1 = count * (slice + 1) / slices;
      for (const Block& tile : tiles) {
        const T* source = weights.row(first + k0) + tile.first;
        T* to = target + std::int64_t(tile.first) * count + std::int64_t(k0) * tile.count;
        // Whole vectors, where what they write too much is written again, and what they read is
        // there.
        const int whole = whole_vectors<T>(tile.count);
        int k = k0;
        if (tile.first + whole <= rows_left)
          for (; k < std::min(k1, count - 1); ++k, to += tile.count, source += weights.pitch)
            for (int i = 0; i < whole; i += simd::lanes<T>)
              simd::store(to + i, simd::load(source + i));
        for (; k < k1; ++k, to += tile.count, source += weights.pitch)
          for (int i = 0; i < tile.count; ++i) to[i] = source[i];
      }
    } else {
      // (rows, products) -> (tiles, runs of row_length products, rows of the tile, row_pitch)
      const int row0 = task_row_count * slice / slices,
                row1 = task_row_count * (slice + 1) / slices;
      for (const Block& tile : tiles)
        for (int row = std::max(row0, tile.first); row < std::min(row1, tile.first + tile.count);
             ++row) {
          const T* source = weights.row(row) + first;
          T* to = target +
                  (std::int64_t(tile.first) * (most_products / row_length) + row - tile.first) *
                      row_pitch;
          for (int k = 0; k < count; k += row_length, to += tile.count * row_pitch)
            copy_lanes(to, source + k, std::min(row_length, count - k),
                       row_length / simd::lanes<T>);
        }
    }
  }

  // What pack_slice reads, beside the products of a tile: all at once would keep the tile's own
  // operands waiting.
  void prefetch_slice(Segment<T>* segments, int runs, const Rows<const T>& weights,
                      const std::vector<Block>& tiles, std::int64_t first, int slice,
                      int slices) const {
    if (first >= products) return;
    constexpr int piece = 512 / int(sizeof(T));
    const int count = products_from(first),
              task_row_count = tiles.back().first + tiles.back().count;
    const bool across = order == Order::columns;
    const int pieces_of_row = across ? 1 : int(ceil_div(count, piece)),
              pieces = (across ? count : task_row_count) * pieces_of_row;
    for (int i = pieces * slice / slices, run = 0; i < pieces * (slice + 1) / slices && run < runs;
         ++i, ++run) {
      segments[run].prefetch =
          across ? weights.row(first + i)
                 : weights.row(i / pieces_of_row) + first + i % pieces_of_row * piece;
      segments[run].prefetch_step = piece / 4;
    }
  }

  static constexpr int runs_of_a_tile = most_products / row_length;

  // The products of a tile, in runs of row_length.
  int tile_segments(Segment<T>* segments, const T* columns, const T* matrix, Block tile,
                    int lane_count, int count) const {
    const bool across = order == Order::columns;
    const T* a = matrix + std::int64_t(tile.first) * (across ? count : runs_of_a_tile * row_pitch);
    int runs = 0;
    for (int j = 0; j < count; j += row_length, a += tile.count * (across ? row_length : row_pitch))
      segments[runs++] = {a, columns + std::int64_t(j) * lane_count,
                          std::min(row_length, count - j), nullptr, 0};
    return runs;
  }

  void multiply_tile(const Segment<T>* segments, int runs, T* partial, const Rows<T>& target,
                     std::int64_t first_row, Block tile, LaneBlock block, std::int64_t k,
                     const std::int64_t* row_offsets, const Epilogue<T>& epilogue) const {
    const int lane_count = block.vectors * simd::lanes<T>;
    const auto kernel = order == Order::columns ? columns_kernel<T>(tile.count, block.vectors)
                                                : rows_kernel<T>(tile.count, block.vectors);
    T* sums = partial + std::int64_t(tile.first) * width + tile.count * block.first;
    const T* before = k ? sums : nullptr;
    T* row = target.row(first_row + tile.first) + block.first;
    if (k + most_products < products) {
      kernel(segments, runs, {sums, nullptr, before, false, false});
    } else if (block.count == lane_count) {
      kernel(segments, runs, {row, row_offsets, before, target.add, false, epilogue});
    } else {
      TileBuffer<T> buffer;
      kernel(segments, runs, {buffer.data, nullptr, before, false, false});
      for (int i = 0; i < tile.count; ++i)
        store_lanes(row + row_offsets[i], buffer.data + i * lane_count, block.count, target.add,
                    epilogue, i);
    }
  }
};

// Outputs are the lanes: weights_grad[i,o] = sum over n of inputs[i,n] * acts_grad[o,n].
template <class T>
struct OutputLanes {
  FcProblem p;
  std::vector<LaneBlock> blocks;
  int runs, room;  // of row_length images; images with room for whole vectors

  explicit OutputLanes(const FcProblem& problem)
      : p(problem),
        blocks(lane_blocks<T>(int(p.outputs), 2)),
        runs(int(ceil_div(p.images, row_length))),
        room(whole_vectors<T>(p.images)) {}

  struct Workspace {
    T *columns, *matrix;
  };
  std::int64_t matrix_size() const { return std::int64_t(task_rows<T>) * runs * row_pitch; }
  Workspace divide(WorkspaceParts& parts, int threads) const {
    return {parts.take<T>(whole_vectors<T>(int(p.outputs)) * std::int64_t(room)),
            parts.take<T>(matrix_size() * threads)};
  }

  // Writes weights_grad or, with `update`, changes the weights by it.
  void run(Stream stream, In inputs_tensor, In acts_grad_tensor, Out weights_grad, void* memory,
           const Update<T>* update = nullptr) const {
    WorkspaceParts parts(memory);
    const Workspace w = divide(parts, thread_count(stream));
    const auto inputs = rows_of<T>(inputs_tensor), acts_grad = rows_of<T>(acts_grad_tensor);
    const auto target = rows_of<T>(weights_grad);
    parallel_for(stream, std::int64_t(blocks.size()), [&](std::int64_t task, int) {
      const LaneBlock& block = blocks[task];
      pack_transposed(w.columns + std::int64_t(block.first) * room, block.vectors * simd::lanes<T>,
                      block.count, p.images, 128,
                      [&](int i) { return acts_grad.row(block.first + i); });
    });
    std::vector<std::int64_t> row_offsets(max_rows<T>(2));
    for (int i = 0; i < max_rows<T>(2); ++i) row_offsets[i] = i * target.pitch;
    const bool streams = should_stream<T>(weights_grad);

    parallel_for(stream, ceil_div(p.inputs, task_rows<T>), [&](std::int64_t task, int thread) {
      const std::int64_t first_row = task * task_rows<T>;
      const auto tiles = equal_blocks(
          int(std::min<std::int64_t>(task_rows<T>, p.inputs - first_row)), max_rows<T>(2));
      T* matrix = w.matrix + matrix_size() * thread;
      for (const Block& tile :
           tiles)  // (rows, images) -> (tiles, runs of images, rows of the tile, row_pitch)
        for (int i = 0; i < tile.count; ++i) {
          const T* source = inputs.row(first_row + tile.first + i);
          T* to = matrix + std::int64_t(tile.first) * runs * row_pitch + i * row_pitch;
          for (int n = 0; n < p.images; n += row_length, to += tile.count * row_pitch)
            copy_lanes(to, source + n, std::min(row_length, p.images - n),
                       row_length / simd::lanes<T>);
        }
      std::vector<Segment<T>> segments(runs);
      for (const LaneBlock& block : blocks)
        for (const Block& tile : tiles) {
          const int lane_count = block.vectors * simd::lanes<T>;
          for (int j = 0; j < runs; ++j)
            segments[j] = {
                matrix +
                    (std::int64_t(tile.first) * runs + std::int64_t(j) * tile.count) * row_pitch,
                w.columns + std::int64_t(block.first) * room +
                    std::int64_t(j) * row_length * lane_count,
                std::min(row_length, p.images - j * row_length), nullptr, 0};
          const auto kernel = rows_kernel<T>(tile.count, block.vectors);
          T* row = target.row(first_row + tile.first) + block.first;
          if (update) {
            TileBuffer<T> buffer;
            update->prefetch(first_row + tile.first, tile.count, block.first, block.count);
            kernel(segments.data(), runs, {buffer.data, nullptr, nullptr, false, false});
            sgd_rows(update->step, buffer.data, lane_count, update->increments, update->weights,
                     first_row + tile.first, tile.count, block.first, block.count);
          } else if (block.count == lane_count) {
            kernel(segments.data(), runs, {row, row_offsets.data(), nullptr, target.add, streams});
          } else {
            TileBuffer<T> buffer;
            kernel(segments.data(), runs, {buffer.data, nullptr, nullptr, false, false});
            for (int i = 0; i < tile.count; ++i)
              store_lanes(row + row_offsets[i], buffer.data + i * lane_count, block.count,
                          target.add);
          }
        }
      if (streams) simd::stream_fence();
    });
  }
};

// Whether images leave lanes of a vector idle: then outputs are the lanes.
template <class T>
bool few_images(const FcProblem& problem) {
  return problem.images < simd::lanes<T>;
}

// Forward, images as lanes need the weights packed and transposed, which only many images are worth.
template <class T>
bool few_images_forward(const FcProblem& problem) {
  return few_images<T>(problem) ||
         (problem.images <= 4 * simd::lanes<T> && problem.outputs >= 4 * simd::lanes<T>);
}

// body(plan), with the plan that computes this problem.
template <class T, class Body>
void with_forward(const FcProblem& problem, Body body) {
  if (few_images_forward<T>(problem))
    body(FewForward<T>(problem));
  else
    body(ImageLanes<T>(problem, Order::columns));
}

template <class T, class Body>
void with_backward_data(const FcProblem& problem, Body body) {
  if (few_images<T>(problem))
    body(FewBackwardData<T>(problem));
  else
    body(ImageLanes<T>(problem, Order::rows));
}

template <class T, class Body>
void with_backward_weights(const FcProblem& problem, Body body) {
  if (few_images<T>(problem))
    body(FewBackwardWeights<T>(problem));
  else
    body(OutputLanes<T>(problem));
}

}  // namespace

std::int64_t fc_forward_workspace(Stream stream, In inputs, In weights, Out acts,
                                  Precision) {
  const FcProblem problem = fc_problem(__func__, inputs, weights, acts);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    with_forward<T>(problem, [&](const auto& plan) { bytes = workspace_bytes(plan, stream); });
  });
  return bytes;
}

namespace {

void forward(const char* op, Stream stream, In inputs, In weights, Out acts, Out workspace,
             In biases = {}, bool relu = false) {
  const FcProblem problem = fc_problem(op, inputs, weights, acts);
  check_workspace(op, workspace, fc_forward_workspace(stream, inputs, weights, acts, {}));
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const Epilogue<T> epilogue = epilogue_of<T>(biases, relu);
    with_forward<T>(problem, [&](const auto& plan) { plan.run(stream, inputs, weights, acts, workspace.ptr, epilogue); });
  });
}

}  // namespace

void fc_forward(Stream stream, In inputs, In weights, Out acts, Out workspace, Precision) {
  forward(__func__, stream, inputs, weights, acts, workspace);
}

std::int64_t fc_bias_forward_workspace(Stream stream, In inputs, In weights, In, Out acts,
                                       Precision, bool) {
  return fc_forward_workspace(stream, inputs, weights, acts, {});
}

void fc_bias_forward(Stream stream, In inputs, In weights, In biases, Out acts, Out workspace,
                     Precision, bool relu) {
  check_biases(__func__, biases, weights.shape[1], inputs.dtype);
  forward(__func__, stream, inputs, weights, acts, workspace, biases, relu);
}

std::int64_t fc_backward_data_workspace(Stream stream, In acts_grad, In weights, Out inputs_grad,
                                        Precision) {
  const FcProblem problem = fc_problem(__func__, inputs_grad, weights, acts_grad);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(inputs_grad, [&]<class T>(T) {
    with_backward_data<T>(problem, [&](const auto& plan) { bytes = workspace_bytes(plan, stream); });
  });
  return bytes;
}

namespace {

void backward_data(const char* op, Stream stream, In acts_grad, In weights, Out inputs_grad,
                   Out workspace, In inputs = {}) {
  const FcProblem problem = fc_problem(op, inputs_grad, weights, acts_grad);
  check_workspace(op, workspace,
                  fc_backward_data_workspace(stream, acts_grad, weights, inputs_grad, {}));
  WITH_FLOAT_TYPE(inputs_grad, [&]<class T>(T) {
    const Epilogue<T> epilogue = relu_epilogue<T>(inputs, inputs_grad);
    with_backward_data<T>(problem, [&](const auto& plan) { plan.run(stream, acts_grad, weights, inputs_grad, workspace.ptr, epilogue); });
  });
}

}  // namespace

void fc_backward_data(Stream stream, In acts_grad, In weights, Out inputs_grad, Out workspace,
                      Precision) {
  backward_data(__func__, stream, acts_grad, weights, inputs_grad, workspace);
}

std::int64_t fc_relu_backward_data_workspace(Stream stream, In acts_grad, In weights, In,
                                             Out inputs_grad, Precision) {
  return fc_backward_data_workspace(stream, acts_grad, weights, inputs_grad, {});
}

void fc_relu_backward_data(Stream stream, In acts_grad, In weights, In inputs, Out inputs_grad,
                           Out workspace, Precision) {
  CHECK_RELU(inputs, inputs_grad);
  backward_data(__func__, stream, acts_grad, weights, inputs_grad, workspace, inputs);
}

std::int64_t fc_backward_weights_workspace(Stream stream, In inputs, In acts_grad,
                                           Out weights_grad, Precision) {
  const FcProblem problem = fc_problem(__func__, inputs, weights_grad, acts_grad);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    with_backward_weights<T>(problem, [&](const auto& plan) { bytes = workspace_bytes(plan, stream); });
  });
  return bytes;
}

void fc_backward_weights(Stream stream, In inputs, In acts_grad, Out weights_grad, Out workspace,
                         Precision) {
  const FcProblem problem = fc_problem(__func__, inputs, weights_grad, acts_grad);
  check_workspace(__func__, workspace,
                  fc_backward_weights_workspace(stream, inputs, acts_grad, weights_grad, {}));
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    with_backward_weights<T>(problem, [&](const auto& plan) { plan.run(stream, inputs, acts_grad, weights_grad, workspace.ptr); });
  });
}

std::int64_t fc_backward_update_workspace(Stream stream, In inputs, In acts_grad, In, Out,
                                          Out weights, Precision, int, double, double, int) {
  return fc_backward_weights_workspace(stream, inputs, acts_grad, weights, {});
}

void fc_backward_update(Stream stream, In inputs, In acts_grad, In state, Out increments,
                        Out weights, Out workspace, Precision, int rate_slot, double momentum,
                        double decay, int images) {
  const FcProblem problem = fc_problem(__func__, inputs, weights, acts_grad);
  checks::sgd_update(state, as_in(weights), increments, weights, rate_slot, images);
  check_workspace(__func__, workspace,
                  fc_backward_weights_workspace(stream, inputs, acts_grad, weights, {}));
  const double* const now = rows_of<double>(state).row(0);
  if (now[state_finite] != 1) return;
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const Update<T> update{{T(now[state_rates + rate_slot]), T(momentum), T(decay), T(images)},
                           rows_of<T>(increments), rows_of<T>(weights)};
    with_backward_weights<T>(problem, [&](const auto& plan) { plan.run(stream, inputs, acts_grad, weights, workspace.ptr, &update); });
  });
}

}  // namespace convnet

// Fully connected layers of few images: outputs are the lanes, and the weights are read where they lie, once, at the speed
// of the memory.
#pragma once
#include "few_images.h"
#include "fc_problem.h"
#include "sgd_rows.h"

namespace convnet {

// Where the numbers of a tensor end. Before that, whole vectors are read at the end of a row, though the next one is in them:
// number by number, a layer of 10 outputs took three times as long.
template <class T>
const T* end_of(const Rows<const T>& tensor) {
  return tensor.row(tensor.rows - 1) + tensor.images;
}

// acts[o,n] = sum over i of weights[i,o] * inputs[i,n]: rows of a tile are images. A task is some inputs for some outputs;
// it goes along a few rows of weights at once, so that every row is read from its beginning to its end.
template <class T>
struct FewForward {
  static constexpr int rows_at_once = 16, least_inputs = 128;

  FcProblem p;
  std::vector<LaneBlock> blocks;
  std::vector<Block> ranges;      // of blocks, those of a task
  std::vector<Block> parts;       // of the inputs: each has sums of its own, which are added in their order
  std::vector<Block> tiles;       // of the images

  explicit FewForward(const FcProblem& problem) : p(problem) {
    blocks = lane_blocks<T>(int(p.outputs), widest_tile<T>(p.images, int(p.outputs)));
    // Long pieces of the rows, but the sums of all images stay in the L1 cache.
    const int task_outputs = std::max(4096, (16 << 10) / p.images) / int(sizeof(T));
    ranges = equal_blocks(int(blocks.size()), std::max(1, task_outputs / (blocks.front().vectors * simd::lanes<T>)));
    const int wanted = int(ceil_div(32, std::int64_t(ranges.size())));
    parts = equal_blocks(int(p.inputs), std::max(least_inputs, int(ceil_div(p.inputs, wanted))));
    tiles = equal_blocks(p.images, max_rows<T>(blocks.front().vectors));
  }

  struct Workspace {
    T *sums, *edge;  // edge: the weights of the last lanes, of a thread
    std::int64_t part_size, edge_size;
  };
  Workspace divide(WorkspaceParts& memory, int threads) const {
    Workspace w;
    w.part_size = std::int64_t(whole_vectors<T>(int(p.outputs))) * p.images;
    w.edge_size = rows_at_once * blocks.front().vectors * simd::lanes<T>;
    w.sums = memory.take<T>(w.part_size * parts.size());
    w.edge = memory.take<T>(w.edge_size * threads);
    return w;
  }

  void run(Stream stream, In inputs_tensor, In weights_tensor, Out acts_tensor, void* memory, const Epilogue<T>& epilogue) const {
    WorkspaceParts workspace(memory);
    const Workspace w = divide(workspace, thread_count(stream));
    const auto inputs = rows_of<T>(inputs_tensor), weights = rows_of<T>(weights_tensor);
    const auto acts = rows_of<T>(acts_tensor);
    std::ptrdiff_t taps[rows_at_once];
    for (int k = 0; k < rows_at_once; ++k) taps[k] = k * inputs.pitch;
    parallel_for(stream, std::int64_t(parts.size()) * ranges.size(), [&](std::int64_t task, int thread) {
      const Block range = ranges[task % ranges.size()], part = parts[task / ranges.size()];
      T *sums = w.sums + w.part_size * (task / ranges.size()), *edge = w.edge + w.edge_size * thread;
      for (int k = part.first; k < part.first + part.count; k += rows_at_once) {
        const int count = std::min(rows_at_once, part.first + part.count - k);
        for (int i = range.first; i < range.first + range.count; ++i) {
          const LaneBlock& block = blocks[i];
          const int width = block.vectors * simd::lanes<T>;
          const T* b = weights.row(k) + block.first;
          std::int64_t step = weights.pitch;
          if (block.count < width && b + (count - 1) * step + width > end_of(weights)) {
            for (int row = 0; row < count; ++row) copy_lanes(edge + row * width, b + row * step, block.count, block.vectors);
            b = edge;
            step = width;
          }
          for (const Block& tile : tiles)
            few_kernel<T>(tile.count, block.vectors)({inputs.row(k) + tile.first, taps, b, step, count},
                                                     sums + std::int64_t(block.first) * p.images + tile.first * width, k > part.first);
        }
      }
    });
    parallel_for(stream, std::int64_t(ranges.size()), [&](std::int64_t task, int) {
      for (int i = ranges[task].first; i < ranges[task].first + ranges[task].count; ++i) {
        const LaneBlock& block = blocks[i];
        const int width = block.vectors * simd::lanes<T>;
        T* sums = w.sums + std::int64_t(block.first) * p.images;
        for (int part = 1; part < int(parts.size()); ++part)
          for (int k = 0; k < width * p.images; ++k) sums[k] += sums[part * w.part_size + k];
        for (int o = 0; o < block.count; ++o)
          for (int n = 0; n < p.images; ++n)
            store_lanes(acts.row(block.first + o) + n, sums + n * width + o, 1, acts.add, epilogue, block.first + o);
      }
    });
  }
};

// (rows, images) -> (images, rows), with zeros behind.
template <class T>
void transpose_rows(Stream stream, const Rows<const T>& source, T* target, std::int64_t pitch) {
  constexpr std::int64_t task_rows = 1024;
  parallel_for(stream, ceil_div(pitch, task_rows), [&](std::int64_t task, int) {
    for (std::int64_t row = task * task_rows; row < std::min(pitch, (task + 1) * task_rows); ++row)
      for (int n = 0; n < source.images; ++n) target[n * pitch + row] = row < source.rows ? source.row(row)[n] : T(0);
  });
}

// One half of a vector added to the other, until one lane is left.
template <class T>
ALWAYS_INLINE T sum_of_lanes(simd::Vector<T> value) {
  using namespace simd;
#pragma GCC unroll 4
  for (int half = lanes<T> / 2; half > 0; half /= 2) {
    typename VectorOf<T>::index other;
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) other[i] = i ^ half;
    value += __builtin_shuffle(value, other);
  }
  return value[0];
}

// sums[row * images + n] = sum over o of weights[row,o] * acts_grad[n,o], for `rows` rows and no more than tile_rows.
template <class T>
constexpr int tile_rows(int images) {
  return std::min(8, (simd::registers - 2 - images) / (images + 1));
}
constexpr int most_tile_images = simd::registers == 32 ? 8 : 4;

template <class T>
using Dots = void (*)(const Rows<const T>& weights, std::int64_t first, int rows, const T* acts_grad, std::int64_t pitch, T* sums);

template <class T, int images>
[[gnu::noinline]] void dots(const Rows<const T>& weights, std::int64_t first, int rows, const T* acts_grad, std::int64_t pitch, T* sums) {
  using namespace simd;
  constexpr int most = tile_rows<T>(images);
  Vector<T> tile[most][images];
  const T* row[most];
#pragma GCC unroll 8
  for (int i = 0; i < most; ++i) {
    row[i] = weights.row(first + std::min(i, rows - 1));  // the last one again, where there are no more
#pragma GCC unroll 8
    for (int n = 0; n < images; ++n) tile[i][n] = Vector<T>{};
  }
  const auto step = [&](std::int64_t o, auto load_weights) {
    Vector<T> acts[images];
#pragma GCC unroll 8
    for (int n = 0; n < images; ++n) acts[n] = load(acts_grad + n * pitch + o);
#pragma GCC unroll 8
    for (int i = 0; i < most; ++i) {
      const Vector<T> value = load_weights(row[i] + o);
#pragma GCC unroll 8
      for (int n = 0; n < images; ++n) tile[i][n] += value * acts[n];
    }
  };
  const std::int64_t outputs = weights.images, whole = outputs / lanes<T> * lanes<T>;
  const int left = int(outputs - whole);
  for (std::int64_t o = 0; o < whole; o += lanes<T>) step(o, [](const T* from) { return load(from); });
  if (left) {
    typename VectorOf<T>::index exists;
    for (int i = 0; i < lanes<T>; ++i) exists[i] = i < left ? -1 : 0;
    step(whole, [&](const T* from) { return from + lanes<T> <= end_of(weights) ? exists ? load(from) : Vector<T>{} : load_first(from, left); });
  }
#pragma GCC unroll 8
  for (int i = 0; i < most; ++i)
#pragma GCC unroll 8
    for (int n = 0; n < images; ++n)
      if (i < rows) sums[i * images + n] = sum_of_lanes<T>(tile[i][n]);
}

// inputs_grad[i,n] = sum over o of weights[i,o] * acts_grad[o,n]: rows of weights and images are the tile, whose lanes are
// summed at the end.
template <class T>
struct FewBackwardData {
  static constexpr int task_rows = 64;

  FcProblem p;
  std::int64_t pitch;
  std::vector<Block> tiles;  // of the images

  explicit FewBackwardData(const FcProblem& problem)
      : p(problem), pitch(whole_vectors<T>(int(problem.outputs))), tiles(equal_blocks(problem.images, most_tile_images)) {}

  T* divide(WorkspaceParts& memory, int) const { return memory.take<T>(pitch * p.images); }

  void run(Stream stream, In acts_grad_tensor, In weights_tensor, Out inputs_grad_tensor, void* memory, const Epilogue<T>& epilogue) const {
    WorkspaceParts workspace(memory);
    T* acts_grad = divide(workspace, thread_count(stream));
    const auto weights = rows_of<T>(weights_tensor);
    const auto inputs_grad = rows_of<T>(inputs_grad_tensor);
    transpose_rows(stream, rows_of<T>(acts_grad_tensor), acts_grad, pitch);
    constexpr auto kernels = []<int... n>(std::integer_sequence<int, n...>) {
      return std::array<Dots<T>, sizeof...(n)>{&dots<T, n + 1>...};
    }(std::make_integer_sequence<int, most_tile_images>());
    parallel_for(stream, ceil_div(p.inputs, task_rows), [&](std::int64_t task, int) {
      const std::int64_t last = std::min<std::int64_t>(p.inputs, (task + 1) * task_rows);
      const int most = tile_rows<T>(tiles.front().count);
      for (std::int64_t first = task * task_rows; first < last; first += most)
        for (const Block& tile : tiles) {
          T sums[8 * most_tile_images];
          const int rows = int(std::min<std::int64_t>(most, last - first));
          kernels[tile.count - 1](weights, first, rows, acts_grad + tile.first * pitch, pitch, sums);
          for (int i = 0; i < rows; ++i)
            for (int n = 0; n < tile.count; ++n)
              store_lanes(inputs_grad.row(first + i) + tile.first + n, sums + i * tile.count + n, 1, inputs_grad.add, epilogue);
        }
    });
  }
};

// weights_grad[i,o] = sum over n of inputs[i,n] * acts_grad[o,n]: as many rows of weights_grad are written side by side as
// keep the multipliers busy, each from its beginning to its end.
template <class T>
struct FewBackwardWeights {
  static constexpr int task_rows = 64, rows_at_once = 4;

  FcProblem p;
  std::int64_t pitch;

  explicit FewBackwardWeights(const FcProblem& problem) : p(problem), pitch(whole_vectors<T>(int(problem.outputs))) {}

  T* divide(WorkspaceParts& memory, int) const { return memory.take<T>(pitch * p.images); }

  void run(Stream stream, In inputs_tensor, In acts_grad_tensor, Out weights_grad_tensor, void* memory, const Update<T>* update = nullptr) const {
    using namespace simd;
    WorkspaceParts workspace(memory);
    T* acts_grad = divide(workspace, thread_count(stream));
    const auto inputs = rows_of<T>(inputs_tensor);
    const auto weights_grad = rows_of<T>(weights_grad_tensor);
    const bool streams = should_stream<T>(weights_grad_tensor);
    transpose_rows(stream, rows_of<T>(acts_grad_tensor), acts_grad, pitch);
    parallel_for(stream, ceil_div(p.inputs, task_rows), [&](std::int64_t task, int) {
      const std::int64_t last = std::min<std::int64_t>(p.inputs, (task + 1) * task_rows);
      for (std::int64_t first = task * task_rows; first < last; first += rows_at_once) {
        const int rows = int(std::min<std::int64_t>(rows_at_once, last - first));
        for (std::int64_t o = 0; o < p.outputs; o += lanes<T>) {
          Vector<T> sums[rows_at_once] = {};
          for (int n = 0; n < p.images; ++n) {
            const Vector<T> acts = load(acts_grad + n * pitch + o);
#pragma GCC unroll 4
            for (int i = 0; i < rows_at_once; ++i) sums[i] += broadcast(inputs.row(first + std::min(i, rows - 1))[n]) * acts;
          }
#pragma GCC unroll 4
          for (int i = 0; i < rows_at_once; ++i) {
            if (i >= rows) break;
            T* target = weights_grad.row(first + i) + o;
            if (update || o + lanes<T> > p.outputs) {
              T edge[lanes<T>];
              store(edge, sums[i]);
              const int count = int(std::min<std::int64_t>(lanes<T>, p.outputs - o));
              if (update)
                sgd_rows(update->step, edge, 0, update->increments, update->weights, first + i, 1, int(o), count);
              else if (weights_grad.add)
                store_lanes(target, edge, count, true);
              else
                std::memcpy(target, &sums[i], count * sizeof(T));
            } else if (streams) {
              stream_store(target, sums[i]);
            } else {
              store(target, weights_grad.add ? load(target) + sums[i] : sums[i]);
            }
          }
        }
      }
      if (streams) stream_fence();
    });
  }
};

}  // namespace convnet

// Convolution with fewer multiplications, along rows of pixels: Winograd's minimal filtering F(m,
// r) (Winograd 1980; Lavin and Gray 2016), in the form of Toom and Cook.
//   m outputs that r taps see = outputs^T ((filters * taps) x (inputs * pixels))
// Eight pixels across become values at the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, where a
// product takes the place of m * r / 8 of them. Down the image all is as in conv_gather.h. The
// other dimension treated alike would multiply less again, but its transformed inputs do not fit
// the caches: F(4,3) x F(4,3) took 1.0 to 1.2 of the direct time at AlexNet's conv3 and conv4.
#pragma once
#include <optional>

#include "conv_gather.h"

namespace convnet {

namespace winograd {

constexpr int points = 8;

struct Matrix {
  double at[points][points] = {};
};

// The finite points are at[0] to at[6]; infinity takes the highest coefficient.
constexpr double finite[points - 1] = {0, 1, -1, 2, -2, 0.5, -0.5};

// Row k: the coefficients of the product of (x - other finite points).
constexpr Matrix input_matrix() {
  Matrix m;
  for (int k = 0; k < points; ++k) {
    m.at[k][0] = 1;
    for (int j = 0, degree = 0; j < points - 1; ++j) {
      if (j == k) continue;
      ++degree;
      for (int i = degree; i >= 0; --i)
        m.at[k][i] = (i > 0 ? m.at[k][i - 1] : 0) - finite[j] * m.at[k][i];
    }
  }
  return m;
}

// Row k: the powers 0 to size - 1 of point k.
constexpr Matrix power_matrix(int size) {
  Matrix m;
  for (int k = 0; k < points - 1; ++k)
    for (int i = 0; i < size; ++i) m.at[k][i] = i > 0 ? m.at[k][i - 1] * finite[k] : 1;
  m.at[points - 1][size - 1] = 1;
  return m;
}

// The powers of r taps, divided by the products of (point k - other finite points).
constexpr Matrix filter_matrix(int taps) {
  Matrix m = power_matrix(taps);
  for (int k = 0; k < points - 1; ++k) {
    double divisor = 1;
    for (int j = 0; j < points - 1; ++j)
      if (j != k) divisor *= finite[k] - finite[j];
    for (int i = 0; i < taps; ++i) m.at[k][i] /= divisor;
  }
  return m;
}

// target[k] = sum over i < size of matrix[k][i] * source[i], without the zeros.
template <class T, const Matrix& matrix, int rows, int size, bool transposed = false>
ALWAYS_INLINE void apply(const simd::Vector<T>* source, simd::Vector<T>* target) {
#pragma GCC unroll 8
  for (int k = 0; k < rows; ++k) {
    bool first = true;
    simd::Vector<T> sum = {};
#pragma GCC unroll 8
    for (int i = 0; i < size; ++i) {
      const T factor = T(transposed ? matrix.at[i][k] : matrix.at[k][i]);
      if (factor == 0) continue;
      sum = first ? factor * source[i] : sum + factor * source[i];
      first = false;
    }
    target[k] = sum;
  }
}

inline constexpr Matrix inputs = input_matrix();
template <int taps>
inline constexpr Matrix filters = filter_matrix(taps);
template <int taps>
inline constexpr Matrix outputs = power_matrix(points + 1 - taps);

// Filters so wide have a transform; for narrower and wider ones little is gained.
constexpr int least_taps = 3, most_taps = 5;

template <class Body>
void with_taps(int taps, Body body) {
  if (taps == 3) body(std::integral_constant<int, 3>());
  if (taps == 4) body(std::integral_constant<int, 4>());
  if (taps == 5) body(std::integral_constant<int, 5>());
}

// Rows of outputs are cut into tiles of m; the columns left over are computed directly where that
// takes fewer products.
inline int tiles_across(int outputs, int taps) {
  const int m = points + 1 - taps;
  return outputs / m + (outputs % m * taps > points);
}

// Which convolutions gain: by shape alone. Fewer images would leave lanes idle.
inline bool pays(const ConvProblem& p) {
  return p.images >= 16 && p.stride == 1 && p.filter_width >= least_taps &&
         p.filter_width <= most_taps && p.channels >= 16 && p.filters >= 16 &&
         tiles_across(p.acts_width, p.filter_width) > 0 &&
         tiles_across(p.width, p.filter_width) > 0;
}

// Eight pixels from x0 on (zero outside the row of `width`) of some images -> target, point k at
// k * point_step. What stands two `ahead` is fetched: channels are too far apart for the hardware
// to foresee.
template <class T>
ALWAYS_INLINE void pack_row(T* target, std::int64_t point_step, const T* row, std::int64_t ahead,
                            std::int64_t pitch, int x0, int width, int images, int vectors) {
  using namespace simd;
  for (int v = 0; v < vectors; ++v, images -= lanes<T>) {
    Vector<T> pixel[points], value[points];
#pragma GCC unroll 8
    for (int i = 0; i < points; ++i) {
      const int x = x0 + i;
      pixel[i] = Vector<T>{};
      if (x < 0 || x >= width) continue;
      const T* place = row + x * pitch + v * lanes<T>;
      __builtin_prefetch(place + 2 * ahead);
      pixel[i] = images >= lanes<T> ? load(place) : load_first(place, std::max(images, 0));
    }
    apply<T, inputs, points, points>(pixel, value);
#pragma GCC unroll 8
    for (int k = 0; k < points; ++k) store(target + k * point_step + v * lanes<T>, value[k]);
  }
}

}  // namespace winograd

// conv_forward and conv_backward_data of what `pays`.
template <class T>
struct WinogradGather {
  static constexpr int points = winograd::points;
  bool backward;
  int groups, outputs, inputs;  // outputs and inputs: filters and channels of one group
  int height, width, output_height, output_width;
  int taps_down, taps, padding_down, padding_across;
  int tiles, tile_outputs, widest;
  std::vector<Block> row_blocks, input_blocks, y_blocks;
  std::vector<LaneBlock> lane_blocks;
  std::optional<Gather<T>> rest;  // the columns that no tile has

  WinogradGather(const ConvProblem& p, bool backward, int threads)
      : backward(backward),
        groups(p.groups),
        outputs(backward ? p.channels : p.filters),
        inputs(backward ? p.filters : p.channels),
        height(backward ? p.acts_height : p.height),
        width(backward ? p.acts_width : p.width),
        output_height(backward ? p.height : p.acts_height),
        output_width(backward ? p.width : p.acts_width),
        taps_down(p.filter_height),
        taps(p.filter_width),
        padding_down(backward ? p.filter_height - 1 - p.padding : p.padding),
        padding_across(backward ? p.filter_width - 1 - p.padding : p.padding),
        tiles(winograd::tiles_across(output_width, taps)),
        tile_outputs(points + 1 - taps),
        widest(widest_tile<T>(outputs, p.images)),
        row_blocks(equal_blocks(outputs, max_rows<T>(widest))),
        y_blocks(equal_blocks(output_height, 7)),
        lane_blocks(convnet::lane_blocks<T>(p.images, widest)) {
    if (tiles * tile_outputs < output_width)
      rest.emplace(p, backward, threads, tiles * tile_outputs);
    // Transformed inputs of a task, in half a second-level cache of 1 MiB or little more.
    constexpr int strip_bytes = 640 << 10;
    input_blocks = equal_blocks(
        inputs, std::max(1, strip_bytes / (points * strip_rows() * widest * simd::vector_bytes)));
  }

  int strip_rows() const { return y_blocks.front().count + taps_down - 1; }
  // Distance of two points in the strip: they are written together, and would share a few sets of
  // the caches.
  std::int64_t point_size(int inputs) const {
    return std::int64_t(strip_rows()) * inputs * widest * simd::lanes<T> + 5 * 64 / sizeof(T);
  }

  struct Workspace {
    T* weights;
    T *strip, *sums;  // of a thread: (points, rows of pixels, inputs, lanes); (row blocks, points,
                      // rows of pixels, rows, lanes)
    std::int64_t strip_size, sums_size;
  };
  Workspace divide(WorkspaceParts& parts, int threads) const {
    Workspace w;
    w.weights = parts.take<T>(std::int64_t(groups) * inputs * outputs * points * taps_down);
    w.strip_size = points * point_size(input_blocks.front().count);
    w.sums_size = std::int64_t(points) * y_blocks.front().count * outputs * widest * simd::lanes<T>;
    w.strip = parts.take<T>(w.strip_size * threads);
    w.sums = parts.take<T>(w.sums_size * threads);
    if (rest) {
      WorkspaceParts counted(nullptr);  // of the same memory, afterwards
      rest->divide(counted, threads);
      parts.take<char>(std::max<std::int64_t>(0, counted.bytes() - parts.bytes()));
    }
    return w;
  }

  // Weights are (groups, input blocks, row blocks, points, taps down, inputs, rows).
  std::int64_t weights_offset(int group, Block in, Block block) const {
    return ((std::int64_t(group) * inputs + in.first) * outputs +
            std::int64_t(block.first) * in.count) *
           points * taps_down;
  }

  template <int taps>
  void pack_weights(Stream stream, const Images<const T>& filters, T* weights) const {
    const std::int64_t blocks = input_blocks.size() * row_blocks.size();
    parallel_for(stream, groups * blocks, [&](std::int64_t task, int) {
      const int group = int(task / blocks);
      const Block in = input_blocks[task % blocks / row_blocks.size()];
      const Block block = row_blocks[task % row_blocks.size()];
      T* target = weights + weights_offset(group, in, block);
      // Lanes are filters: the rows of a tile forward, its inputs backward.
      const Block channels = backward ? block : in, lanes = backward ? in : block;
      const std::int64_t point_size = std::int64_t(taps_down) * in.count * block.count;
      const int channel_step = backward ? 1 : block.count, lane_step = backward ? block.count : 1;
      for (int c = 0; c < channels.count; ++c)
        for (int i = 0; i < taps_down; ++i)
          for (int f = 0; f < lanes.count; f += simd::lanes<T>) {
            const int count = std::min(simd::lanes<T>, lanes.count - f);
            simd::Vector<T> tap[taps], value[points];
            for (int j = 0; j < taps; ++j)
              tap[j] =
                  simd::load_first(filters.row(channels.first + c, backward ? taps_down - 1 - i : i,
                                               backward ? taps - 1 - j : j) +
                                       group * (backward ? inputs : outputs) + lanes.first + f,
                                   count);
            winograd::apply<T, winograd::filters<taps>, points, taps>(tap, value);
            T* place = target + std::int64_t(i) * in.count * block.count + c * channel_step +
                       f * lane_step;
            for (int k = 0; k < points; ++k, place += point_size)
              for (int n = 0; n < count; ++n) place[n * lane_step] = value[k][n];
          }
    });
  }

  void run(Stream stream, In inputs_tensor, In filters_tensor, Out outputs_tensor,
           void* workspace) const {
    winograd::with_taps(taps, [&](auto taps) {
      run_tiles<taps>(stream, inputs_tensor, filters_tensor, outputs_tensor, workspace);
    });
    if (rest) rest->run(stream, inputs_tensor, filters_tensor, outputs_tensor, workspace);
  }

  template <int taps>
  void run_tiles(Stream stream, In inputs_tensor, In filters_tensor, Out outputs_tensor,
                 void* workspace) const {
    WorkspaceParts parts(workspace);
    const Workspace w = divide(parts, thread_count(stream));
    const auto source = images_of<T>(inputs_tensor);
    const auto target = images_of<T>(outputs_tensor);
    pack_weights<taps>(stream, images_of<T>(filters_tensor), w.weights);
    const bool streams = should_stream<T>(outputs_tensor);
    const std::int64_t tasks = std::int64_t(groups) * lane_blocks.size() * y_blocks.size() * tiles;
    parallel_for(stream, tasks, [&](std::int64_t task, int thread) {
      const int tile = int(task % tiles);
      task /= tiles;
      const Block ys = y_blocks[task % y_blocks.size()];
      task /= y_blocks.size();
      const LaneBlock lane = lane_blocks[task % lane_blocks.size()];
      const int group = int(task / lane_blocks.size());
      T* strip = w.strip + w.strip_size * thread;
      T* sums = w.sums + w.sums_size * thread;
      for (const Block& in : input_blocks) {
        pack_strip(source, strip, group * inputs + in.first, in.count, lane, ys, tile);
        const bool first = in.first == 0, last = in.first + in.count == inputs;
        for (const Block& block : row_blocks) {
          T* block_sums =
              sums + std::int64_t(block.first) * points * ys.count * lane.vectors * simd::lanes<T>;
          multiply_block(w.weights + weights_offset(group, in, block), strip, block_sums, first,
                         in.count, block, lane, ys);
          if (last) store_block<taps>(target, block_sums, group, block, lane, ys, tile, streams);
        }
      }
      if (streams) simd::stream_fence();
    });
  }

  // The rows of pixels that the windows of some output rows see.
  Block seen(Block ys) const {
    const int first = std::max(0, ys.first - padding_down);
    return {
        first,
        std::max(0, std::min(height, ys.first + ys.count - padding_down + taps_down - 1) - first)};
  }

  void pack_strip(const Images<const T>& source, T* strip, int first_input, int inputs,
                  LaneBlock lane, Block ys, int tile) const {
    const Block rows = seen(ys);
    const std::int64_t step = std::int64_t(source.height) * source.width * source.pitch,
                       point_step = point_size(inputs);
    const int x0 = tile * tile_outputs - padding_across;
    for (int y = rows.first; y < rows.first + rows.count; ++y) {
      const T* row = source.row(first_input, y, 0) + lane.first;
      for (int r = 0; r < inputs; ++r, row += step, strip += lane.vectors * simd::lanes<T>)
        winograd::pack_row<T>(strip, point_step, row, step, source.pitch, x0, source.width,
                              lane.count, lane.vectors);
    }
  }

  // The products of a block of rows at all points, of a block of inputs.
  void multiply_block(const T* weights, const T* strip, T* sums, bool first, int inputs,
                      Block block, LaneBlock lane, Block ys) const {
    const Block rows = seen(ys);
    const int width = lane.vectors * simd::lanes<T>;
    const auto kernel = columns_kernel<T>(block.count, lane.vectors);
    for (int k = 0; k < points; ++k)
      for (int y = ys.first; y < ys.first + ys.count; ++y, sums += block.count * width) {
        const int top = y - padding_down;
        const int v0 = std::max(0, top), v1 = std::min(height, top + taps_down);
        const Segment<T> segment{
            weights + (std::int64_t(k) * taps_down + v0 - top) * inputs * block.count,
            strip + k * point_size(inputs) + std::int64_t(v0 - rows.first) * inputs * width,
            (v1 - v0) * inputs, nullptr, 0};
        kernel(&segment, v1 > v0, {sums, nullptr, first ? nullptr : sums, false, false});
      }
  }

  template <int taps>
  void store_block(const Images<T>& target, const T* sums, int group, Block block, LaneBlock lane,
                   Block ys, int tile, bool streams) const {
    using namespace simd;
    constexpr int m = points + 1 - taps;
    const int width = lane.vectors * lanes<T>;
    const std::int64_t point_step = std::int64_t(ys.count) * block.count * width;
    const int x0 = tile * m, columns = std::min(m, target.width - x0);
    for (int y = ys.first; y < ys.first + ys.count; ++y)
      for (int i = 0; i < block.count; ++i) {
        T* row = target.row(group * outputs + block.first + i, y, x0) + lane.first;
        for (int v = 0; v < lane.vectors; ++v, sums += lanes<T>) {
          const int count = std::min(lanes<T>, lane.count - v * lanes<T>);
          Vector<T> value[points], output[m];
#pragma GCC unroll 8
          for (int k = 0; k < points; ++k) value[k] = load(sums + k * point_step);
          winograd::apply<T, winograd::outputs<taps>, m, points, true>(value, output);
          for (int x = 0; x < columns; ++x) {
            T* place = row + x * target.pitch + v * lanes<T>;
            if (count < lanes<T>)
              store_lanes(place, reinterpret_cast<const T*>(&output[x]), std::max(count, 0),
                          target.add);
            else if (streams)
              stream_store(place, output[x]);
            else
              store(place, target.add ? load(place) + output[x] : output[x]);
          }
        }
      }
  }
};

}  // namespace convnet

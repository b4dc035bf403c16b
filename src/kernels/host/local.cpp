// Locally connected layers on the host: of each pixel a product of matrices, its operands gathered
// in the order of the inner loop (microkernel.h).
#include "../local_problem.h"
#include "parallel.h"
#include "tiles.h"

namespace convnet {
namespace {

// What a pixel sees along one dimension: pixel `source`, through row (or column) `filter`.
struct Tap {
  int source, filter;
};
using Taps = std::vector<std::vector<Tap>>;  // of each pixel

// Pixels of acts see those of images; backward, pixels of images see those of acts.
Taps taps_of(int image_size, int acts_size, int filter_size, int stride, int padding,
             bool backward) {
  Taps taps(backward ? image_size : acts_size);
  for (int y = 0; y < acts_size; ++y)
    for (int i = 0; i < filter_size; ++i) {
      const int v = y * stride - padding + i;
      if (v < 0 || v >= image_size) continue;
      if (backward)
        taps[v].push_back({y, i});
      else
        taps[y].push_back({v, i});
    }
  return taps;
}

int most_of(const Taps& taps) {
  std::size_t most = 0;
  for (const auto& seen : taps) most = std::max(most, seen.size());
  return int(most);
}

// Of a task; whole vectors.
constexpr int most_images = 128;

// local_forward and local_backward_data: every pixel gathers what it sees.
//   outputs[o,n] = sum over taps and r of source[r,tap,n] * weights[tap,r,o]
// Forward, r are channels and o filters; backward, r are filters and o channels. The products are
// in the order in which the weights lie in memory, so that each is fetched once, one after the
// other: taps within r forward, r within taps backward.
//
// A task is some outputs of one pixel for some images. It takes the products block by block: packs
// the weights into tiles of outputs, what is seen into columns (products, lanes), and multiplies.
template <class T>
struct PixelGather {
  // Of a block: with AVX-512, (256, 224) weights take a quarter of a second-level cache of 1 MiB.
  static constexpr int most_products = 256, most_outputs = 16 * max_rows<T>(2);

  ConvProblem p;
  bool backward;
  int outputs, inputs;  // of a group
  Taps down, across;
  int most_taps, widest;
  std::vector<Block> output_blocks, input_blocks;

  PixelGather(const ConvProblem& problem, bool backward)
      : p(problem),
        backward(backward),
        outputs(backward ? p.channels : p.filters),
        inputs(backward ? p.filters : p.channels),
        down(taps_of(p.height, p.acts_height, p.filter_height, p.stride, p.padding, backward)),
        across(taps_of(p.width, p.acts_width, p.filter_width, p.stride, p.padding, backward)),
        most_taps(std::max(1, most_of(down) * most_of(across))),
        widest(backward ? 2 : widest_tile<T>(outputs, std::min(p.images, most_images))),
        output_blocks(equal_blocks(outputs, most_outputs)),
        input_blocks(equal_blocks(inputs, std::max(1, most_products / most_taps))) {}

  // A pixel that is seen: its images of input 0 of the group, and the weights of that and output 0.
  struct Seen {
    const T *source, *weights;
  };

  std::int64_t tile_size(int rows, int in) const {
    if (!backward) return std::int64_t(rows) * in * most_taps + simd::vector_bytes / sizeof(T);
    return std::int64_t(rows) * most_taps * ceil_div(in, row_length) * row_pitch;
  }

  struct Workspace {
    T *matrix, *columns, *partial;  // of a thread
    std::int64_t matrix_size, columns_size, partial_size;
  };
  Workspace divide(WorkspaceParts& parts, int threads) const {
    const int in = input_blocks.front().count, out = output_blocks.front().count;
    const auto tiles = equal_blocks(out, max_rows<T>(widest));
    Workspace w;
    w.matrix_size = std::int64_t(tiles.size()) * tile_size(tiles.front().count, in);
    w.columns_size = std::int64_t(in) * most_taps * widest * simd::lanes<T>;
    w.partial_size = input_blocks.size() > 1 ? std::int64_t(out) * most_images : 0;
    w.matrix = parts.take<T>(w.matrix_size * threads);
    w.columns = parts.take<T>(w.columns_size * threads);
    w.partial = parts.take<T>(w.partial_size * threads);
    return w;
  }

  void run(Stream stream, In source_tensor, In weights_tensor, Out outputs_tensor,
           void* memory) const {
    WorkspaceParts parts(memory);
    const Workspace w = divide(parts, thread_count(stream));
    const auto source = images_of<T>(source_tensor);
    const auto filters = images_of<T>(first_filters(weights_tensor));
    const auto target = images_of<T>(outputs_tensor);
    const int pixels = target.height * target.width,
              image_blocks = int(ceil_div(p.images, most_images));
    const std::int64_t tasks =
        std::int64_t(pixels) * p.groups * output_blocks.size() * image_blocks;
    parallel_for(stream, tasks, [&](std::int64_t task, int thread) {
      const int first_image = int(task % image_blocks) * most_images;
      task /= image_blocks;
      const Block block = output_blocks[task % output_blocks.size()];
      task /= output_blocks.size();
      const int group = int(task % p.groups), pixel = int(task / p.groups);
      gather(source, filters, target, group, pixel / target.width, pixel % target.width, block,
             {first_image, std::min(most_images, p.images - first_image)},
             w.matrix + w.matrix_size * thread, w.columns + w.columns_size * thread,
             w.partial + w.partial_size * thread);
    });
  }

  void gather(const Images<const T>& source, const Images<const T>& filters,
              const Images<T>& target, int group, int y, int x, Block block, Block images,
              T* matrix, T* columns, T* partial) const {
    std::vector<Seen> seen;
    for (const Tap& v : down[y])
      for (const Tap& u : across[x]) {
        const std::int64_t pixel = backward ? std::int64_t(v.source) * p.acts_width + u.source
                                            : std::int64_t(y) * p.acts_width + x;
        const T* weights = filters.row(0, v.filter, u.filter) + group * p.filters +
                           pixel * filters.rows() * filters.pitch;
        seen.push_back({source.row(group * inputs, v.source, u.source) + images.first, weights});
      }
    const auto tiles = equal_blocks(block.count, max_rows<T>(widest));
    const std::int64_t channel_step = std::int64_t(source.height) * source.width * source.pitch;
    std::vector<std::int64_t> row_offsets(tiles.front().count);
    for (int i = 0; i < tiles.front().count; ++i)
      row_offsets[i] = std::int64_t(i) * target.height * target.width * target.pitch;
    std::vector<Segment<T>> segments;
    for (const Block& in : input_blocks) {
      const std::int64_t size = tile_size(tiles.front().count, in.count);
      if (backward)
        pack_rows(seen, filters, block, tiles, in, matrix, size);
      else
        pack_columns(seen, filters, group, block, tiles, in, matrix, size);
      for (const LaneBlock& lane : lane_blocks<T>(images.count, widest)) {
        pack_source(seen, channel_step, in, lane, columns);
        for (std::size_t i = 0; i < tiles.size(); ++i) {
          cut(segments, matrix + i * size, columns, int(seen.size()), in.count, tiles[i].count,
              lane.vectors);
          T* row = target.row(group * outputs + block.first + tiles[i].first, y, x);
          multiply_tile(segments, partial, row + images.first + lane.first, row_offsets.data(),
                        tiles[i], lane, in, target.add);
        }
      }
    }
  }

  // Forward: a tile is (products, outputs). Whole vectors are moved where they lie inside the row:
  // what they write too much is written again.
  void pack_columns(const std::vector<Seen>& seen, const Images<const T>& filters, int group,
                    Block block, const std::vector<Block>& tiles, Block in, T* matrix,
                    std::int64_t size) const {
    const std::int64_t step = filters.height * filters.width * filters.pitch;
    const std::int64_t room = filters.pitch - group * p.filters - block.first;
    std::int64_t k = 0;
    for (int r = in.first; r < in.first + in.count; ++r)
      for (const Seen& pixel : seen) {
        const T* source = pixel.weights + r * step + block.first;
        T* target = matrix;
        for (const Block& tile : tiles) {
          const T* from = source + tile.first;
          T* to = target + k * tile.count;
          __builtin_prefetch(from + 4096 / sizeof(T));  // up to 20 % of the op's time
          const int whole = whole_vectors<T>(tile.count);
          if (tile.first + whole <= room)
            for (int i = 0; i < whole; i += simd::lanes<T>)
              simd::store(to + i, simd::load(from + i));
          else
            for (int i = 0; i < tile.count; ++i) to[i] = from[i];
          target += size;
        }
        ++k;
      }
  }

  // Backward: a tile is (runs of row_length products, outputs, row_pitch).
  void pack_rows(const std::vector<Seen>& seen, const Images<const T>& filters, Block block,
                 const std::vector<Block>& tiles, Block in, T* matrix, std::int64_t size) const {
    const std::int64_t step = filters.height * filters.width * filters.pitch;
    for (const Block& tile : tiles) {
      T* target = matrix;
      for (const Seen& pixel : seen)
        for (int r = 0; r < in.count; r += row_length)
          for (int i = 0; i < tile.count; ++i, target += row_pitch)
            copy_lanes(target, pixel.weights + (block.first + tile.first + i) * step + in.first + r,
                       std::min(row_length, in.count - r), row_length / simd::lanes<T>);
      matrix += size;
    }
  }

  // (inputs, pixels seen, lanes), the products in the order of the weights.
  void pack_source(const std::vector<Seen>& seen, std::int64_t channel_step, Block in,
                   LaneBlock lane, T* columns) const {
    const int width = lane.vectors * simd::lanes<T>;
    const auto copy = [&](const Seen& pixel, int r) {
      const T* row = pixel.source + r * channel_step + lane.first;
      copy_lanes(columns, row, lane.count, lane.vectors);
      columns += width;
    };
    const int last = in.first + in.count;
    if (backward)
      for (const Seen& pixel : seen)
        for (int r = in.first; r < last; ++r) copy(pixel, r);
    else
      for (int r = in.first; r < last; ++r)
        for (const Seen& pixel : seen) copy(pixel, r);
  }

  // The products of a tile, in runs that the inner loop takes.
  void cut(std::vector<Segment<T>>& segments, const T* matrix, const T* columns, int taps, int in,
           int rows, int vectors) const {
    segments.clear();
    if (!backward) {
      segments.push_back({matrix, columns, taps * in, nullptr, 0});
      return;
    }
    for (int tap = 0; tap < taps; ++tap)
      for (int r = 0; r < in; r += row_length, matrix += rows * row_pitch) {
        const int length = std::min(row_length, in - r);
        segments.push_back({matrix, columns, length, nullptr, 0});
        columns += std::int64_t(length) * vectors * simd::lanes<T>;
      }
  }

  void multiply_tile(const std::vector<Segment<T>>& segments, T* partial, T* row,
                     const std::int64_t* row_offsets, Block tile, LaneBlock lane, Block in,
                     bool add) const {
    const int width = lane.vectors * simd::lanes<T>;
    const auto kernel = backward ? rows_kernel<T>(tile.count, lane.vectors)
                                 : columns_kernel<T>(tile.count, lane.vectors);
    T* sums = partial + tile.first * most_images + tile.count * lane.first;
    const T* before = in.first ? sums : nullptr;
    const int count = int(segments.size());
    if (in.first + in.count < inputs) {
      kernel(segments.data(), count, {sums, nullptr, before, false, false});
    } else if (lane.count == width) {
      kernel(segments.data(), count, {row, row_offsets, before, add, false});
    } else {
      TileBuffer<T> buffer;
      kernel(segments.data(), count, {buffer.data, nullptr, before, false, false});
      for (int i = 0; i < tile.count; ++i)
        store_lanes(row + row_offsets[i], buffer.data + i * width, lane.count, add);
    }
  }
};

// local_backward_weights: filters are the lanes, images what is summed over.
//   weights_grad[tap,r,f] = sum over n of images[r,tap,n] * acts_grad[f,n]
// A task is some rows (channel, tap) of one pixel. Its acts_grad are transposed into panels
// (images, lanes), its images packed a tile of rows at a time.
template <class T>
struct PixelWeights {
  static constexpr int most_rows = 1024;  // that share a task's panels

  ConvProblem p;
  int runs;  // of row_length images
  std::vector<LaneBlock> panels;

  explicit PixelWeights(const ConvProblem& problem)
      : p(problem),
        runs(int(ceil_div(p.images, row_length))),
        panels(lane_blocks<T>(p.filters, 2)) {}

  struct Workspace {
    T *panels, *matrix;  // of a thread
    std::int64_t panels_size, matrix_size;
  };
  Workspace divide(WorkspaceParts& parts, int threads) const {
    Workspace w;
    w.panels_size = std::int64_t(whole_vectors<T>(p.filters)) * whole_vectors<T>(p.images);
    w.matrix_size = std::int64_t(max_rows<T>(2)) * runs * row_pitch;
    w.panels = parts.take<T>(w.panels_size * threads);
    w.matrix = parts.take<T>(w.matrix_size * threads);
    return w;
  }

  void run(Stream stream, In images_tensor, In acts_grad_tensor, Out weights_grad,
           void* memory) const {
    WorkspaceParts parts(memory);
    const Workspace w = divide(parts, thread_count(stream));
    const auto images = images_of<T>(images_tensor), acts_grad = images_of<T>(acts_grad_tensor);
    const auto filters_grad = images_of<T>(first_filters(weights_grad));
    const auto blocks = equal_blocks(int(filters_grad.rows()), most_rows);
    const std::int64_t tasks =
        std::int64_t(p.acts_height) * p.acts_width * p.groups * blocks.size();
    parallel_for(stream, tasks, [&](std::int64_t task, int thread) {
      const Block block = blocks[task % blocks.size()];
      task /= blocks.size();
      const int group = int(task % p.groups), pixel = int(task / p.groups);
      Images<T> target = filters_grad;
      target.data += pixel * filters_grad.rows() * filters_grad.pitch + group * p.filters;
      sum_pixel(images, acts_grad, target, group, pixel / p.acts_width, pixel % p.acts_width, block,
                w.panels + w.panels_size * thread, w.matrix + w.matrix_size * thread);
    });
  }

  // A row of weights_grad, and the images that it is made of.
  struct Row {
    const T* images;
    std::int64_t offset;
  };

  void sum_pixel(const Images<const T>& images, const Images<const T>& acts_grad,
                 const Images<T>& target, int group, int y, int x, Block block, T* panel_memory,
                 T* matrix) const {
    std::vector<Row> rows;
    for (int row = block.first; row < block.first + block.count; ++row) {
      const int v = y * p.stride - p.padding + row / p.filter_width % p.filter_height;
      const int u = x * p.stride - p.padding + row % p.filter_width;
      const int c = group * p.channels + row / p.filter_width / p.filter_height;
      const std::int64_t offset = row * target.pitch;
      if (v >= 0 && v < p.height && u >= 0 && u < p.width)
        rows.push_back({images.row(c, v, u), offset});
      else
        for (int f = 0; f < p.filters; ++f) target.store(target.data + offset + f, T(0));
    }

    const int room = whole_vectors<T>(p.images);
    for (const LaneBlock& panel : panels)
      pack_transposed(panel_memory + std::int64_t(panel.first) * room,
                      panel.vectors * simd::lanes<T>, panel.count, p.images, acts_grad.pitch,
                      [&](int i) { return acts_grad.row(group * p.filters + panel.first + i, y, x); });

    std::vector<Segment<T>> segments(runs);
    std::int64_t offsets[max_rows<T>(2)];
    for (const Block& tile : equal_blocks(int(rows.size()), max_rows<T>(2))) {
      for (int i = 0; i < tile.count; ++i) {
        const Row& row = rows[tile.first + i];
        offsets[i] = row.offset;
        for (int run = 0; run < runs; ++run)
          copy_lanes(matrix + (std::int64_t(run) * tile.count + i) * row_pitch,
                     row.images + run * row_length,
                     std::min(row_length, p.images - run * row_length),
                     row_length / simd::lanes<T>);
      }
      for (const LaneBlock& panel : panels) {
        const int width = panel.vectors * simd::lanes<T>;
        for (int run = 0; run < runs; ++run)
          segments[run] = {matrix + std::int64_t(run) * tile.count * row_pitch,
                           panel_memory + std::int64_t(panel.first) * room +
                               std::int64_t(run) * row_length * width,
                           std::min(row_length, p.images - run * row_length), nullptr, 0};
        const auto kernel = rows_kernel<T>(tile.count, panel.vectors);
        T* to = target.data + panel.first;
        if (panel.count == width) {
          kernel(segments.data(), runs, {to, offsets, nullptr, target.add, false});
        } else {
          TileBuffer<T> buffer;
          kernel(segments.data(), runs, {buffer.data, nullptr, nullptr, false, false});
          for (int i = 0; i < tile.count; ++i)
            store_lanes(to + offsets[i], buffer.data + i * width, panel.count, target.add);
        }
      }
    }
  }
};

}  // namespace

std::int64_t local_forward_workspace(Stream stream, In images, In weights, Out acts, int stride,
                                     int padding, int groups) {
  const ConvProblem problem =
      local_problem(__func__, images, weights, acts, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(
      images, [&]<class T>(T) { bytes = workspace_bytes(PixelGather<T>(problem, false), stream); });
  return bytes;
}

void local_forward(Stream stream, In images, In weights, Out acts, Out workspace, int stride,
                   int padding, int groups) {
  const ConvProblem problem =
      local_problem(__func__, images, weights, acts, stride, padding, groups);
  check_workspace(__func__, workspace,
                  local_forward_workspace(stream, images, weights, acts, stride, padding, groups));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    PixelGather<T>(problem, false).run(stream, images, weights, acts, workspace.ptr);
  });
}

std::int64_t local_backward_data_workspace(Stream stream, In acts_grad, In weights, Out images_grad,
                                           int stride, int padding, int groups) {
  const ConvProblem problem =
      local_problem(__func__, images_grad, weights, acts_grad, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    bytes = workspace_bytes(PixelGather<T>(problem, true), stream);
  });
  return bytes;
}

void local_backward_data(Stream stream, In acts_grad, In weights, Out images_grad, Out workspace,
                         int stride, int padding, int groups) {
  const ConvProblem problem =
      local_problem(__func__, images_grad, weights, acts_grad, stride, padding, groups);
  check_workspace(__func__, workspace,
                  local_backward_data_workspace(stream, acts_grad, weights, images_grad, stride,
                                                padding, groups));
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    PixelGather<T>(problem, true).run(stream, acts_grad, weights, images_grad, workspace.ptr);
  });
}

std::int64_t local_backward_weights_workspace(Stream stream, In images, In acts_grad,
                                              Out weights_grad, int stride, int padding,
                                              int groups) {
  const ConvProblem problem =
      local_problem(__func__, images, weights_grad, acts_grad, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images,
                  [&]<class T>(T) { bytes = workspace_bytes(PixelWeights<T>(problem), stream); });
  return bytes;
}

void local_backward_weights(Stream stream, In images, In acts_grad, Out weights_grad, Out workspace,
                            int stride, int padding, int groups) {
  const ConvProblem problem =
      local_problem(__func__, images, weights_grad, acts_grad, stride, padding, groups);
  check_workspace(__func__, workspace,
                  local_backward_weights_workspace(stream, images, acts_grad, weights_grad, stride,
                                                   padding, groups));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    PixelWeights<T>(problem).run(stream, images, acts_grad, weights_grad, workspace.ptr);
  });
}

}  // namespace convnet

// conv_backward_filters of few images: filters are the lanes, and the rows of a tile are channels and taps across that
// stand side by side; pixels and images are what is summed over.
//   sums[j,c][f] = sum over y,x,n of inputs[n, y + i, x + j, c] * acts_grad[y,x,n, f], for each tap down i
// Inputs are copied once as (groups, images, v, u, channels), with zeros at both ends of the rows, and acts_grad as
// (groups, lane block, y, x, images, lanes).
#pragma once
#include "conv_few_images.h"

namespace convnet {

template <class T>
struct FewFilterSums {
  ConvProblem p;
  std::vector<LaneBlock> blocks;
  int filter_lanes;
  std::vector<Block> row_blocks;  // of (j, c), those of a task
  int columns;                    // of the copied rows
  std::vector<Block> y_blocks;    // whose acts_grad stay in the cache, for all tiles of a task

  explicit FewFilterSums(const ConvProblem& problem) : p(problem) {
    const int rows = p.filter_width * p.channels;
    blocks = lane_blocks<T>(p.filters, widest_tile<T>(rows, p.filters));
    filter_lanes = whole_vectors<T>(p.filters);
    // Every task reads all inputs of its group: no more tasks than many cores need.
    const int splits = int(ceil_div(32, std::int64_t(p.groups) * blocks.size() * p.filter_height));
    row_blocks = equal_blocks(rows, std::max(8 * max_rows<T>(blocks.front().vectors), int(ceil_div(rows, splits))));
    columns = std::max(p.padding + p.width, (p.acts_width - 1) * p.stride + p.filter_width);
    constexpr int panel_bytes = 64 << 10;
    y_blocks = equal_blocks(p.acts_height,
                            std::max(1, panel_bytes / (blocks.front().vectors * simd::vector_bytes * p.acts_width * p.images)));
  }

  std::int64_t pixels() const { return std::int64_t(p.acts_height) * p.acts_width * p.images; }
  std::int64_t row_size() const { return std::int64_t(columns) * p.channels; }
  std::int64_t group_size() const { return p.images * p.height * row_size(); }

  struct Workspace {
    T *source, *panels;
    std::ptrdiff_t* taps;
    T* sums;  // of a thread
    std::int64_t sums_size;
  };
  Workspace divide(WorkspaceParts& parts, int threads) const {
    Workspace w;
    w.sums_size = std::int64_t(row_blocks.front().count) * blocks.front().vectors * simd::lanes<T>;
    w.source = parts.take<T>(p.groups * group_size());
    w.panels = parts.take<T>(p.groups * pixels() * filter_lanes);
    w.taps = parts.take<std::ptrdiff_t>(pixels());
    w.sums = parts.take<T>(w.sums_size * threads);
    return w;
  }

  void run(Stream stream, In images_tensor, In acts_grad_tensor, Out filters_grad_tensor, void* memory) const {
    WorkspaceParts parts(memory);
    const Workspace w = divide(parts, thread_count(stream));
    const auto filters_grad = images_of<T>(filters_grad_tensor);
    copy_source(stream, images_of<T>(images_tensor), w.source);
    pack_panels(stream, images_of<T>(acts_grad_tensor), w.panels);
    std::ptrdiff_t* tap = w.taps;
    for (int y = 0; y < p.acts_height; ++y)
      for (int x = 0; x < p.acts_width; ++x)
        for (int n = 0; n < p.images; ++n)
          *tap++ = ((std::int64_t(n) * p.height + y * p.stride) * columns + x * p.stride) * p.channels;

    const std::int64_t tasks = std::int64_t(p.groups) * blocks.size() * p.filter_height * row_blocks.size();
    parallel_for(stream, tasks, [&](std::int64_t task, int thread) {
      const Block rows = row_blocks[task % row_blocks.size()];
      task /= row_blocks.size();
      const int i = int(task % p.filter_height);
      task /= p.filter_height;
      const LaneBlock& lane = blocks[task % blocks.size()];
      const int group = int(task / blocks.size()), width = lane.vectors * simd::lanes<T>;
      T* sums = w.sums + w.sums_size * thread;
      const T* panel = w.panels + (group * std::int64_t(filter_lanes) + lane.first) * pixels();
      const T* source = w.source + group * group_size() + (i - p.padding) * row_size() + rows.first;
      const std::int64_t row_products = std::int64_t(p.acts_width) * p.images;
      const auto tiles = equal_blocks(rows.count, max_rows<T>(lane.vectors));
      for (const Block& ys : y_blocks) {
        // Of the acts whose window has this row: others would see the padding.
        const int y0 = std::clamp(int(ceil_div(std::max(0, p.padding - i), p.stride)), ys.first, ys.first + ys.count);
        const int y1 = std::clamp(int(ceil_div(std::max(0, p.height + p.padding - i), p.stride)), y0, ys.first + ys.count);
        for (const Block& tile : tiles)
          few_kernel<T>(tile.count, lane.vectors)(
              {source + tile.first, w.taps + y0 * row_products, panel + y0 * row_products * width, width, int((y1 - y0) * row_products)},
              sums + std::int64_t(tile.first) * width, ys.first > 0);
      }
      for (int row = 0; row < rows.count; ++row)
        store_lanes(filters_grad.row((rows.first + row) % p.channels, i, (rows.first + row) / p.channels) + group * p.filters + lane.first,
                    sums + std::int64_t(row) * width, lane.count, filters_grad.add);
    });
  }

  void copy_source(Stream stream, const Images<const T>& images, T* target) const {
    const std::int64_t channel = images.row(1, 0, 0) - images.row(0, 0, 0);
    const int visible = std::clamp(columns - p.padding, 0, p.width);
    parallel_for(stream, std::int64_t(p.groups) * p.images * p.height, [&](std::int64_t task, int) {
      const int v = int(task % p.height), n = int(task / p.height % p.images), group = int(task / p.height / p.images);
      T* row = target + task * row_size();
      std::fill_n(row, p.padding * p.channels, T(0));
      row += p.padding * p.channels;
      std::fill_n(row + visible * p.channels, (columns - p.padding - visible) * p.channels, T(0));
      const T* source = images.row(group * p.channels, v, 0) + n;
      for (int c = 0; c < p.channels; ++c, source += channel)
        for (int u = 0; u < visible; ++u) row[u * p.channels + c] = source[u * images.pitch];
    });
  }

  void pack_panels(Stream stream, const Images<const T>& acts_grad, T* target) const {
    using simd::lanes;
    const std::int64_t step = acts_grad.row(1, 0, 0) - acts_grad.row(0, 0, 0), row = std::int64_t(p.acts_width) * p.images;
    parallel_for(stream, std::int64_t(p.groups) * blocks.size() * p.acts_height, [&](std::int64_t task, int) {
      const int y = int(task % p.acts_height), group = int(task / p.acts_height / blocks.size());
      const LaneBlock& lane = blocks[task / p.acts_height % blocks.size()];
      const int width = lane.vectors * lanes<T>;
      T* panel = target + (group * std::int64_t(filter_lanes) + lane.first) * pixels() + y * row * width;
      for (int first = 0; first < width; first += lanes<T>, panel += lanes<T>) {
        const int filters = std::clamp(lane.count - first, 0, lanes<T>);
        const T* source = acts_grad.row(group * p.filters + lane.first + first, y, 0);
        if (acts_grad.pitch == p.images) {
          for (std::int64_t k = 0; k < row; k += lanes<T>)
            transpose_square<T>(panel + k * width, width, source + k, step, filters, int(std::min<std::int64_t>(lanes<T>, row - k)));
          continue;
        }
        const int pixels = lanes<T> / p.images;
        for (int x = 0; x < p.acts_width; x += pixels) {
          T square[lanes<T> * lanes<T>];
          const int count = std::min(pixels, p.acts_width - x);
          for (int f = 0; f < filters; ++f)
            copy_pixels(square + f * lanes<T>, source + f * step + x * acts_grad.pitch, acts_grad.pitch, p.images, count);
          transpose_square<T>(panel + std::int64_t(x) * p.images * width, width, square, lanes<T>, filters, count * p.images);
        }
      }
    });
  }
};

}  // namespace convnet

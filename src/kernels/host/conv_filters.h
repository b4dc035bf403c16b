// conv_backward_filters: the images of a pixel are what is summed over, filters are the lanes.
//   sums[i,j,c][f] += inputs (rows of images) * acts_grad (images, filters)
// A unit is some pixels of a row of acts for up to 128 images. Its acts_grad are transposed into
// panels (panel of filters, x, images, lanes), a row of its inputs is packed into a strip; then
// every tap is the product of runs in the strip with the panels, and its sums are touched once a
// unit. The strip is (tile of channels, u, images, channels of the tile), so that the pixels beside
// each other are one run. With few channels a tile would be nearly empty: then the rows of a strip
// are the channels of all taps down, those on the padding zero.
//
// A task is some of the units for some of the channels and filters, with sums of its own, which are
// added in the order of the units at the end. How many there are depends on shapes alone, so no bit
// depends on threads.
#pragma once
#include <cstring>

#include "../conv_problem.h"
#include "parallel.h"
#include "tiles.h"

namespace convnet {

template <class T>
struct FilterSums {
  static constexpr int run_length = 64;     // products of a segment
  static constexpr int most_unit = 128;     // images of a unit
  static constexpr int most_segments = 32;  // of a tile: of 16 pixels

  ConvProblem p;
  int taps_down;                                               // in a strip
  std::vector<Block> channel_blocks, filter_blocks, x_blocks;  // filter_blocks: of panels
  std::vector<LaneBlock> panels;                               // of all filters of a group
  int filter_lanes;                                            // of the panels
  int parts, units_per_part;
  int most_images;  // of a unit

  // `first_column`: of acts; those before it are left out.
  explicit FilterSums(const ConvProblem& problem, int first_column = 0) : p(problem) {
    taps_down = p.channels <= max_rows<T>(2) / 2 ? p.filter_height : 1;
    channel_blocks = equal_blocks(p.channels, 128);
    most_images = std::min(most_unit, p.images);
    const int widest = widest_tile<T>(taps_down * p.channels, p.filters);
    panels = lane_blocks<T>(p.filters, widest);
    filter_lanes = whole_vectors<T>(p.filters);
    filter_blocks = equal_blocks(int(panels.size()), std::max(1, 256 / (widest * simd::lanes<T>)));
    // With more pixels a tile's sums are touched less often; the panels take half of a second-level
    // cache of 1 MiB.
    const int panel_bytes = filter_blocks.front().count * widest * simd::vector_bytes * most_images;
    x_blocks =
        equal_blocks(p.acts_width - first_column, std::clamp((512 << 10) / panel_bytes, 4, 16));
    for (Block& block : x_blocks) block.first += first_column;

    const int units = p.acts_height * int(x_blocks.size()) * int(ceil_div(p.images, most_images));
    const int tasks = p.groups * int(channel_blocks.size() * filter_blocks.size());
    units_per_part = std::max(int(ceil_div(units, ceil_div(16, tasks))),
                              int(ceil_div(2048, most_images * panel_x())));
    units_per_part = std::min(units_per_part, units);
    parts = int(ceil_div(units, units_per_part));
  }

  std::int64_t sum_rows() const {
    return std::int64_t(p.filter_height) * p.filter_width * p.channels;
  }
  // Sums are (parts, groups, rows in the order of the strip, lanes of the filters).
  std::int64_t sum_row(int c, int i, int j) const {
    if (taps_down > 1) return (std::int64_t(j) * p.filter_height + i) * p.channels + c;
    return (std::int64_t(i) * p.filter_width + j) * p.channels + c;
  }

  // Of a strip: three tiles, in a quarter of that cache.
  std::vector<Block> strip_channels(Block channels) const {
    if (taps_down > 1) return {channels};
    std::vector<Block> blocks;
    const auto tiles = equal_blocks(channels.count, max_rows<T>(2));
    for (const Block& some : equal_blocks(int(tiles.size()), 3)) {
      const Block &front = tiles[some.first], &back = tiles[some.first + some.count - 1];
      blocks.push_back({channels.first + front.first, back.first + back.count - front.first});
    }
    return blocks;
  }
  int most_rows() const {
    return taps_down > 1 ? taps_down * p.channels
                         : std::min(channel_blocks.front().count, 3 * max_rows<T>(2));
  }
  int panel_x() const {
    return x_blocks.front().count;
  }  // the first block is never smaller than another
  int strip_x() const { return (panel_x() - 1) * p.stride + p.filter_width; }

  struct Workspace {
    T *sums, *panels, *strip;  // panels and strip of a thread
    std::int64_t panels_size, strip_size;
  };
  Workspace divide(WorkspaceParts& workspace, int threads) const {
    Workspace w;
    // Behind the last panel and tile there is room for what pack_transposed writes too much.
    constexpr int width = std::max(8 * simd::lanes<T>, max_rows<T>(2)),
                  room = simd::lanes<T> * (width + 1);
    w.panels_size = std::int64_t(filter_lanes) * panel_x() * most_images + room;
    w.strip_size = std::int64_t(most_rows()) * strip_x() * most_images + room;
    w.sums = workspace.take<T>(std::int64_t(parts) * p.groups * sum_rows() * filter_lanes);
    w.panels = workspace.take<T>(w.panels_size * threads);
    w.strip = workspace.take<T>(w.strip_size * threads);
    return w;
  }

  // `more`: sums of other images, in the order of filters_grad, that are added; or null.
  void run(Stream stream, In images_tensor, In acts_grad_tensor, Out filters_grad, void* memory,
           const T* more) const {
    WorkspaceParts workspace(memory);
    const Workspace w = divide(workspace, thread_count(stream));
    const auto images = images_of<T>(images_tensor), acts_grad = images_of<T>(acts_grad_tensor);
    const std::int64_t blocks = std::int64_t(channel_blocks.size()) * filter_blocks.size();
    parallel_for(stream, parts * p.groups * blocks, [&](std::int64_t task, int thread) {
      const Block filters = filter_blocks[task % filter_blocks.size()];
      const Block channels = channel_blocks[task % blocks / filter_blocks.size()];
      const int group = int(task / blocks % p.groups), part = int(task / blocks / p.groups);
      sum_part(images, acts_grad, part, group, channels, filters,
               w.sums + (std::int64_t(part) * p.groups + group) * sum_rows() * filter_lanes,
               w.panels + w.panels_size * thread, w.strip + w.strip_size * thread);
    });
    add_parts(stream, w.sums, more, images_of<T>(filters_grad));
  }

  void sum_part(const Images<const T>& images, const Images<const T>& acts_grad, int part,
                int group, Block channels, Block filters, T* sums, T* panel_memory,
                T* strip) const {
    const LaneBlock &front = panels[filters.first],
                    &back = panels[filters.first + filters.count - 1];
    const int bytes = (back.first - front.first + back.vectors * simd::lanes<T>)*int(sizeof(T));
    for (int tap = 0; tap < p.filter_height * p.filter_width; ++tap)
      for (int c = channels.first; c < channels.first + channels.count; ++c)
        std::memset(sums + (std::int64_t(tap) * p.channels + c) * filter_lanes + front.first, 0,
                    bytes);

    const int rows_of_acts = p.acts_height * int(x_blocks.size());
    const int units = rows_of_acts * int(ceil_div(p.images, most_images));
    const int last = std::min(units, (part + 1) * units_per_part);
    for (int unit = part * units_per_part; unit < last; ++unit) {
      const Block xs = x_blocks[unit % x_blocks.size()];
      const int y = unit % rows_of_acts / int(x_blocks.size()),
                first_image = unit / rows_of_acts * most_images;
      const Block unit_images{first_image, std::min(most_images, p.images - first_image)};
      pack_panels(acts_grad, panel_memory, group, filters, y, xs, unit_images);
      // What is packed next is fetched by the products before: the rows of the next strip, and the
      // panels of the next unit, which is beside this one or below.
      const bool beside = unit % x_blocks.size() + 1 < x_blocks.size();
      const int next_y = beside ? y : (y + 1) % p.acts_height;
      Ahead<T> next_panels{acts_grad,
                           group * p.filters + front.first,
                           back.first + back.count - front.first,
                           {next_y, int(unit + 1 < last)},
                           x_blocks[(unit + 1) % x_blocks.size()],
                           unit_images.first,
                           unit_images.count};
      const auto strips = strip_channels(channels);
      for (std::size_t k = 0; k < strips.size(); ++k)
        for (int i = 0; i < p.filter_height; i += taps_down) {
          const int v = y * p.stride - p.padding + i;
          if (taps_down == 1 && (v < 0 || v >= p.height)) continue;
          pack_strip(images, strip, group, strips[k], v, xs, unit_images);
          const bool more = i + taps_down < p.filter_height && v + 1 < p.height;
          const Block& soon = strips[more ? k : (k + 1) % strips.size()];
          const int next_v =
              more ? v + 1 : (k + 1 < strips.size() ? y : next_y) * p.stride - p.padding;
          const int u0 = std::max(0, xs.first * p.stride - p.padding),
                    u1 = std::min(p.width, u0 + strip_pixels(xs));
          Ahead<T> next_strip{images,           group * p.channels + soon.first,
                              soon.count,       {std::max(0, next_v), taps_down == 1},
                              {u0, u1 - u0},    unit_images.first,
                              unit_images.count};
          for (int j = 0; j < p.filter_width; ++j)
            sum_tap(strip, panel_memory, strips[k], filters, i, j, xs, unit_images.count, sums,
                    next_strip, next_panels);
        }
    }
  }

  // (filters, xs, images) -> (panels, xs, images, lanes)
  void pack_panels(const Images<const T>& acts_grad, T* target, int group, Block filters, int y,
                   Block xs, Block unit_images) const {
    for (int i = filters.first; i < filters.first + filters.count; ++i) {
      const LaneBlock& panel = panels[i];
      const int width = panel.vectors * simd::lanes<T>, f = group * p.filters + panel.first;
      for (int x = xs.first; x < xs.first + xs.count; ++x, target += unit_images.count * width)
        pack_transposed(target, width, panel.count, unit_images.count, acts_grad.pitch,
                        [&](int i) { return acts_grad.row(f + i, y, x) + unit_images.first; });
    }
  }

  // (channels, taps down, pixels that the windows see, images) -> (tiles of rows, pixels, images,
  // rows of the tile); the rows are (taps down, channels).
  void pack_strip(const Images<const T>& images, T* target, int group, Block channels, int v,
                  Block xs, Block unit_images) const {
    static constexpr T zeros[most_unit] = {};
    const int u0 = xs.first * p.stride - p.padding, u1 = u0 + strip_pixels(xs),
              c0 = group * p.channels + channels.first;
    for (const Block& tile : equal_blocks(taps_down * channels.count, max_rows<T>(2)))
      for (int u = u0; u < u1; ++u, target += unit_images.count * tile.count) {
        if (u < 0 || u >= images.width) continue;
        pack_transposed(
            target, tile.count, tile.count, unit_images.count, images.pitch, [&](int i) {
              const int down = v + (tile.first + i) / channels.count,
                        c = c0 + (tile.first + i) % channels.count;
              return down >= 0 && down < images.height ? images.row(c, down, u) + unit_images.first
                                                       : zeros;
            });
      }
  }
  int strip_pixels(Block xs) const { return (xs.count - 1) * p.stride + p.filter_width; }

  void sum_tap(const T* strip, const T* panel, Block channels, Block filters, int i, int j,
               Block xs, int count, T* sums, Ahead<T>& next_strip, Ahead<T>& next_panels) const {
    const int x0 = std::max(xs.first, int(ceil_div(std::max(0, p.padding - j), p.stride))),
              x1 = std::min(xs.first + xs.count,
                            int(ceil_div(std::max(0, p.width + p.padding - j), p.stride)));
    if (x1 <= x0) return;
    // Beside each other the pixels are one run, cut where something is to be fetched.
    const int pixels = p.stride == 1 ? x1 - x0 : 1;
    std::int64_t row_offsets[max_rows<T>(2)];
    for (int k = 0; k < max_rows<T>(2); ++k) row_offsets[k] = std::int64_t(k) * filter_lanes;
    for (const Block& tile : equal_blocks(taps_down * channels.count, max_rows<T>(2))) {
      const T* a = strip + std::int64_t(strip_pixels(xs)) * count * tile.first;
      const T* b = panel;
      T* target = sums + (sum_row(channels.first, i, j) + tile.first) * filter_lanes;
      for (int k = filters.first; k < filters.first + filters.count; ++k) {
        const int width = panels[k].vectors * simd::lanes<T>;
        Segment<T> segments[most_segments];
        int runs = 0;
        for (int x = x0; x < x1; x += pixels)
          for (int n = 0; n < pixels * count; n += run_length, ++runs) {
            const std::int64_t from_a = ((x - xs.first) * p.stride + j) * count + n,
                               from_b = (x - xs.first) * count + n;
            segments[runs] = {a + from_a * tile.count, b + from_b * width,
                              std::min(run_length, pixels * count - n), nullptr, 0};
            next_strip.fetch(segments[runs]) || next_panels.fetch(segments[runs]);
          }
        columns_kernel<T>(tile.count, panels[k].vectors)(
            segments, runs, {target + panels[k].first, row_offsets, nullptr, true, false});
        b += std::int64_t(xs.count) * count * width;
      }
    }
  }

  void add_parts(Stream stream, const T* sums, const T* more, const Images<T>& filters_grad) const {
    const std::int64_t rows = sum_rows(), part_size = p.groups * rows * filter_lanes;
    parallel_for(stream, rows * p.groups, [&](std::int64_t task, int) {
      const int group = int(task / rows);
      const int c = int(task % rows) / (p.filter_height * p.filter_width),
                tap = int(task % rows) % (p.filter_height * p.filter_width);
      const int i = tap / p.filter_width, j = tap % p.filter_width;
      const T* source = sums + (group * rows + sum_row(c, i, j)) * filter_lanes;
      T* target = filters_grad.row(c, i, j) + group * p.filters;
      const T* rest = more ? more + (std::int64_t(c) * p.filter_height * p.filter_width + tap) * filters_grad.images + group * p.filters : nullptr;
      for (int f = 0; f < p.filters; ++f) {
        T sum = source[f];
        for (int part = 1; part < parts; ++part) sum += source[part * part_size + f];
        if (rest) sum += rest[f];
        filters_grad.store(target + f, sum);
      }
    });
  }
};

}  // namespace convnet

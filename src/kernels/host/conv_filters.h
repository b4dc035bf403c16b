// conv_backward_filters: the images of a pixel are what is summed over, filters are the lanes.
//   sums[i,j,c][f] += inputs (rows of images) * acts_grad (images, filters)
// A unit is some pixels of a row of acts for up to 128 images. Its acts_grad are transposed into
// panels (panel of filters, x, images, lanes), a row of its inputs is packed into a strip; then
// every tap is the product of runs in the strip with the panels, and its sums are touched once a
// unit. The strip is (tile of channels, u, images, channels of the tile), so that the pixels beside
// each other are one run. Where there are few channels, and taps are rows of a tile too, it is
// (chunk of 32 images, u, i, c, images).
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
  // Which taps are rows of one tile beside the channels. With few channels a tile would else be
  // nearly empty; the price is that taps on the padding are computed, from zeros.
  enum class Together { channels, across, window };
  static constexpr int run_length = 64;     // products of a segment in Order::columns
  static constexpr int most_segments = 32;  // of a tile: 8 pixels, 128 images

  ConvProblem p;
  Together together;
  int taps_down, taps_across;  // that are rows of one tile, beside each channel
  std::vector<Block> channel_blocks, filter_blocks, x_blocks;  // filter_blocks: of panels
  std::vector<LaneBlock> panels;                               // of all filters of a group
  int filter_lanes;                                            // of the panels
  int parts, units_per_part;
  int most_images;  // of a unit

  explicit FilterSums(const ConvProblem& problem) : p(problem) {
    const int window = p.filter_height * p.filter_width * p.channels;
    together = window <= 128                      ? Together::window
               : p.channels <= max_rows<T>(2) / 2 ? Together::across
                                                  : Together::channels;
    taps_down = together == Together::window ? p.filter_height : 1;
    taps_across = together == Together::channels ? 1 : p.filter_width;
    channel_blocks = equal_blocks(p.channels, together == Together::channels ? 128 : p.channels);
    most_images = std::min(128, p.images);
    panels = lane_blocks<T>(p.filters, 2);
    filter_lanes = whole_vectors<T>(p.filters);
    filter_blocks = equal_blocks(int(panels.size()), std::max(1, 256 / (2 * simd::lanes<T>)));
    // With more pixels a tile's sums are touched less often; the panels take half of a second-level
    // cache of 1 MiB.
    const int panel_bytes = filter_blocks.front().count * 2 * simd::vector_bytes * most_images;
    x_blocks = equal_blocks(p.acts_width, std::clamp((512 << 10) / panel_bytes, 4, 8));

    const int units = p.acts_height * int(x_blocks.size()) * int(ceil_div(p.images, most_images));
    const int tasks = p.groups * int(channel_blocks.size() * filter_blocks.size());
    units_per_part = std::max(int(ceil_div(units, ceil_div(16, tasks))),
                              int(ceil_div(64 * row_length, most_images * panel_x())));
    units_per_part = std::min(units_per_part, units);
    parts = int(ceil_div(units, units_per_part));
  }

  std::int64_t sum_rows() const {
    return std::int64_t(p.filter_height) * p.filter_width * p.channels;
  }
  // Sums are (parts, groups, rows in the order of the strip, lanes of the filters).
  std::int64_t sum_row(int c, int i, int j) const {
    if (together == Together::window)
      return (std::int64_t(j) * p.filter_height + i) * p.channels + c;
    return (std::int64_t(i) * p.filter_width + j) * p.channels + c;
  }

  // Of a strip: three tiles of channels, in a quarter of that cache.
  std::vector<Block> strip_channels(Block channels) const {
    if (together != Together::channels) return {channels};
    std::vector<Block> blocks;
    const auto tiles = equal_blocks(channels.count, max_rows<T>(2));
    for (const Block& some : equal_blocks(int(tiles.size()), 3)) {
      const Block &front = tiles[some.first], &back = tiles[some.first + some.count - 1];
      blocks.push_back({channels.first + front.first, back.first + back.count - front.first});
    }
    return blocks;
  }
  int most_channels() const {
    return std::min(channel_blocks.front().count,
                    together == Together::channels ? 3 * max_rows<T>(2) : p.channels);
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
    // Whole vectors are written at the end, too.
    constexpr int room = simd::lanes<T> * (max_rows<T>(2) + 2 * simd::lanes<T>);
    w.panels_size =
        std::int64_t(filter_blocks.front().count) * 2 * simd::lanes<T> * panel_x() * most_images +
        room;
    w.strip_size = std::int64_t(strip_x()) * most_channels() *
                       (together == Together::channels
                            ? most_images
                            : taps_down * ceil_div(most_images, row_length) * row_pitch) +
                   room;
    w.sums = workspace.take<T>(std::int64_t(parts) * p.groups * sum_rows() * filter_lanes);
    w.panels = workspace.take<T>(w.panels_size * threads);
    w.strip = workspace.take<T>(w.strip_size * threads);
    return w;
  }

  void run(Stream stream, In images_tensor, In acts_grad_tensor, Out filters_grad,
           void* memory) const {
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
    add_parts(stream, w.sums, images_of<T>(filters_grad));
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
          if (together == Together::channels)
            pack_columns(images, strip, group, strips[k], v, xs, unit_images);
          else
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
          for (int j = 0; j < p.filter_width; j += taps_across)
            sum_tap(strip, panel_memory, strips[k], filters, i, j, xs, unit_images.count, sums,
                    next_strip, next_panels);
        }
    }
  }

  // (filters, xs, images) -> (panels, xs, images, lanes)
  void pack_panels(const Images<const T>& acts_grad, T* target, int group, Block filters, int y,
                   Block xs, Block unit_images) const {
    const std::int64_t step = std::int64_t(acts_grad.height) * acts_grad.width * acts_grad.pitch;
    for (int i = filters.first; i < filters.first + filters.count; ++i) {
      const LaneBlock& panel = panels[i];
      const int lane_count = panel.vectors * simd::lanes<T>;
      for (int x = 0; x < xs.count; ++x, target += std::int64_t(unit_images.count) * lane_count)
        pack_transposed(
            target, lane_count,
            acts_grad.row(group * p.filters + panel.first, y, xs.first + x) + unit_images.first,
            step, panel.count, panel.count, unit_images.count, acts_grad.pitch);
    }
  }

  // (channels, pixels that the windows see, images) -> (tiles, pixels, images, channels of the
  // tile)
  void pack_columns(const Images<const T>& images, T* target, int group, Block channels, int v,
                    Block xs, Block unit_images) const {
    const int u0 = xs.first * p.stride - p.padding, u1 = u0 + strip_pixels(xs);
    const std::int64_t step = std::int64_t(images.height) * images.width * images.pitch;
    for (const Block& tile : equal_blocks(channels.count, max_rows<T>(2))) {
      const int c = group * p.channels + channels.first + tile.first;
      for (int u = u0; u < u1; ++u, target += std::int64_t(unit_images.count) * tile.count)
        if (u >= 0 && u < images.width)
          pack_transposed(target, tile.count, images.row(c, v, u) + unit_images.first, step,
                          tile.count, images.channels - c, unit_images.count, images.pitch);
    }
  }

  // (channels, pixels that the windows see, images) -> (chunks, pixels across, pixels down,
  // channels, images of the chunk)
  void pack_strip(const Images<const T>& images, T* target, int group, Block channels, int v,
                  Block xs, Block unit_images) const {
    const int u0 = xs.first * p.stride - p.padding, pixels = strip_pixels(xs);
    const std::int64_t chunk_size = std::int64_t(pixels) * taps_down * channels.count * row_pitch;
    for (int u = u0; u < u0 + pixels; ++u)
      for (int i = v; i < v + taps_down; ++i, target += channels.count * row_pitch) {
        const bool inside = u >= 0 && u < images.width && i >= 0 && i < images.height;
        for (int c = 0; c < channels.count; ++c)
          for (int n = 0; n < unit_images.count; n += row_length) {
            T* row = target + n / row_length * chunk_size + c * row_pitch;
            if (!inside) {
              std::memset(row, 0, sizeof(T) * row_length);
              continue;
            }
            const T* source =
                images.row(group * p.channels + channels.first + c, i, u) + unit_images.first + n;
            // The hardware does not foresee the next channel: 4 to 11 % of the op's time.
            for (int k = 0; k < row_length; k += 64 / int(sizeof(T)))
              __builtin_prefetch(source + 2 * images.pitch + k);
            copy_lanes(row, source, std::min(row_length, unit_images.count - n),
                       row_length / simd::lanes<T>);
          }
      }
  }
  int strip_pixels(Block xs) const { return (xs.count - 1) * p.stride + p.filter_width; }

  void sum_tap(const T* strip, const T* panel, Block channels, Block filters, int i, int j,
               Block xs, int count, T* sums, Ahead<T>& next_strip, Ahead<T>& next_panels) const {
    // Taps on the padding: left out where the rows of a tile share a tap, zeros in the strip where
    // not.
    int x0 = xs.first, x1 = xs.first + xs.count;
    if (together == Together::channels) {
      x0 = std::max(x0, int(ceil_div(std::max(0, p.padding - j), p.stride)));
      x1 = std::min(x1, int(ceil_div(std::max(0, p.width + p.padding - j), p.stride)));
    }
    if (x1 <= x0) return;
    const bool columns = together == Together::channels;
    const std::int64_t pixel_rows = taps_down * channels.count,
                       chunk_rows = strip_pixels(xs) * pixel_rows;
    T* target = sums + sum_row(channels.first, i, j) * filter_lanes;
    Segment<T> segments[most_segments];
    std::int64_t row_offsets[16];
    for (int k = 0; k < 16; ++k) row_offsets[k] = std::int64_t(k) * filter_lanes;
    for (const Block& block : equal_blocks(int(taps_across * pixel_rows), max_rows<T>(2))) {
      const T* b = panel;
      for (int k = filters.first; k < filters.first + filters.count; ++k) {
        const int lane_count = panels[k].vectors * simd::lanes<T>;
        int runs = 0;
        if (columns) {
          // Beside each other the pixels are one run, cut where something is to be fetched.
          const int pixels = p.stride == 1 ? x1 - x0 : 1;
          const T* tile = strip + std::int64_t(strip_pixels(xs)) * count * block.first;
          for (int x = x0 - xs.first; x < x1 - xs.first; x += pixels)
            for (int n = 0; n < pixels * count; n += run_length)
              segments[runs++] = {tile + (std::int64_t(x * p.stride + j) * count + n) * block.count,
                                  b + (std::int64_t(x) * count + n) * lane_count,
                                  std::min(run_length, pixels * count - n)};
        } else {
          for (int n = 0; n < count; n += row_length)
            for (int x = x0 - xs.first; x < x1 - xs.first; ++x)
              segments[runs++] = {strip + (n / row_length * chunk_rows +
                                           (x * p.stride + j) * pixel_rows + block.first) *
                                              row_pitch,
                                  b + (std::int64_t(x) * count + n) * lane_count,
                                  std::min(row_length, count - n)};
        }
        for (int r = 0; r < runs; ++r)
          next_strip.fetch(segments[r]) || next_panels.fetch(segments[r]);
        (columns ? columns_kernel<T> : rows_kernel<T>)(block.count, panels[k].vectors)(
            segments, runs,
            {target + block.first * filter_lanes + panels[k].first, row_offsets, nullptr, true,
             false});
        b += std::int64_t(xs.count) * count * lane_count;
      }
    }
  }

  void add_parts(Stream stream, const T* sums, const Images<T>& filters_grad) const {
    const std::int64_t rows = sum_rows(), part_size = p.groups * rows * filter_lanes;
    parallel_for(stream, rows * p.groups, [&](std::int64_t task, int) {
      const int group = int(task / rows);
      const int c = int(task % rows) / (p.filter_height * p.filter_width),
                tap = int(task % rows) % (p.filter_height * p.filter_width);
      const int i = tap / p.filter_width, j = tap % p.filter_width;
      const T* source = sums + (group * rows + sum_row(c, i, j)) * filter_lanes;
      T* target = filters_grad.row(c, i, j) + group * p.filters;
      for (int f = 0; f < p.filters; ++f) {
        T sum = source[f];
        for (int part = 1; part < parts; ++part) sum += source[part * part_size + f];
        filters_grad.store(target + f, sum);
      }
    });
  }
};

}  // namespace convnet

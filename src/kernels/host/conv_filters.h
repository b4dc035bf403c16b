// conv_backward_filters: the images of a pixel are what is summed over, filters are the lanes.
//   sums[i,j,c][f] += inputs (rows of images) * acts_grad (images, filters)
// A unit is some pixels of a row of acts for up to 128 images, in chunks of 32. Its acts_grad are
// transposed into panels (panel of filters, chunk, x, images, lanes), its inputs copied into a
// strip (chunk, u, c, images); then every tap is the product of runs in the strip with the panels,
// and its sums are touched once a unit.
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
  static constexpr int most_segments = 32;  // pixels times chunks of a unit

  ConvProblem p;
  Together together;
  int taps_down, taps_across;  // that are rows of one tile, beside each channel
  std::vector<Block> channel_blocks, filter_blocks, x_blocks;  // filter_blocks: of panels
  std::vector<LaneBlock> panels;                               // of all filters of a group
  int filter_lanes;                                            // of the panels
  int parts, units_per_part;
  int chunks;  // of row_length images, in a unit

  explicit FilterSums(const ConvProblem& problem) : p(problem) {
    const int window = p.filter_height * p.filter_width * p.channels;
    together = window <= 128                      ? Together::window
               : p.channels <= max_rows<T>(2) / 2 ? Together::across
                                                  : Together::channels;
    taps_down = together == Together::window ? p.filter_height : 1;
    taps_across = together == Together::channels ? 1 : p.filter_width;
    channel_blocks = equal_blocks(p.channels, together == Together::channels ? 128 : p.channels);
    // Few pixels of many images, rather than many pixels of few: their rows are read to the end,
    // which the hardware foresees.
    chunks = std::min(4, int(ceil_div(p.images, row_length)));
    x_blocks = equal_blocks(p.acts_width, most_segments / chunks);
    panels = lane_blocks<T>(p.filters, 2);
    filter_lanes = whole_vectors<T>(p.filters);
    filter_blocks = equal_blocks(int(panels.size()), std::max(1, 128 / (2 * simd::lanes<T>)));

    const int units =
        p.acts_height * int(x_blocks.size()) * int(ceil_div(p.images, chunks * row_length));
    const int tasks = p.groups * int(channel_blocks.size() * filter_blocks.size());
    units_per_part =
        std::max(int(ceil_div(units, ceil_div(16, tasks))), int(ceil_div(64, chunks * panel_x())));
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

  // Of a strip: 32 channels x 9 pixels and 128 filters x 7 pixels, of 128 images, share a
  // second-level cache of 1 MiB with the sums.
  std::vector<Block> strip_channels(Block channels) const {
    auto blocks = equal_blocks(channels.count, together == Together::channels ? 32 : p.channels);
    for (Block& block : blocks) block.first += channels.first;
    return blocks;
  }
  int most_channels() const { return strip_channels(channel_blocks.front()).front().count; }
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
    const int images = whole_vectors<T>(row_length);
    w.panels_size = std::int64_t(filter_blocks.front().count) * chunks * panel_x() * images * 2 *
                    simd::lanes<T>;
    w.strip_size = std::int64_t(chunks) * strip_x() * taps_down * most_channels() * row_pitch;
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
    const int units = rows_of_acts * int(ceil_div(p.images, chunks * row_length));
    const int last = std::min(units, (part + 1) * units_per_part);
    for (int unit = part * units_per_part; unit < last; ++unit) {
      const Block xs = x_blocks[unit % x_blocks.size()];
      const int y = unit % rows_of_acts / int(x_blocks.size()),
                first_image = unit / rows_of_acts * chunks * row_length;
      const Block unit_images{first_image, std::min(chunks * row_length, p.images - first_image)};
      pack_panels(acts_grad, panel_memory, group, filters, y, xs, unit_images);
      for (const Block& block : strip_channels(channels))
        for (int i = 0; i < p.filter_height; i += taps_down) {
          const int v = y * p.stride - p.padding + i;
          if (taps_down == 1 && (v < 0 || v >= p.height)) continue;
          pack_strip(images, strip, group, block, v, xs, unit_images);
          for (int j = 0; j < p.filter_width; j += taps_across)
            sum_tap(strip, panel_memory, block, filters, i, j, xs, unit_images.count, sums);
        }
    }
  }

  // (filters, xs, images) -> (panels, chunks, xs, images of the chunk, lanes)
  void pack_panels(const Images<const T>& acts_grad, T* target, int group, Block filters, int y,
                   Block xs, Block unit_images) const {
    const std::int64_t step = std::int64_t(acts_grad.height) * acts_grad.width * acts_grad.pitch;
    for (int i = filters.first; i < filters.first + filters.count; ++i) {
      const LaneBlock& panel = panels[i];
      const std::int64_t pixel_size = panel_pixel(panel), chunk_size = pixel_size * xs.count;
      for (int x = 0; x < xs.count; ++x)
        for (int n = 0; n < unit_images.count; n += row_length)
          pack_transposed(target + n / row_length * chunk_size + x * pixel_size,
                          acts_grad.row(group * p.filters + panel.first, y, xs.first + x) +
                              unit_images.first + n,
                          step, panel.count, std::min(row_length, unit_images.count - n),
                          panel.vectors, acts_grad.pitch);
      target += chunks * chunk_size;
    }
  }
  static std::int64_t panel_pixel(const LaneBlock& panel) {
    return std::int64_t(whole_vectors<T>(row_length)) * panel.vectors * simd::lanes<T>;
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
        if (!inside && together == Together::channels) continue;
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
               Block xs, int count, T* sums) const {
    // Taps on the padding: left out where the rows of a tile share a tap, zeros in the strip where
    // not.
    int x0 = xs.first, x1 = xs.first + xs.count;
    if (together == Together::channels) {
      x0 = std::max(x0, int(ceil_div(std::max(0, p.padding - j), p.stride)));
      x1 = std::min(x1, int(ceil_div(std::max(0, p.width + p.padding - j), p.stride)));
    }
    if (x1 <= x0) return;
    const std::int64_t pixel_rows = taps_down * channels.count,
                       chunk_rows = strip_pixels(xs) * pixel_rows;
    T* target = sums + sum_row(channels.first, i, j) * filter_lanes;
    Segment<T> segments[most_segments];
    std::int64_t row_offsets[16];
    for (int k = 0; k < 16; ++k) row_offsets[k] = std::int64_t(k) * filter_lanes;
    for (const Block& block : equal_blocks(int(taps_across * pixel_rows), max_rows<T>(2))) {
      const T* b = panel;
      for (int k = filters.first; k < filters.first + filters.count; ++k) {
        const std::int64_t pixel_size = panel_pixel(panels[k]);
        int runs = 0;
        for (int n = 0; n < count; n += row_length)
          for (int x = x0 - xs.first; x < x1 - xs.first; ++x)
            segments[runs++] = {strip + (n / row_length * chunk_rows +
                                         (x * p.stride + j) * pixel_rows + block.first) *
                                            row_pitch,
                                b + (n / row_length * xs.count + x) * pixel_size,
                                std::min(row_length, count - n), nullptr};
        rows_kernel<T>(block.count, panels[k].vectors)(
            segments, runs,
            {target + block.first * filter_lanes + panels[k].first, row_offsets, nullptr, true,
             false});
        b += chunks * xs.count * pixel_size;
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

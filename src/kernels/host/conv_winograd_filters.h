// conv_backward_filters with fewer multiplications: the transpose of conv_winograd.h.
//   sums[k,i,c][f] += inputs at point k (rows of images) * acts_grad at point k (images, filters)
//   filters_grad[i,j] = sum over k of filters[k,j] * sums[k,i]
// A unit is a tile of pixels across, some rows of acts and 32 images. Its acts_grad are transposed
// and brought to the eight points, (points, rows, panels, images, lanes), its inputs too, (points,
// rows, channels, images), some channels at a time. Parts are as in conv_filters.h.
#pragma once
#include <optional>

#include "conv_filters.h"
#include "conv_winograd.h"

namespace convnet {

template <class T>
struct WinogradFilterSums {
  static constexpr int points = winograd::points;
  ConvProblem p;
  int taps, tiles, tile_acts;
  std::vector<Block> channel_blocks, filter_blocks, y_blocks;  // filter_blocks: of panels
  std::vector<LaneBlock> panels;                               // of all filters of a group
  int filter_lanes;                                            // of the panels
  int units, parts, units_per_part;
  std::optional<FilterSums<T>> rest;  // of the columns of acts that no tile has

  explicit WinogradFilterSums(const ConvProblem& problem)
      : p(problem),
        taps(p.filter_width),
        tiles(winograd::tiles_across(p.acts_width, taps)),
        tile_acts(points + 1 - taps) {
    if (tiles * tile_acts < p.acts_width) rest.emplace(problem, tiles * tile_acts);
    // 48 channels and 128 filters of 7 rows are about 1 MiB.
    y_blocks = equal_blocks(p.acts_height, 7);
    channel_blocks = equal_blocks(p.channels, 128);
    panels = lane_blocks<T>(p.filters, 2);
    filter_lanes = whole_vectors<T>(p.filters);
    filter_blocks = equal_blocks(int(panels.size()), std::max(1, 128 / (2 * simd::lanes<T>)));
    units = int(ceil_div(p.images, row_length) * y_blocks.size() * tiles);
    const int tasks = p.groups * int(channel_blocks.size() * filter_blocks.size());
    units_per_part = int(ceil_div(units, ceil_div(16, tasks)));
    parts = int(ceil_div(units, units_per_part));
  }

  std::vector<Block> strip_channels(Block channels) const {
    auto blocks = equal_blocks(channels.count, 48);
    for (Block& block : blocks) block.first += channels.first;
    return blocks;
  }
  std::vector<Block> tile_channels(Block channels) const {
    auto blocks = equal_blocks(channels.count, max_rows<T>(2));
    for (Block& block : blocks) block.first += channels.first;
    return blocks;
  }
  int most_channels() const { return strip_channels(channel_blocks.front()).front().count; }
  int strip_rows() const { return y_blocks.front().count + p.filter_height - 1; }
  // Distances of two points: they are written together, and would share a few sets of the caches.
  static constexpr std::int64_t gap = 5 * 64 / sizeof(T);
  std::int64_t strip_point(int channels) const {
    return std::int64_t(strip_rows()) * channels * row_pitch + gap;
  }
  std::int64_t panel_point(Block filters) const {
    return y_blocks.front().count * panel_place(filters, filters.first + filters.count) + gap;
  }
  static std::int64_t panel_pixel(const LaneBlock& panel) {
    return std::int64_t(row_length) * panel.vectors * simd::lanes<T>;
  }
  // Where the panel of a block begins in a row of pixels of it.
  std::int64_t panel_place(Block filters, int panel) const {
    std::int64_t place = 0;
    for (int i = filters.first; i < panel; ++i) place += panel_pixel(panels[i]);
    return place;
  }

  struct Workspace {
    T *sums, *filters_grad, *panels, *strip, *pixels;  // the last three of a thread
    std::int64_t panels_size, strip_size, pixels_size;
    void* rest;
  };
  Workspace divide(WorkspaceParts& workspace, int threads) const {
    Workspace w;
    w.panels_size = points * panel_point(filter_blocks.front());
    w.strip_size = points * strip_point(most_channels());
    w.pixels_size = tile_acts * panel_pixel(panels.front());
    w.sums = workspace.take<T>(parts * p.groups * sums_size());
    w.panels = workspace.take<T>(w.panels_size * threads);
    w.strip = workspace.take<T>(w.strip_size * threads);
    w.pixels = workspace.take<T>(w.pixels_size * threads);
    w.filters_grad = rest ? workspace.take<T>(filters_size()) : nullptr;
    if (rest) {
      WorkspaceParts counted(nullptr);
      rest->divide(counted, threads);
      w.rest = workspace.take<char>(counted.bytes());
    }
    return w;
  }
  std::int64_t filters_size() const {
    return std::int64_t(p.channels) * p.filter_height * taps * p.filters * p.groups;
  }
  std::int64_t sums_size() const {
    return std::int64_t(points) * p.filter_height * p.channels * filter_lanes;
  }
  // Sums are (parts, groups, points, taps down, tiles of channels, panels, channels, lanes).
  std::int64_t sums_offset(int part, int group, int k, int i, Block channels,
                           const LaneBlock& panel) const {
    return (((std::int64_t(part) * p.groups + group) * points + k) * p.filter_height + i) *
               p.channels * filter_lanes +
           std::int64_t(channels.first) * filter_lanes + std::int64_t(channels.count) * panel.first;
  }

  void run(Stream stream, In images_tensor, In acts_grad_tensor, Out filters_grad,
           void* memory) const {
    WorkspaceParts workspace(memory);
    const Workspace w = divide(workspace, thread_count(stream));
    const auto images = images_of<T>(images_tensor), acts_grad = images_of<T>(acts_grad_tensor);
    Images<T> target = images_of<T>(filters_grad);
    if (rest)
      target = {w.filters_grad, target.channels, target.height, target.width,
                target.images,  target.images,   false};
    winograd::with_taps(taps, [&](auto taps) {
      const std::int64_t blocks = std::int64_t(channel_blocks.size()) * filter_blocks.size();
      parallel_for(stream, parts * p.groups * blocks, [&](std::int64_t task, int thread) {
        const Block filters = filter_blocks[task % filter_blocks.size()];
        const Block channels = channel_blocks[task % blocks / filter_blocks.size()];
        sum_part<taps>(images, acts_grad, int(task / blocks / p.groups),
                       int(task / blocks % p.groups), channels, filters, w.sums,
                       w.panels + w.panels_size * thread, w.strip + w.strip_size * thread,
                       w.pixels + w.pixels_size * thread);
      });
      finish<taps>(stream, w.sums, target);
    });
    if (rest)
      rest->run(stream, images_tensor, acts_grad_tensor, filters_grad, w.rest, w.filters_grad);
  }

  template <int taps>
  void sum_part(const Images<const T>& images, const Images<const T>& acts_grad, int part,
                int group, Block channels, Block filters, T* sums, T* panel_memory, T* strip,
                T* pixels) const {
    const int last = std::min(units, (part + 1) * units_per_part);
    for (int unit = part * units_per_part; unit < last; ++unit) {
      const int tile = unit % tiles;
      const Block ys = y_blocks[unit / tiles % y_blocks.size()];
      const int first_image = unit / tiles / int(y_blocks.size()) * row_length;
      const Block unit_images{first_image, std::min(row_length, p.images - first_image)};
      pack_panels<taps>(acts_grad, panel_memory, pixels, group, filters, ys, tile, unit_images);
      for (const Block& block : strip_channels(channels)) {
        pack_strip(images, strip, group, block, ys, tile, unit_images);
        const bool first = unit == part * units_per_part;
        for (int k = 0; k < points; ++k)
          for (int i = 0; i < p.filter_height; ++i)
            for (const Block& rows : tile_channels(block))
              multiply_tiles(strip + k * strip_point(block.count),
                             panel_memory + k * panel_point(filters), block, rows, filters, ys, i,
                             unit_images.count, first, sums, part, group, k);
      }
    }
  }

  // The rows of pixels that the windows of some rows of acts see.
  Block seen(Block ys) const {
    const int first = std::max(0, ys.first - p.padding);
    return {first,
            std::max(0, std::min(p.height, ys.first + ys.count - p.padding + p.filter_height - 1) -
                            first)};
  }

  void multiply_tiles(const T* strip, const T* panel_memory, Block block, Block rows, Block filters,
                      Block ys, int i, int images, bool first, T* sums, int part, int group,
                      int k) const {
    const int top = seen(ys).first;
    Segment<T> segments[7];
    const std::int64_t pixel = panel_place(filters, filters.first + filters.count);
    for (int f = filters.first; f < filters.first + filters.count; ++f) {
      int runs = 0;
      for (int y = ys.first; y < ys.first + ys.count; ++y) {
        const int v = y - p.padding + i;
        if (v >= 0 && v < p.height)
          segments[runs++] = {
              strip + (std::int64_t(v - top) * block.count + rows.first - block.first) * row_pitch,
              panel_memory + (y - ys.first) * pixel + panel_place(filters, f), images, nullptr, 0};
      }
      T* tile = sums + sums_offset(part, group, k, i, rows, panels[f]);
      rows_kernel<T>(rows.count, panels[f].vectors)(
          segments, runs, {tile, nullptr, first ? nullptr : tile, false, false});
    }
  }

  template <int taps>
  void pack_panels(const Images<const T>& acts_grad, T* target, T* pixels, int group, Block filters,
                   Block ys, int tile, Block unit_images) const {
    using namespace simd;
    constexpr int m = points + 1 - taps;
    const std::int64_t point_step = panel_point(filters);
    for (int y = ys.first; y < ys.first + ys.count; ++y)
      for (int f = filters.first; f < filters.first + filters.count; ++f) {
        const LaneBlock& panel = panels[f];
        const std::int64_t pixel_size = panel_pixel(panel);
        for (int x = 0; x < m; ++x) {
          if (tile * m + x < acts_grad.width)
            pack_transposed(pixels + x * pixel_size, panel.vectors * lanes<T>, panel.count,
                            unit_images.count, acts_grad.pitch, [&](int i) {
                              return acts_grad.row(group * p.filters + panel.first + i, y,
                                                   tile * m + x) +
                                     unit_images.first;
                            });
          else
            std::memset(pixels + x * pixel_size, 0, sizeof(T) * pixel_size);
        }
        const std::int64_t count = std::int64_t(unit_images.count) * panel.vectors * lanes<T>;
        for (std::int64_t n = 0; n < count; n += lanes<T>) {
          Vector<T> pixel[m], value[points];
#pragma GCC unroll 8
          for (int x = 0; x < m; ++x) pixel[x] = load(pixels + x * pixel_size + n);
          winograd::apply<T, winograd::outputs<taps>, points, m>(pixel, value);
#pragma GCC unroll 8
          for (int k = 0; k < points; ++k) store(target + k * point_step + n, value[k]);
        }
        target += pixel_size;
      }
  }

  void pack_strip(const Images<const T>& images, T* target, int group, Block channels, Block ys,
                  int tile, Block unit_images) const {
    using namespace simd;
    const Block rows = seen(ys);
    const std::int64_t step = std::int64_t(images.height) * images.width * images.pitch,
                       point_step = strip_point(channels.count);
    const int x0 = tile * tile_acts - p.padding;
    for (int v = rows.first; v < rows.first + rows.count; ++v) {
      const T* row = images.row(group * p.channels + channels.first, v, 0) + unit_images.first;
      for (int c = 0; c < channels.count; ++c, row += step, target += row_pitch)
        winograd::pack_row<T>(target, point_step, row, step, images.pitch, x0, images.width,
                              unit_images.count, row_length / lanes<T>);
    }
  }

  template <int taps>
  void finish(Stream stream, const T* sums, const Images<T>& filters_grad) const {
    parallel_for(stream, std::int64_t(p.groups) * p.channels, [&](std::int64_t task, int) {
      const int group = int(task / p.channels), c = int(task % p.channels);
      for (const Block& block : channel_blocks) {
        if (c < block.first || c >= block.first + block.count) continue;
        for (const Block& strip : strip_channels(block))
          for (const Block& rows : tile_channels(strip))
            if (c >= rows.first && c < rows.first + rows.count)
              for (int i = 0; i < p.filter_height; ++i)
                finish_row<taps>(sums, filters_grad, group, c, i, rows);
      }
    });
  }

  template <int taps>
  void finish_row(const T* sums, const Images<T>& filters_grad, int group, int c, int i,
                  Block rows) const {
    using namespace simd;
    for (const LaneBlock& panel : panels)
      for (int v = 0; v < panel.vectors; ++v) {
        Vector<T> sum[points], tap[taps];
        for (int k = 0; k < points; ++k) {
          const std::int64_t place = sums_offset(0, group, k, i, rows, panel) +
                                     (std::int64_t(c - rows.first) * panel.vectors + v) * lanes<T>;
          sum[k] = load(sums + place);
          for (int part = 1; part < parts; ++part)
            sum[k] += load(sums + place + part * p.groups * sums_size());
        }
        winograd::apply<T, winograd::filters<taps>, taps, points, true>(sum, tap);
        const int count = std::min(lanes<T>, panel.count - v * lanes<T>);
        for (int j = 0; j < taps; ++j)
          for (int n = 0; n < count; ++n)
            filters_grad.store(
                filters_grad.row(c, i, j) + group * p.filters + panel.first + v * lanes<T> + n,
                tap[j][n]);
      }
  }
};

}  // namespace convnet

// conv_forward and conv_backward_data are one computation: every output pixel gathers a window of
// inputs.
//   outputs[o,y,x,n] = sum over the window's pixels v,u and r of inputs[r,v,u,n] * weights[r,v -
//   y..,u - x..,o]
// Forward, r are channels and o filters. Backward, r are filters and o channels, the taps are
// mirrored, and an image pixel sees every stride-th tap only: which ones is its phase.
//
// A task computes some output pixels of a lane block of images, row by row. It copies the inputs of
// a block of r into a strip (v, u, r, lanes), where the window of any pixel is a few contiguous
// runs, and which is a ring of rows v: from one row of outputs to the next few are new; weights are
// packed once as (block of r, phase, block of o, taps, r, o), in the order in which the inner loop
// reads them.
#pragma once
#include <cstring>

#include "../conv_problem.h"
#include "parallel.h"
#include "tiles.h"

namespace convnet {

// One of the two dimensions of the images.
struct GatherAxis {
  struct Window {
    int first, taps;    // inputs first to first + taps - 1, of which those that exist are gathered
    int phase, output;  // which weights; the output pixel, or the first of `members`
  };
  int inputs, outputs, filter_size, stride;
  int members = 1;        // output pixels that are computed as if they were filters
  std::vector<int> taps;  // of a phase
  std::vector<Window> windows;
  bool backward;

  // Index into the filter of tap j of a phase; filter_size or more: none.
  int tap(int phase, int member, int j) const {
    return backward ? phase + member + stride * (taps[phase] - 1 - j) : j;
  }
};

inline GatherAxis forward_axis(int image_size, int acts_size, int filter_size, int stride,
                               int padding) {
  GatherAxis axis{image_size, acts_size, filter_size, stride, 1, {filter_size}, {}, false};
  for (int y = 0; y < acts_size; ++y)
    axis.windows.push_back({y * stride - padding, filter_size, 0, y});
  return axis;
}

// `merge`: the `stride` image pixels that see the same acts are computed together, all with the
// taps of the first; where a filter has no such tap its weight is zero.
inline GatherAxis backward_axis(int image_size, int acts_size, int filter_size, int stride,
                                int padding, bool merge) {
  GatherAxis axis{acts_size, image_size, filter_size, stride, merge ? stride : 1, {}, {}, true};
  for (int phase = 0; phase < (merge ? 1 : stride); ++phase)
    axis.taps.push_back(phase < filter_size ? int(ceil_div(filter_size - phase, stride)) : 0);
  for (int v = merge ? -(padding % stride) : 0; v < image_size; v += axis.members) {
    const int phase = (v + padding) % stride, taps = axis.taps[phase];
    axis.windows.push_back({(v + padding) / stride - taps + 1, taps, phase, v});
  }
  return axis;
}

template <class T>
struct Gather {
  int images, groups, outputs, inputs;  // outputs and inputs: filters and channels of one group
  GatherAxis y_axis, x_axis;
  int rows;  // of all tiles: outputs * members of x_axis
  std::vector<Block> row_blocks, input_blocks, y_blocks, x_blocks;
  std::vector<LaneBlock> lane_blocks;
  std::vector<int>
      phase_taps;  // taps of the phases before (y phase, x phase), and of all at the end
  int strip_rows, strip_columns, block_pixels;
  int widest;

  // `first_column`: of the outputs; those before it are left alone.
  Gather(const ConvProblem& p, bool backward, int threads, int first_column = 0)
      : images(p.images),
        groups(p.groups),
        outputs(backward ? p.channels : p.filters),
        inputs(backward ? p.filters : p.channels) {
    // Few channels would leave the registers empty: for the 3 channels of conv1, at stride 4, 12
    // rows instead of 3 are 1.2 times as fast, although 1 tap in 12 is zero.
    const bool merge = backward && p.stride > 1 && outputs <= max_rows<T>(2) / 2;
    if (backward) {
      y_axis = backward_axis(p.height, p.acts_height, p.filter_height, p.stride, p.padding, false);
      x_axis = backward_axis(p.width, p.acts_width, p.filter_width, p.stride, p.padding, merge);
    } else {
      y_axis = forward_axis(p.height, p.acts_height, p.filter_height, p.stride, p.padding);
      x_axis = forward_axis(p.width, p.acts_width, p.filter_width, p.stride, p.padding);
    }
    if (first_column > 0)
      std::erase_if(x_axis.windows, [&](const auto& w) { return w.output < first_column; });
    rows = outputs * x_axis.members;
    widest = widest_tile<T>(rows, images);
    row_blocks = equal_blocks(rows, max_rows<T>(widest));
    lane_blocks = convnet::lane_blocks<T>(images, widest);

    phase_taps = {0};
    int most_taps = 1;
    for (int a : y_axis.taps)
      for (int b : x_axis.taps) {
        phase_taps.push_back(phase_taps.back() + a * b);
        most_taps = std::max(most_taps, a * b);
      }
    // Long sums make a tile's own cost small. At conv2 to conv5, against half as many products, 640
    // of AVX-512 save 1 to 2 % of the op and 1,280 of AVX2 4 %; twice as many save no more.
    constexpr int run_bytes = 80 << 10;
    const int most_products = run_bytes / (widest * simd::vector_bytes);
    const int most = std::max(1, (most_products + most_taps / 2) / most_taps);
    input_blocks = equal_blocks(inputs, most);

    // A strip is what is read at every product of a tile: half a second-level cache of 1 MiB.
    constexpr int strip_bytes = 512 << 10;
    const int width_bytes = widest * simd::vector_bytes;
    strip_rows = std::max(1, tallest(y_axis, 1));
    x_blocks = blocks_with(x_axis, strip_bytes / (width_bytes * most_inputs() * strip_rows));
    strip_columns = widest_block(x_axis, x_blocks);

    // Tall blocks copy few rows twice; but the sums of a block wait in a cache for the next inputs,
    // and every thread wants some blocks.
    constexpr int partial_bytes = 2 << 20;
    const std::int64_t others = std::int64_t(groups) * lane_blocks.size() * x_blocks.size();
    const int windows = int(y_axis.windows.size());
    int height = int(ceil_div(windows, ceil_div(4 * threads, others)));
    if (input_blocks.size() > 1)
      height = std::min<std::int64_t>(
          height, partial_bytes / (std::int64_t(width_bytes) * rows * largest(x_blocks)));
    y_blocks = equal_blocks(windows, std::max(1, height));
    block_pixels = largest(y_blocks) * largest(x_blocks);
  }

  static int largest(const std::vector<Block>& blocks) {
    int count = 0;
    for (const Block& block : blocks) count = std::max(count, block.count);
    return count;
  }
  int most_inputs() const { return std::max(1, largest(input_blocks)); }

  // The inputs that the windows of a block see, as first and count.
  static Block seen(const GatherAxis& axis, Block windows) {
    int first = axis.inputs, last = 0;
    for (int i = windows.first; i < windows.first + windows.count; ++i) {
      first = std::min(first, std::max(0, axis.windows[i].first));
      last = std::max(last, std::min(axis.inputs, axis.windows[i].first + axis.windows[i].taps));
    }
    return {first, std::max(0, last - first)};
  }
  static int widest_block(const GatherAxis& axis, const std::vector<Block>& blocks) {
    int count = 0;
    for (const Block& block : blocks) count = std::max(count, seen(axis, block).count);
    return count;
  }
  static int tallest(const GatherAxis& axis, int windows) {
    return widest_block(axis, equal_blocks(int(axis.windows.size()), windows));
  }
  // The largest blocks of windows that see at most `inputs` inputs, if one window sees no more.
  static std::vector<Block> blocks_with(const GatherAxis& axis, int inputs) {
    int most = int(axis.windows.size());
    while (most > 1 && tallest(axis, most) > inputs) --most;
    return equal_blocks(int(axis.windows.size()), std::max(1, most));
  }

  struct Workspace {
    T* weights;
    T* strip;    // of a thread
    T* partial;  // sums of the blocks of inputs before, (pixels of a task, rows, lanes), of a
                 // thread
    std::int64_t strip_size, partial_size;
  };
  Workspace divide(WorkspaceParts& parts, int threads) const {
    Workspace w;
    w.weights = parts.take<T>(std::int64_t(groups) * rows * inputs * phase_taps.back());
    const std::int64_t width = widest * simd::lanes<T>;
    w.strip_size = std::int64_t(strip_rows) * strip_columns * width * most_inputs();
    w.partial_size = input_blocks.size() > 1 ? block_pixels * width * rows : 0;
    w.strip = parts.take<T>(w.strip_size * threads);
    w.partial = parts.take<T>(w.partial_size * threads);
    return w;
  }

  // Where the weights of a block of inputs begin; those of a phase and a block of rows follow in
  // it.
  std::int64_t weights_offset(int group, Block in) const {
    return (std::int64_t(group) * inputs + in.first) * rows * phase_taps.back();
  }

  // (channels, filter height, filter width, filters) -> the order above.
  void pack_weights(Stream stream, const Images<const T>& filters, T* weights) const {
    parallel_for(
        stream, std::int64_t(groups) * input_blocks.size() * row_blocks.size(),
        [&](std::int64_t task, int) {
          const Block block = row_blocks[task % row_blocks.size()];
          const Block in = input_blocks[task / row_blocks.size() % input_blocks.size()];
          const int group = int(task / (row_blocks.size() * input_blocks.size()));
          for (int a = 0; a < int(y_axis.taps.size()); ++a)
            for (int b = 0; b < int(x_axis.taps.size()); ++b) {
              const int first_tap = phase_taps[a * x_axis.taps.size() + b],
                        taps = y_axis.taps[a] * x_axis.taps[b];
              T* target =
                  weights + weights_offset(group, in) +
                  (std::int64_t(first_tap) * rows + std::int64_t(taps) * block.first) * in.count;
              for (int ty = 0; ty < y_axis.taps[a]; ++ty)
                for (int tx = 0; tx < x_axis.taps[b]; ++tx, target += in.count * block.count)
                  pack_tap(filters, target, group, in, block, a, b, ty, tx);
            }
        });
  }

  void pack_tap(const Images<const T>& filters, T* target, int group, Block in, Block block, int a,
                int b, int ty, int tx) const {
    const int i = y_axis.tap(a, 0, ty);
    for (int row = 0; row < block.count; ++row) {
      const int o = (block.first + row) / x_axis.members,
                member = (block.first + row) % x_axis.members;
      const int j = x_axis.tap(b, member, tx);
      const bool backward = x_axis.backward;
      if (j >= x_axis.filter_size) {
        for (int r = 0; r < in.count; ++r) target[r * block.count + row] = 0;
        continue;
      }
      const int first_filter = group * (backward ? inputs : outputs);
      const T* source = backward ? filters.row(o, i, j) + first_filter + in.first
                                 : filters.row(in.first, i, j) + first_filter + o;
      const std::int64_t step = backward ? 1 : filters.row(1, 0, 0) - filters.row(0, 0, 0);
      for (int r = 0; r < in.count; ++r) target[r * block.count + row] = source[r * step];
    }
  }

  // (in, pixels of a row, lanes) -> (pixels, in, lanes)
  void pack_row(const Images<const T>& source, T* strip, int first_input, int inputs,
                LaneBlock lane, int y, Block xs) const {
    const int width = lane.vectors * simd::lanes<T>;
    const std::int64_t step = std::int64_t(source.height) * source.width * source.pitch;
    // Channels are too far apart for the hardware to foresee: two pixels ahead is up to 7 % less
    // time (conv1). Pixel by pixel: the other way, rows one after the other along x, writes the
    // strip at distances that share a few sets of the cache, and took 5 to 25 % more of the op's
    // time.
    for (int x = xs.first; x < xs.first + xs.count; ++x) {
      const T* row = source.row(first_input, y, x) + lane.first;
      for (int r = 0; r < inputs; ++r, strip += width, row += step) {
        for (int i = 0; i < width; i += 64 / int(sizeof(T)))
          __builtin_prefetch(row + 2 * source.pitch + i);
        if (lane.count == width && lane.vectors == 2)
          copy_lanes(strip, row, width, 2);  // without a loop
        else
          copy_lanes(strip, row, lane.count, lane.vectors);
      }
    }
  }

  // The rows of inputs that a window sees and that are not packed yet, if all before `packed` are.
  Block unpacked(const GatherAxis::Window& window, int packed) const {
    const int first = std::max(packed, window.first);
    return {first, std::max(0, std::min(y_axis.inputs, window.first + window.taps) - first)};
  }

  void run(Stream stream, In inputs_tensor, In filters_tensor, Out outputs_tensor, void* workspace,
           const Epilogue<T>& epilogue = {}) const {
    WorkspaceParts parts(workspace);
    const Workspace w = divide(parts, thread_count(stream));
    const auto source = images_of<T>(inputs_tensor);
    const auto target = images_of<T>(outputs_tensor);
    pack_weights(stream, images_of<T>(filters_tensor), w.weights);

    std::vector<std::int64_t> row_offsets(
        rows);  // of a tile's rows, from output 0 of the first member
    for (int i = 0; i < rows; ++i)
      row_offsets[i] =
          (std::int64_t(i / x_axis.members) * target.height * target.width + i % x_axis.members) *
          target.pitch;
    const bool streams = should_stream<T>(outputs_tensor);
    const std::int64_t tasks =
        std::int64_t(groups) * lane_blocks.size() * y_blocks.size() * x_blocks.size();
    parallel_for(stream, tasks, [&](std::int64_t task, int thread) {
      const Block xs = x_blocks[task % x_blocks.size()];
      task /= x_blocks.size();
      const Block ys = y_blocks[task % y_blocks.size()];
      task /= y_blocks.size();
      const LaneBlock lane = lane_blocks[task % lane_blocks.size()];
      const int group = int(task / lane_blocks.size());
      const Block seen_x = seen(x_axis, xs);
      T* strip = w.strip + w.strip_size * thread;
      T* partial = w.partial + w.partial_size * thread;
      const std::int64_t width = lane.vectors * simd::lanes<T>;
      for (const Block& in : input_blocks) {
        const bool first = in.first == 0, last = in.first + in.count == inputs;
        const std::int64_t row_size = seen_x.count * width * in.count;
        int packed = 0;  // rows of inputs: the last strip_rows of them are in the strip
        for (int y = ys.first; y < ys.first + ys.count; ++y) {
          const auto& window = y_axis.windows[y];
          const Block fresh = unpacked(window, packed);
          for (int v = fresh.first; v < fresh.first + fresh.count; ++v)
            pack_row(source, strip + v % strip_rows * row_size, group * inputs + in.first, in.count,
                     lane, v, seen_x);
          packed = fresh.first + fresh.count;
          // What the next row of outputs will pack is fetched by the products of this one.
          Ahead<T> ahead{source,    group * inputs + in.first, in.count, {}, seen_x, lane.first,
                         lane.count};
          if (y + 1 < ys.first + ys.count)
            ahead.rows = unpacked(y_axis.windows[y + 1], packed);
          else if (!last)
            ahead.first_channel += in.count, ahead.rows = unpacked(y_axis.windows[ys.first], 0);
          for (const Block& block : row_blocks) {
            T* tile = partial + (std::int64_t(block.first) * block_pixels +
                                 std::int64_t(y - ys.first) * xs.count * block.count) *
                                    width;
            for (int x = xs.first; x < xs.first + xs.count;) {
              const bool pair = lane.vectors == 1 && lane.count == width &&
                                x + 1 < xs.first + xs.count && are_alike(x, x + 1, target.width);
              gather(w.weights + weights_offset(group, in), block, strip, row_size, seen_x,
                     in.count, lane, window, x_axis.windows[x],
                     pair ? &x_axis.windows[x + 1] : nullptr, first ? nullptr : tile,
                     last ? nullptr : tile, target, group, row_offsets.data(), streams, ahead,
                     epilogue);
              x += 1 + pair;
              tile += (1 + pair) * block.count * width;
            }
          }
        }
      }
      if (streams) simd::stream_fence();
    });
  }

  // Whether two windows see as many inputs, by the same weights, and are whole pixels of the target.
  bool are_alike(int x, int other, int width) const {
    const auto &a = x_axis.windows[x], &b = x_axis.windows[other];
    return a.phase == b.phase && std::min(a.first, b.first) >= 0 &&
           std::max(a.first, b.first) + a.taps <= x_axis.inputs &&
           std::min(a.output, b.output) >= 0 &&
           std::max(a.output, b.output) + x_axis.members <= width;
  }

  // A tile of the outputs at one place, of one block of inputs. `before`: sums to add, `tile`:
  // where unfinished sums go. `other`: of one vector of images, a second place that is computed
  // with the same weights: with 28 sums instead of 14, a load serves two multiply-adds, not one.
  void gather(const T* weights, const Block& block, const T* strip, std::int64_t row_size,
              Block seen_x, int in, LaneBlock lane, GatherAxis::Window wy, GatherAxis::Window wx,
              const GatherAxis::Window* other, const T* before, T* tile, const Images<T>& target, int group,
              const std::int64_t* row_offsets, bool streams, Ahead<T>& ahead,
              const Epilogue<T>& epilogue) const {
    const int width = lane.vectors * simd::lanes<T>;
    const int y0 = std::max(0, wy.first), y1 = std::min(y_axis.inputs, wy.first + wy.taps);
    const int x0 = std::max(0, wx.first), x1 = std::min(x_axis.inputs, wx.first + wx.taps);
    const int runs = x1 > x0 ? std::max(0, y1 - y0) : 0;
    constexpr int most_runs = 32;
    Segment<T> on_stack[most_runs];
    std::vector<Segment<T>> on_heap(runs > most_runs ? runs : 0);
    Segment<T>* segments = runs > most_runs ? on_heap.data() : on_stack;
    const int phase = wy.phase * int(x_axis.taps.size()) + wx.phase;
    const std::int64_t taps = std::int64_t(wy.taps) * wx.taps;
    const bool whole = wx.output >= 0 && wx.output + x_axis.members <= target.width;
    T* pixel = target.row(group * outputs, wy.output, 0) + wx.output * target.pitch + lane.first;
    const T* a = weights + (std::int64_t(phase_taps[phase]) * rows + taps * block.first) * in;
    for (int i = 0; i < runs; ++i) {
      const int y = y0 + i;
      segments[i] = {
          a + (std::int64_t(y - wy.first) * wx.taps + x0 - wx.first) * in * block.count,
          strip + y % strip_rows * row_size + std::int64_t(x0 - seen_x.first) * in * width,
          (x1 - x0) * in, nullptr, 0};
      ahead.fetch(segments[i]);
    }
    const auto kernel =
        other ? pairs_kernel<T>(block.count) : columns_kernel<T>(block.count, lane.vectors);
    const std::int64_t b_pair = other ? std::int64_t(other->first - wx.first) * in * width : 0;
    if (tile) {
      kernel(segments, runs, {tile, nullptr, before, false, false, {}, b_pair});
    } else if (whole && lane.count == width) {
      kernel(segments, runs,
             {pixel, row_offsets + block.first, before, target.add, streams,
              epilogue.from(group * outputs + block.first), b_pair,
              other ? (other->output - wx.output) * target.pitch : 0});
    } else {
      TileBuffer<T> buffer;
      kernel(segments, runs, {buffer.data, nullptr, before, false, false});
      for (int i = 0; i < block.count; ++i) {
        const int x = wx.output + (block.first + i) % x_axis.members;
        if (x >= 0 && x < target.width)
          store_lanes(pixel + row_offsets[block.first + i], buffer.data + i * width, lane.count,
                      target.add, epilogue, group * outputs + block.first + i);
      }
    }
  }
};

}  // namespace convnet

// conv_forward and conv_backward_data of few images, by the formula of conv_gather.h: the outputs of a pixel are the lanes,
// and the rows of a tile are images and pixels of a row of the map, all with the same taps.
//
// The inputs are copied once, with zeros at both ends of their rows, as (groups, r, v, phase, u / step, images): the pixels
// that a tap sees from neighbouring outputs, `step` pixels apart, stand side by side. A task is some pixels for some
// outputs, whose weights it brings into the order (taps down, r, taps across, lanes).
#pragma once
#include <numeric>

#include "conv_gather.h"
#include "few_images.h"
#include "loops.h"

namespace convnet {

template <class T>
struct FewGather {
  // Windows of one phase of an axis: the first one's input and output, the steps are the axis's.
  struct Sequence {
    int first_input, first_output, count, taps;
  };
  static constexpr int most_pixels = 512, least_pixels = 128;  // of a task, counted with their images

  ConvProblem p;
  bool backward;
  int outputs, inputs;  // of one group
  GatherAxis y_axis, x_axis;
  int rows;  // of weights: outputs, each with the members of both axes
  std::vector<Sequence> y_sequences, x_sequences;
  int in_step, out_step;        // across, between neighbours of a sequence
  int first_column, columns;    // of the copied rows: the zeros to the left begin at first_column
  int chunk;                    // images that are rows of a tile: whole chunks make all images
  std::vector<Block> input_blocks;
  std::vector<LaneBlock> blocks;
  int rows_per_task, run_pixels;

  FewGather(const ConvProblem& problem, bool backward)
      : p(problem),
        backward(backward),
        outputs(backward ? p.channels : p.filters),
        inputs(backward ? p.filters : p.channels) {
    if (backward) {
      // Few channels leave lanes empty: pixels that see the same acts can share a vector, though some of the taps are
      // zero then. For the 3 channels of conv1, at stride 4, 4 x 4 pixels take a fifth of the multiplications.
      std::int64_t least = 0;
      for (const bool down : {false, true})
        for (const bool across : {false, true}) {
          if ((down || across) && p.stride == 1) continue;
          const auto y = backward_axis(p.height, p.acts_height, p.filter_height, p.stride, p.padding, down);
          const auto x = backward_axis(p.width, p.acts_width, p.filter_width, p.stride, p.padding, across);
          const std::int64_t cost = ceil_div(std::int64_t(outputs) * y.members * x.members, simd::lanes<T>) * all_taps(y) * all_taps(x);
          if (least && cost >= least) continue;
          least = cost;
          y_axis = y, x_axis = x;
        }
    } else {
      y_axis = forward_axis(p.height, p.acts_height, p.filter_height, p.stride, p.padding);
      x_axis = forward_axis(p.width, p.acts_width, p.filter_width, p.stride, p.padding);
    }
    rows = outputs * y_axis.members * x_axis.members;
    in_step = backward ? 1 : p.stride;
    out_step = backward ? p.stride : 1;
    y_sequences = sequences(y_axis);
    x_sequences = sequences(x_axis);
    int last = 0, longest = 0, tallest = 0, most_taps = 1;
    first_column = 0;
    for (const Sequence& s : x_sequences) {
      first_column = std::min(first_column, s.first_input);
      last = std::max(last, s.first_input + (s.count - 1) * in_step + s.taps);
      longest = std::max(longest, s.count);
      for (const Sequence& t : y_sequences) most_taps = std::max(most_taps, s.taps * t.taps);
    }
    columns = int(ceil_div(last - first_column, in_step));
    int most_down = 0;
    for (const Sequence& s : y_sequences) tallest = std::max(tallest, s.count), most_down = std::max(most_down, s.taps);
    // The rows that a task sees share a second-level cache of 1 MiB with its weights.
    constexpr std::int64_t weight_bytes = 512 << 10;
    const std::int64_t source_bytes =
        (768 << 10) - std::min(weight_bytes, std::int64_t(inputs) * most_taps * 2 * simd::vector_bytes);
    const std::int64_t image_bytes = std::int64_t(inputs) * (most_down + 1) * in_step * columns * std::int64_t(sizeof(T));
    chunk = p.images;
    while (chunk > 1 && (p.images % chunk || chunk * image_bytes > source_bytes)) --chunk;
    longest *= chunk;
    blocks = lane_blocks<T>(rows, widest_tile<T>(longest, rows));
    input_blocks = equal_blocks(inputs, std::max(1, int(weight_bytes / (blocks[0].vectors * simd::vector_bytes * most_taps))));
    // Enough tasks for many cores, of enough pixels to be worth their weights.
    run_pixels = std::min(longest, most_pixels / chunk * chunk);
    const int task_blocks = p.groups * int(blocks.size() * y_sequences.size() * x_sequences.size());
    const int wanted = int(ceil_div(tallest, ceil_div(32, task_blocks)));
    rows_per_task = std::clamp(wanted, std::min(tallest, int(ceil_div(least_pixels, run_pixels))), std::max(1, most_pixels / run_pixels));
  }

  static std::int64_t all_taps(const GatherAxis& axis) {
    std::int64_t sum = 0;
    for (const auto& window : axis.windows) sum += window.taps;
    return sum;
  }
  static std::vector<Sequence> sequences(const GatherAxis& axis) {
    std::vector<Sequence> result(axis.taps.size());
    for (const auto& window : axis.windows) {
      Sequence& s = result[window.phase];
      if (s.count++ == 0) s = {window.first, window.output, 1, window.taps};
    }
    return result;
  }
  std::int64_t row_size() const { return std::int64_t(in_step) * columns * chunk; }
  int source_height() const { return y_axis.inputs; }
  std::int64_t channel_size() const { return source_height() * row_size(); }
  int most_products() const {
    int most = 0;
    for (const Sequence& y : y_sequences)
      for (const Sequence& x : x_sequences) most = std::max(most, y.taps * x.taps);
    return most * input_blocks.front().count;
  }

  struct Workspace {
    T* source;
    T *weights, *sums;  // of a thread
    std::ptrdiff_t* taps;
    std::int64_t weights_size, sums_size, taps_size;
  };
  Workspace divide(WorkspaceParts& parts, int threads) const {
    Workspace w;
    const std::int64_t width = blocks.front().vectors * simd::lanes<T>;
    w.weights_size = most_products() * width;
    w.sums_size = (std::int64_t(rows_per_task) * run_pixels + simd::lanes<T>)*width;
    w.taps_size = most_products();
    w.source = parts.take<T>(p.images / chunk * p.groups * inputs * channel_size());
    w.weights = parts.take<T>(w.weights_size * threads);
    w.sums = parts.take<T>(w.sums_size * threads);
    w.taps = parts.take<std::ptrdiff_t>(w.taps_size * threads);
    return w;
  }

  // A task's place, and what its thread has of the workspace.
  struct Task {
    int group;
    LaneBlock lane;
    int y_phase, x_phase;
    T *weights, *sums;
    std::ptrdiff_t* taps;
    int width() const { return lane.vectors * simd::lanes<T>; }
  };

  void run(Stream stream, In inputs_tensor, In filters_tensor, Out outputs_tensor, void* workspace, const Epilogue<T>& epilogue) const {
    WorkspaceParts parts(workspace);
    const int threads = thread_count(stream);
    const Workspace w = divide(parts, threads);
    const auto filters = images_of<T>(filters_tensor);
    const auto target = images_of<T>(outputs_tensor);
    copy_source(stream, images_of<T>(inputs_tensor), w.source);

    struct Part {
      int first_image, y_phase, x_phase;
      Block ys, run;  // of the sequences; run: with their images
    };
    std::vector<Part> places;
    for (int a = 0; a < int(y_sequences.size()); ++a)
      for (int b = 0; b < int(x_sequences.size()); ++b)
        for (int n = 0; n < p.images; n += chunk)
          for (const Block& ys : equal_blocks(y_sequences[a].count, rows_per_task))
            for (const Block& run : equal_blocks(x_sequences[b].count, run_pixels / chunk))
              places.push_back({n, a, b, ys, {run.first * chunk, run.count * chunk}});
    std::vector<std::int64_t> packed(threads, -1);  // which weights a thread has
    for_tasks_in_runs(stream, std::int64_t(p.groups) * blocks.size() * places.size(), [&](std::int64_t index, int thread) {
      const Part& place = places[index % places.size()];
      const std::int64_t block = index / places.size();
      const Task task{int(block / blocks.size()), blocks[block % blocks.size()], place.y_phase, place.x_phase,
                      w.weights + w.weights_size * thread, w.sums + w.sums_size * thread, w.taps + w.taps_size * thread};
      const Sequence &y_sequence = y_sequences[place.y_phase], &x_sequence = x_sequences[place.x_phase];
      const auto tiles = equal_blocks(place.run.count, max_rows<T>(task.lane.vectors));
      for (int i = 0; i < int(input_blocks.size()); ++i) {
        const Block& in = input_blocks[i];
        const std::int64_t key =
            ((block * y_sequences.size() + place.y_phase) * x_sequences.size() + place.x_phase) * input_blocks.size() + i;
        if (packed[thread] != key) prepare(filters, task, in);
        packed[thread] = key;
        for (int y = 0; y < place.ys.count; ++y) {
          const int v = y_sequence.first_input + (place.ys.first + y) * (backward ? 1 : p.stride);
          const int y0 = std::max(0, -v), y1 = std::max(y0, std::min(y_sequence.taps, source_height() - v));
          const int skipped = y0 * in.count * x_sequence.taps;
          // The taps begin at row y0 of the window: v itself may lie outside.
          const T* pixels =
              w.source + ((std::int64_t(place.first_image / chunk) * p.groups + task.group) * inputs + in.first) * channel_size() + place.run.first;
          for (const Block& tile : tiles)
            few_kernel<T>(tile.count, task.lane.vectors)(
                {pixels + v * row_size() + tile.first, task.taps + skipped, task.weights + std::int64_t(skipped) * task.width(),
                 task.width(), (y1 - y0) * in.count * x_sequence.taps},
                task.sums + (std::int64_t(y) * place.run.count + tile.first) * task.width(), i > 0);
        }
      }
      // Whole rows follow each other without a gap: squares of sums need not end with each.
      const bool joined = out_step == 1 && place.run.count == target.width * chunk;
      const int rows_at_once = joined ? place.ys.count : 1;
      for (int y = 0; y < place.ys.count; y += rows_at_once)
        store_rows(target, task, place.first_image, place.ys.first + y, rows_at_once, place.run,
                   task.sums + std::int64_t(y) * place.run.count * task.width(), epilogue);
    });
  }

  // Also in which order the rows of weights, and the inputs that belong to them, are multiplied.
  void prepare(const Images<const T>& filters, const Task& task, Block in) const {
    const Sequence &y = y_sequences[task.y_phase], &x = x_sequences[task.x_phase];
    std::ptrdiff_t* tap = task.taps;
    for (int i = 0; i < y.taps; ++i)
      for (int r = 0; r < in.count; ++r)
        for (int j = 0; j < x.taps; ++j) *tap++ = r * channel_size() + i * row_size() + column(x.first_input + j);
    if (!backward) {
      pack(filters, task, in);
      return;
    }
    for (int i = 0; i < y.taps; ++i)
      for (int j = 0; j < x.taps; ++j)
        pack_tap(filters, task.weights + (std::int64_t(i) * in.count * x.taps + j) * task.width(), std::int64_t(x.taps) * task.width(),
                 task, in, i, j);
  }

  // The lanes of all taps of the inputs `in`, forward: short pieces, one behind the other in memory, which no hardware
  // fetches ahead.
  void pack(const Images<const T>& filters, const Task& task, Block in) const {
    constexpr int ahead = 36;
    const LaneBlock& lane = task.lane;
    const std::int64_t step = filters.row(0, 0, 1) - filters.row(0, 0, 0);
    const T* source = filters.row(in.first, 0, 0) + task.group * outputs + lane.first;
    for (int r = 0; r < in.count; ++r)
      for (int i = 0; i < p.filter_height; ++i) {
        T* target = task.weights + (std::int64_t(i) * in.count + r) * p.filter_width * task.width();
        for (int j = 0; j < p.filter_width; ++j, source += step, target += task.width()) {
          for (int k = 0; k < lane.count; k += 64 / int(sizeof(T))) __builtin_prefetch(source + ahead * step + k);
          copy_lanes(target, source, lane.count, lane.vectors);
        }
      }
  }

  // Where pixel u of a row of inputs stands.
  std::int64_t column(int u) const {
    return (std::int64_t((u - first_column) % in_step) * columns + (u - first_column) / in_step) * chunk;
  }

  // The lanes of a tap for the inputs `in`, `step` apart, backward.
  void pack_tap(const Images<const T>& filters, T* target, std::int64_t step, const Task& task, Block in, int ty, int tx) const {
    const LaneBlock& lane = task.lane;
    const int members = y_axis.members * x_axis.members;
    const std::int64_t channel = filters.row(1, 0, 0) - filters.row(0, 0, 0);
    const int first_filter = task.group * inputs + in.first;
    if (members == 1) {
      const T* source = filters.row(lane.first, y_axis.tap(task.y_phase, 0, ty), x_axis.tap(task.x_phase, 0, tx)) + first_filter;
      for (int i = 0; i < task.width(); i += simd::lanes<T>)
        for (int r = 0; r < in.count; r += simd::lanes<T>)
          transpose_square<T>(target + r * step + i, step, source + i * channel + r, channel,
                              std::clamp(lane.count - i, 0, simd::lanes<T>), std::min(simd::lanes<T>, in.count - r));
      return;
    }
    for (int i = 0; i < task.width(); ++i) {
      const int row = lane.first + i;
      const int y = y_axis.tap(task.y_phase, row % members / x_axis.members, ty), x = x_axis.tap(task.x_phase, row % x_axis.members, tx);
      const bool exists = i < lane.count && y < p.filter_height && x < p.filter_width;
      const T* source = exists ? filters.row(row / members, y, x) + first_filter : nullptr;
      for (int r = 0; r < in.count; ++r) target[r * step + i] = exists ? source[r] : T(0);
    }
  }

  void copy_source(Stream stream, const Images<const T>& source, T* target) const {
    const int begin = std::max(0, first_column), end = std::min(source.width, first_column + columns * in_step);
    for_row_ranges(stream, source.channels * std::int64_t(source.height) * (p.images / chunk), row_size(), [&](std::int64_t first_row, std::int64_t last_row) {
      for (std::int64_t r = first_row; r < last_row; ++r) {
        const int c = int(r / source.height % source.channels), y = int(r % source.height);
        const std::int64_t first_image = r / source.height / source.channels * chunk;
        T* row = target + r * row_size();
        std::fill_n(row, row_size(), T(0));
        for (int phase = 0; phase < in_step; ++phase) {
          // The first pixel of this phase.
          const int first = begin + (in_step + phase - (begin - first_column) % in_step) % in_step;
          if (first >= end) continue;
          copy_pixels(row + column(first), source.row(c, y, first) + first_image, in_step * source.pitch, chunk, int(ceil_div(end - first, in_step)));
        }
      }
    });
  }

  // Sums (rows, pixels of the run, lanes) of rows of a sequence into the outputs.
  void store_rows(const Images<T>& target, const Task& task, int first_image, int y, int rows, Block run, const T* sums,
                  const Epilogue<T>& epilogue) const {
    using simd::lanes;
    const int members = y_axis.members * x_axis.members;
    const Sequence &down = y_sequences[task.y_phase], &across = x_sequences[task.x_phase];
    // Whole pixels of a square of sums.
    const int square_pixels = std::max(1, lanes<T> / chunk), pixels = rows * run.count / chunk;
    const PixelStore<T> store_pixels(out_step * target.pitch, out_step == 1 && chunk == p.images, chunk, target.add, epilogue);
    for (int first = 0; first < task.lane.count; first += lanes<T>) {
      const int outputs_here = std::min(lanes<T>, task.lane.count - first);
      // Where the outputs of the lanes begin; members may lie outside.
      T* begin[lanes<T>];
      int column[lanes<T>], channel[lanes<T>];
      for (int j = 0; j < outputs_here; ++j) {
        const int row = task.lane.first + first + j, v = down.first_output + y * out_step + row % members / x_axis.members;
        channel[j] = task.group * outputs + row / members;
        column[j] = across.first_output + row % x_axis.members + run.first / chunk * out_step;
        begin[j] = v < 0 || v >= target.height ? nullptr : target.row(channel[j], v, 0) + first_image;
      }
      for (int i = 0; i < pixels; i += square_pixels) {
        alignas(64) T square[(lanes<T> + 1) * lanes<T>];
        // There are sums, or room, for a whole square.
        transpose_square<T>(square, lanes<T>, sums + std::int64_t(i) * chunk * task.width() + first, task.width(), lanes<T>, lanes<T>);
        for (int j = 0; j < outputs_here; ++j) {
          if (!begin[j]) continue;
          int u = column[j] + i * out_step, count = std::min(square_pixels, pixels - i);
          const T* from = square + j * lanes<T>;
          if (u < 0) --count, u += out_step, from += chunk;
          if (u + (count - 1) * out_step >= rows * target.width) --count;
          store_pixels(begin[j] + u * target.pitch, from, count, channel[j]);
        }
      }
    }
  }
};

}  // namespace convnet

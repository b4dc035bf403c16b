// Max-pooling over normalized maps on the host: what the pool leaves is stored, what it reads stays in the caches.
#include <memory>
#include "../lrn_pool.h"
#include "lrn_tile.h"
#include "pool_windows.h"

namespace convnet {
namespace {

// Channels of a task, but fewer where there would be too few tasks for many cores: each reads those of the windows that
// reach beyond its own, too.
constexpr int most_channels = 32, least_channels = 8, wanted_tasks = 16;
// Bytes of normalized pixels, of one channel, that a task has at a time. Pixels under the edge of two bands are normalized
// twice, those of a window of 3 in steps of 2 with two rows of windows a fourth more often; higher bands leave the L2 cache.
constexpr std::int64_t band_bytes = 256 << 10;

// Rows of windows whose pixels fit.
int rows_of_band(const Windows& down, std::int64_t row_bytes) {
  const std::int64_t rows = (band_bytes / std::max<std::int64_t>(1, row_bytes) - down.size) / down.stride + 1;
  return int(std::clamp<std::int64_t>(rows, 1, std::max(1, down.count)));
}

// body(run) for the numbers of rows `top` to `bottom` - 1 of pixels.
template <class T, class Body>
void for_runs(const Images<T>& tensor, bool joined, int top, int bottom, Body body) {
  const std::int64_t begin = std::int64_t(top) * tensor.width, end = std::int64_t(bottom) * tensor.width;
  const std::int64_t rows = joined ? 1 : end - begin, length = joined ? (end - begin) * tensor.pitch : tensor.images;
  for (std::int64_t row = begin; row < begin + rows; ++row)
    for (std::int64_t first = 0; first < length; first += lrn_tile) body(Run{row, first, int(std::min<std::int64_t>(lrn_tile, length - first))});
}

}  // namespace

void lrn_max_pool_forward(Stream stream, In inputs, Out acts, int size, double scale, double power, double bias, int pool_size, int stride, int start) {
  const WindowGrid windows = checks::lrn_max_pool_forward(inputs, acts, size, pool_size, stride, start);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs);
    const auto y = images_of<T>(acts);
    const bool joined = can_join(x.images, inputs.dtype, {x.pitch});
    const int rows = rows_of_band(windows.down, x.width * x.pitch * std::int64_t(sizeof(T)));
    const std::int64_t bands = (y.height + rows - 1) / rows;
    const int channels_each = int(std::clamp<std::int64_t>(x.channels * bands / wanted_tasks, least_channels, most_channels));
    const std::int64_t blocks = (x.channels + channels_each - 1) / channels_each;
    const std::size_t norms_size = std::size_t((rows - 1) * stride + pool_size) * x.width * x.pitch;
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * norms_size);
    parallel_for(stream, bands * blocks, [&](std::int64_t task, int thread) {
      const int first = int(task / blocks) * rows, last = std::min(y.height, first + rows);  // rows of windows
      const int top = windows.down.begin(first), bottom = windows.down.end(last - 1);        // of pixels
      const Images<T> norms = {scratch.get() + thread * norms_size, 1, bottom - top, x.width, x.images, x.pitch, false};
      const Images<const T> band = {norms.data, 1, norms.height, norms.width, norms.images, norms.pitch, false};
      const WindowGrid of_band = {{pool_size, stride, start + first * stride - top, bottom - top, last - first}, windows.across};
      const int channel = int(task % blocks) * channels_each, end = std::min(x.channels, channel + channels_each);
      for (int c = channel; c < end; ++c) {
        for_runs(x, joined, top, bottom, [&](const Run& run) {
          T denom[lrn_tile], inverse[lrn_tile];
          denominators(x, c, run, size, false, T(scale), T(power), T(bias), denom, inverse);
          const T* const xc = run.of(x, c);
          T* const norm = norms.data + (run.row - std::int64_t(top) * x.width) * x.pitch + run.first;
          for (int n = 0; n < run.count; ++n) norm[n] = xc[n] * inverse[n];
        });
        const Images<T> target = {y.row(c, first, 0), 1, last - first, y.width, y.images, y.pitch, y.add};
        best_of_windows<false>(band, target, of_band, 0, last - first);
      }
    });
  });
}

void lrn_max_pool_backward(Stream stream, In inputs, In acts, In acts_grad, Out inputs_grad, int size, double scale, double power, double bias, int pool_size,
                           int stride, int start, bool relu) {
  const WindowGrid windows = checks::lrn_max_pool_backward(inputs, acts, acts_grad, inputs_grad, size, pool_size, stride, start);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs), y = images_of<T>(acts), g = images_of<T>(acts_grad);
    const auto result = images_of<T>(inputs_grad);
    // A task has some pixels of a row, or some images of a pixel; where pixels are less than a vector, rows.
    const bool few = are_few<T>(x.images, {x.pitch, y.pitch, g.pitch, result.pitch});
    const bool joined = can_join(x.images, inputs.dtype, {x.pitch, result.pitch});
    const int pixels = few ? x.width : joined ? std::max<int>(1, lrn_tile / int(std::max<std::int64_t>(1, x.pitch))) : 1;
    const int lines = few ? std::max(1, lrn_tile / std::max(1, int(x.width * x.pitch))) : 1;
    const int images = pixels * lines > 1 ? int(x.pitch) : std::min<int>(lrn_tile, x.images);
    const int across = (x.width + pixels - 1) / pixels, along = pixels * lines > 1 ? 1 : (x.images + images - 1) / std::max(1, images);
    std::vector<WindowsWith> columns;
    for (int u = 0; u < x.width; ++u) columns.push_back(windows.with(0, u));
    // (threads, then norms, denominators, sums, and of each channel terms and direct, tile): what channel j adds to the sums
    // of its window, and its gradient with the denominators held constant
    const std::size_t tile = std::size_t(lines) * pixels * images + simd::lanes<T>, thread_size = (2 * x.channels + 4) * tile;
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * thread_size);
    parallel_for(stream, std::int64_t((x.height + lines - 1) / lines) * across * along, [&](std::int64_t task, int thread) {
      const int from = int(task % along) * images, u = int(task / along % across) * pixels, v = int(task / along / across) * lines;
      const int width = std::min(pixels, x.width - u), height = std::min(lines, x.height - v), count = std::min(images, x.images - from);
      const Run run = {std::int64_t(v) * x.width + u, from, int((height * width - 1) * x.pitch) + count};
      const int top = windows.down.first_with(v), bottom = windows.down.end_with(v);
      T *const denom = scratch.get() + thread * thread_size, *const norm = denom + tile, *const grad = norm + tile, *const inverse = grad + tile;
      T *const terms = inverse + tile, *const direct = terms + tile;
      SpreadWindows<T> held(windows, few ? x.pitch : 0);
      const auto fill = [&](int c, int row, T* act, T* act_grad) { spread_best(y, g, c, row, stride * x.pitch, act, act_grad); };
      for (int c = 0, j = 0; c < x.channels; ++c) {
        const auto [first, last] = windows_with(c, x.channels, size, false);
        for (; j < last; ++j) {
          denominators(x, j, run, size, false, T(scale), T(power), T(bias), denom, inverse);
          const T* const xj = run.of(x, j);
          for (int n = 0; n < run.count; ++n) norm[n] = xj[n] * inverse[n];
          if (few)
            for (int line = 0; line < height; ++line) {
              const std::int64_t at = line * x.width * x.pitch;
              held.sum_row(j, v + line, norm + at, tile - at, x.width * x.pitch, grad + at, fill, add_if_best);
            }
          else
            for (int i = 0; i < width; ++i) {
              const WindowsWith holding = {top, bottom, columns[u + i].left, columns[u + i].right};
              gather_if_best(norm + i * x.pitch, y, g, j, holding, from, count, 0, grad + i * x.pitch, false);
            }
          T *const term = terms + 2 * j * tile, *const direct_j = direct + 2 * j * tile;
          for (int n = 0; n < run.count; ++n) term[n] = grad[n] * xj[n] * (inverse[n] / denom[n]);
          for (int n = 0; n < run.count; ++n) direct_j[n] = grad[n] * inverse[n];
        }
        run.fetch_ahead(result, c);
        T* const sum = denom;
        sum_up(terms + 2 * first * tile, 2 * tile, last - first, run.count, sum, [](auto term) { return term; }, [](auto sum) { return sum; });
        const T *const xc = run.of(x, c), *const direct_c = direct + 2 * c * tile;
        store_row(run.of(result, c), run.count, result.add, [&](int n) { return direct_c[n] - T(2 * scale * power) * xc[n] * sum[n]; });
        if (relu) relu_row(run.of(result, c), xc, run.count);
      }
    });
  });
}

}  // namespace convnet

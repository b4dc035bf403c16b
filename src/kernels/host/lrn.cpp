// Cross-map response normalization on the host: the formula, along neighbouring pixels and images.
#include <initializer_list>
#include <memory>
#include "lrn_tile.h"

namespace convnet {
namespace {

// body(run, thread) for all numbers of a channel. Where the tensors have the same pitch, all pixels make one row, so that
// few images are no slower; up to 16 bytes of padding are then worked on, too. Else a row is the images of a pixel.
template <class Body>
void for_runs(Stream stream, const Shape& shape, Dtype dtype, std::initializer_list<std::int64_t> pitches, Body body) {
  const std::int64_t pitch = *pitches.begin(), pixels = shape[1] * shape[2];
  const bool joined = can_join(int(shape.images()), dtype, pitches);
  const std::int64_t rows = joined ? 1 : pixels, length = joined ? pixels * pitch : shape.images();
  const std::int64_t runs = (length + lrn_tile - 1) / lrn_tile;
  parallel_for(stream, rows * runs, [&](std::int64_t task, int thread) {
    const std::int64_t first = task % runs * lrn_tile;
    body(Run{task / runs, first, int(std::min<std::int64_t>(lrn_tile, length - first))}, thread);
  });
}

}  // namespace

void lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias, bool blocked) {
  checks::lrn_forward(inputs, denoms, acts, size);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs);
    const auto d = images_of<T>(denoms), y = images_of<T>(acts);
    for_runs(stream, inputs.shape, inputs.dtype, {x.pitch, d.pitch, y.pitch}, [&](const Run& run, int) {
      for (int c = 0; c < x.channels; ++c) {
        for (const auto& tensor : {d, y}) run.fetch_ahead(tensor, c);
        T denom[lrn_tile], inverse[lrn_tile];
        denominators(x, c, run, size, blocked, T(scale), T(power), T(bias), denom, inverse);
        store_row(run.of(d, c), run.count, d.add, [&](int n) { return denom[n]; });
        store_row(run.of(y, c), run.count, y.add, [&, xc = run.of(x, c)](int n) { return xc[n] * inverse[n]; });
      }
    });
  });
}

void lrn_backward(Stream stream, In inputs, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power, bool blocked, bool relu) {
  checks::lrn_backward(inputs, denoms, acts_grad, inputs_grad, size);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs), d = images_of<T>(denoms), g = images_of<T>(acts_grad);
    const auto result = images_of<T>(inputs_grad);
    // (threads, channels, terms and powers, tile): what channel j adds to the sums of its window, and denoms[j]^-power
    const std::size_t channel_size = 2 * lrn_tile, thread_size = x.channels * channel_size;
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * thread_size);
    for_runs(stream, inputs.shape, inputs.dtype, {x.pitch, d.pitch, g.pitch, result.pitch}, [&](const Run& run, int thread) {
      T* const terms = scratch.get() + thread * thread_size;
      T* const powers = terms + lrn_tile;
      // Channel c follows as soon as its windows are there, while its own numbers are still in the cache.
      for (int c = 0, j = 0; c < x.channels; ++c) {
        const auto [first, last] = windows_with(c, x.channels, size, blocked);
        for (; j < last; ++j) {
          for (const auto& tensor : {x, d, g}) run.fetch_ahead(tensor, j);
          const T *xj = run.of(x, j), *dj = run.of(d, j), *gj = run.of(g, j);
          T *term = terms + j * channel_size, *inverse = powers + j * channel_size;
          inverse_powers(dj, run.count, T(power), inverse);
          for (int n = 0; n < run.count; ++n) term[n] = gj[n] * xj[n] * (inverse[n] / dj[n]);
        }
        run.fetch_ahead(result, c);
        T sum[lrn_tile];
        sum_up(terms + first * channel_size, channel_size, last - first, run.count, sum, [](auto term) { return term; }, [](auto sum) { return sum; });
        const T *xc = run.of(x, c), *gc = run.of(g, c), *inverse = powers + c * channel_size;
        store_row(run.of(result, c), run.count, result.add, [&](int n) { return gc[n] * inverse[n] - T(2 * scale * power) * xc[n] * sum[n]; });
        if (relu) relu_row(run.of(result, c), xc, run.count);
      }
    });
  });
}

}  // namespace convnet

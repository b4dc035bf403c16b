// Cross-map response normalization on the host: the formula, along neighbouring pixels and images.
#include <initializer_list>
#include <memory>
#include "../lrn.h"
#include "loops.h"
#include "powers.h"

namespace convnet {
namespace {

// Numbers of a channel that are worked on together, through all channels: what a window needs of them stays in the
// L1 cache. With half as many, too little of a page of the memory is read at once: lrn takes a fourth longer.
constexpr int tile = 256;

// body(row, first, count, thread) for all numbers of a channel: `count` from `first` on, in one of its rows. Where the
// tensors have the same pitch, all pixels make one row, so that few images are no slower; up to 16 bytes of padding
// are then worked on, too. Else a row is the images of a pixel.
template <class Body>
void for_tiles(Stream stream, const Shape& shape, Dtype dtype, std::initializer_list<std::int64_t> pitches, Body body) {
  const std::int64_t pitch = *pitches.begin(), pixels = shape[1] * shape[2];
  const bool joined = can_join(int(shape.images()), dtype, pitches);
  const std::int64_t rows = joined ? 1 : pixels, length = joined ? pixels * pitch : shape.images();
  const std::int64_t tiles = (length + tile - 1) / tile;
  parallel_for(stream, rows * tiles, [&](std::int64_t task, int thread) {
    const std::int64_t row = task / tiles, first = task % tiles * tile;
    body(row, first, int(std::min<std::int64_t>(tile, length - first)), thread);
  });
}

// In channel c.
template <class T>
T* tile_of(const Images<T>& tensor, int c, std::int64_t row, std::int64_t first) {
  return tensor.row(c, 0, 0) + row * tensor.pitch + first;
}

// Fetches what channel c + 2 has there, to be read or written: the step from channel to channel is too long for the CPU
// to foresee. Without this lrn_backward takes twice the time, and lrn_forward up to three times: stores to lines that
// are not there yet fill the store buffer, in one build and not in the next.
template <class T>
void fetch_ahead(const Images<T>& tensor, int c, std::int64_t row, std::int64_t first, int count) {
  const T* const next = tile_of(tensor, c + 2 < tensor.channels ? c + 2 : c, row, first);
  for (int n = 0; n < count; n += 64 / int(sizeof(T))) __builtin_prefetch(next + n);
}

}  // namespace

void lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias, bool blocked) {
  checks::lrn_forward(inputs, denoms, acts, size);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs);
    const auto d = images_of<T>(denoms), y = images_of<T>(acts);
    for_tiles(stream, inputs.shape, inputs.dtype, {x.pitch, d.pitch, y.pitch}, [&](std::int64_t row, std::int64_t from, int count, int) {
      for (int c = 0; c < x.channels; ++c) {
        const auto [first, last] = window_of(c, x.channels, size, blocked);
        fetch_ahead(x, last - 1, row, from, count);
        for (const auto& tensor : {d, y}) fetch_ahead(tensor, c, row, from, count);
        T denom[tile], inverse[tile];
        std::fill_n(denom, count, T(0));
        for (int j = first; j < last; ++j) {
          const T* xj = tile_of(x, j, row, from);
          for (int n = 0; n < count; ++n) denom[n] += xj[n] * xj[n];
        }
        for (int n = 0; n < count; ++n) denom[n] = T(bias) + T(scale) * denom[n];
        const T* xc = tile_of(x, c, row, from);
        store_row(tile_of(d, c, row, from), count, d.add, [&](int n) { return denom[n]; });
        inverse_powers(denom, count, T(power), inverse);
        store_row(tile_of(y, c, row, from), count, y.add, [&](int n) { return xc[n] * inverse[n]; });
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
    const std::size_t channel_size = 2 * tile, thread_size = x.channels * channel_size;
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * thread_size);
    for_tiles(stream, inputs.shape, inputs.dtype, {x.pitch, d.pitch, g.pitch, result.pitch},
              [&](std::int64_t row, std::int64_t from, int count, int thread) {
      T* const terms = scratch.get() + thread * thread_size;
      T* const powers = terms + tile;
      // Channel c follows as soon as its windows are there, while its own numbers are still in the cache.
      for (int c = 0, j = 0; c < x.channels; ++c) {
        const auto [first, last] = windows_with(c, x.channels, size, blocked);
        for (; j < last; ++j) {
          for (const auto& tensor : {x, d, g}) fetch_ahead(tensor, j, row, from, count);
          const T *xj = tile_of(x, j, row, from), *dj = tile_of(d, j, row, from), *gj = tile_of(g, j, row, from);
          T *term = terms + j * channel_size, *inverse = powers + j * channel_size;
          inverse_powers(dj, count, T(power), inverse);
          for (int n = 0; n < count; ++n) term[n] = gj[n] * xj[n] * (inverse[n] / dj[n]);
        }
        fetch_ahead(result, c, row, from, count);
        T sum[tile];
        std::fill_n(sum, count, T(0));
        for (int k = first; k < last; ++k)
          for (int n = 0; n < count; ++n) sum[n] += terms[k * channel_size + n];
        const T *xc = tile_of(x, c, row, from), *gc = tile_of(g, c, row, from), *inverse = powers + c * channel_size;
        store_row(tile_of(result, c, row, from), count, result.add,
                  [&](int n) { return gc[n] * inverse[n] - T(2 * scale * power) * xc[n] * sum[n]; });
        if (relu) relu_row(tile_of(result, c, row, from), xc, count);
      }
    });
  });
}

}  // namespace convnet

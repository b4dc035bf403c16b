// Gaussian blur on the host: down the columns of a whole row of pixels, then along the row.
#include <memory>
#include "../blur.h"
#include "loops.h"
#include "strips.h"

namespace convnet {

void blur(Stream stream, In inputs, Out acts, int size, double stdev) {
  checks::blur(inputs, acts, size, stdev);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = images_of<T>(inputs);
    const auto out = images_of<T>(acts);
    const auto weights = blur_weights<T>(size, stdev);
    const std::int64_t row_size = strip_row(inputs.shape, in.pitch);
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * 2 * row_size);
    for_strips(stream, inputs.shape, inputs.dtype, {in.pitch, out.pitch}, [&](const Strip& strip, int thread) {
      T *const columns = scratch.get() + thread * 2 * row_size, *const sums = columns + row_size;
      for (int y = 0; y < in.height; ++y) {
        std::fill_n(columns, in.width * strip.count, T(0));
        for (int v = std::max(0, y - weights.radius); v < std::min(in.height, y + weights.radius + 1); ++v)
          strip.for_runs(in.width, [&](int pixel, int length) {
            const T* const input = strip.row(in, v) + pixel * in.pitch;
            T* const column = columns + pixel * strip.count;
            for (int n = 0; n < length; ++n) column[n] += weights.at(v - y) * input[n];
          });
        sum_along(columns, sums, in.width, strip.count, -weights.radius, weights.radius + 1, [&](int by) { return weights.at(by); });
        strip.for_runs(in.width, [&](int pixel, int length) {
          store_row(strip.row(out, y) + pixel * out.pitch, length, out.add, [sum = sums + pixel * strip.count](int n) { return sum[n]; });
        });
      }
    });
  });
}

}  // namespace convnet

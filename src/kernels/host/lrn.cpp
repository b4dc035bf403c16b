// Cross-map response normalization on the host: the formula, along the images.
#include <cmath>
#include <vector>
#include "../ops.h"
#include "loops.h"

namespace convnet {

void lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(denoms, inputs);
  CHECK_LIKE(acts, inputs);
  CHECK(size > 0);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs);
    const auto d = images_of<T>(denoms), y = images_of<T>(acts);
    const std::int64_t pixels = std::int64_t(x.height) * x.width;
    parallel_for(stream, pixels, [&](std::int64_t pixel, int) {
      const int v = int(pixel / x.width), u = int(pixel % x.width);
      std::vector<T> denom(x.images);
      for (int c = 0; c < x.channels; ++c) {
        const int first = std::max(0, c - size / 2), last = std::min(x.channels, c - size / 2 + size);
        std::fill(denom.begin(), denom.end(), T(0));
        for (int j = first; j < last; ++j) {
          const T* row = x.row(j, v, u);
          for (int n = 0; n < x.images; ++n) denom[n] += row[n] * row[n];
        }
        for (int n = 0; n < x.images; ++n) denom[n] = T(bias) + T(scale) * denom[n];
        const T* row = x.row(c, v, u);
        store_row(d.row(c, v, u), x.images, d.add, [&](int n) { return denom[n]; });
        store_row(y.row(c, v, u), x.images, y.add, [&](int n) { return row[n] * std::pow(denom[n], T(-power)); });
      }
    });
  });
}

void lrn_backward(Stream stream, In inputs, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(denoms, inputs);
  CHECK_LIKE(acts_grad, inputs);
  CHECK_LIKE(inputs_grad, inputs);
  CHECK(size > 0);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = images_of<T>(inputs), d = images_of<T>(denoms), g = images_of<T>(acts_grad);
    const auto result = images_of<T>(inputs_grad);
    const std::int64_t pixels = std::int64_t(x.height) * x.width;
    parallel_for(stream, pixels, [&](std::int64_t pixel, int) {
      const int v = int(pixel / x.width), u = int(pixel % x.width);
      // (channels, images): what channel j adds to the sums of the channels in its window
      std::vector<T> terms(std::size_t(x.channels) * x.images), sum(x.images);
      for (int j = 0; j < x.channels; ++j)
        for (int n = 0; n < x.images; ++n)
          terms[std::size_t(j) * x.images + n] = g.row(j, v, u)[n] * x.row(j, v, u)[n] * std::pow(d.row(j, v, u)[n], T(-power - 1));
      for (int c = 0; c < x.channels; ++c) {
        const int first = std::max(0, c + size / 2 - size + 1), last = std::min(x.channels, c + size / 2 + 1);
        std::fill(sum.begin(), sum.end(), T(0));
        for (int j = first; j < last; ++j)
          for (int n = 0; n < x.images; ++n) sum[n] += terms[std::size_t(j) * x.images + n];
        const T *gc = g.row(c, v, u), *dc = d.row(c, v, u), *xc = x.row(c, v, u);
        store_row(result.row(c, v, u), x.images, result.add,
                  [&](int n) { return gc[n] * std::pow(dc[n], T(-power)) - T(2 * scale * power) * xc[n] * sum[n]; });
      }
    });
  });
}

}  // namespace convnet

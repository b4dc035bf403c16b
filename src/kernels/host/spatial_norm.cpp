// Normalization within a map on the host. The sum over a window is that of the sums down its columns, which are made for
// a whole row of pixels.
#include <memory>
#include "../spatial_norm.h"
#include "loops.h"
#include "powers.h"
#include "strips.h"

namespace convnet {
namespace {

template <bool centred>
void norm_forward(const char* op, Stream stream, In inputs, In means, Out denoms, Out acts, int size, double scale, double power, double bias) {
  with_float_type(op, inputs.dtype, [&]<class T>(T) {
    const auto in = images_of<T>(inputs), mean = images_of<T>(means);
    const auto d = images_of<T>(denoms), out = images_of<T>(acts);
    const Windows down = windows_around(inputs.shape, size).down;
    const std::int64_t row_size = strip_row(inputs.shape, in.pitch);
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * 2 * row_size);
    for_strips(stream, inputs.shape, inputs.dtype, {in.pitch, mean.pitch, d.pitch, out.pitch}, [&](const Strip& strip, int thread) {
      T *const columns = scratch.get() + thread * 2 * row_size, *const sums = columns + row_size;
      for (int y = 0; y < in.height; ++y) {
        std::fill_n(columns, in.width * strip.count, T(0));
        for (int v = down.begin(y); v < down.end(y); ++v)
          strip.for_runs(in.width, [&](int pixel, int length) {
            const T *x = strip.row(in, v) + pixel * in.pitch, *m = strip.row(mean, v) + pixel * mean.pitch;
            T* const column = columns + pixel * strip.count;
            for (int n = 0; n < length; ++n) {
              const T deviation = centred ? x[n] - m[n] : x[n];
              column[n] += deviation * deviation;
            }
          });
        sum_along(columns, sums, in.width, strip.count, -(size / 2), size - size / 2, [](int) { return T(1); });
        strip.for_runs(in.width, [&](int pixel, int length) {
          const T* const x = strip.row(in, y) + pixel * in.pitch;
          T* const denom = sums + pixel * strip.count;
          for (int n = 0; n < length; ++n) denom[n] = T(bias) + T(scale) * denom[n];
          store_row(strip.row(d, y) + pixel * d.pitch, length, d.add, [&](int n) { return denom[n]; });
          T* const inverse = columns + pixel * strip.count;
          inverse_powers(denom, length, T(power), inverse);
          store_row(strip.row(out, y) + pixel * out.pitch, length, out.add, [&](int n) { return x[n] * inverse[n]; });
        });
      }
    });
  });
}

template <bool centred>
void norm_backward(const char* op, Stream stream, In inputs, In means, In denoms, In acts_grad, Out inputs_grad, int size, double scale, double power) {
  with_float_type(op, inputs.dtype, [&]<class T>(T) {
    const auto in = images_of<T>(inputs), mean = images_of<T>(means), d = images_of<T>(denoms), g = images_of<T>(acts_grad);
    const auto out = images_of<T>(inputs_grad);
    const Windows down = windows_around(inputs.shape, size).down;
    // Of a thread: sums down the columns and along the row, and of the last rows what a pixel adds to the sums of its
    // window (terms), and denoms^-power.
    const int rows = std::min(size, in.height);
    const std::int64_t row_size = strip_row(inputs.shape, in.pitch), thread_size = 2 * (rows + 1) * row_size;
    const auto scratch = std::make_unique_for_overwrite<T[]>(thread_count(stream) * thread_size);
    for_strips(stream, inputs.shape, inputs.dtype, {in.pitch, mean.pitch, d.pitch, g.pitch, out.pitch}, [&](const Strip& strip, int thread) {
      T *const columns = scratch.get() + thread * thread_size, *const sums = columns + row_size;
      const auto terms = [&](int y) { return sums + (1 + 2 * (y % rows)) * row_size; };
      const auto powers = [&](int y) { return terms(y) + row_size; };
      for (int y = 0, v = 0; y < in.height; ++y) {
        for (; v < down.end_with(y); ++v)
          strip.for_runs(in.width, [&](int pixel, int length) {
            const T* const x = strip.row(in, v) + pixel * in.pitch;
            const T *const denom = strip.row(d, v) + pixel * d.pitch, *const grad = strip.row(g, v) + pixel * g.pitch;
            T *const term = terms(v) + pixel * strip.count, *const inverse = powers(v) + pixel * strip.count;
            inverse_powers(denom, length, T(power), inverse);
            for (int n = 0; n < length; ++n) term[n] = grad[n] * x[n] * (inverse[n] / denom[n]);
          });
        const int length = in.width * strip.count;
        std::fill_n(columns, length, T(0));
        for (int u = down.first_with(y); u < v; ++u) {
          const T* const term = terms(u);
          for (int i = 0; i < length; ++i) columns[i] += term[i];
        }
        sum_along(columns, sums, in.width, strip.count, size / 2 - size + 1, size / 2 + 1, [](int) { return T(1); });
        strip.for_runs(in.width, [&](int pixel, int length) {
          const T *const x = strip.row(in, y) + pixel * in.pitch, *const m = strip.row(mean, y) + pixel * mean.pitch;
          const T* const grad = strip.row(g, y) + pixel * g.pitch;
          const T *const inverse = powers(y) + pixel * strip.count, *const sum = sums + pixel * strip.count;
          store_row(strip.row(out, y) + pixel * out.pitch, length, out.add,
                    [&](int n) { return grad[n] * inverse[n] - T(2 * scale * power) * (centred ? x[n] - m[n] : x[n]) * sum[n]; });
        });
      }
    });
  });
}

}  // namespace

void spatial_lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias) {
  checks::spatial_lrn_forward(inputs, denoms, acts, size);
  norm_forward<false>(__func__, stream, inputs, inputs, denoms, acts, size, scale, power, bias);
}

void spatial_lrn_backward(Stream stream, In inputs, In denoms, In acts_grad, Out inputs_grad, Out, int size, double scale, double power) {
  checks::spatial_lrn_backward(inputs, denoms, acts_grad, inputs_grad, size);
  norm_backward<false>(__func__, stream, inputs, inputs, denoms, acts_grad, inputs_grad, size, scale, power);
}

std::int64_t spatial_lrn_backward_workspace(Stream, In, In, In, Out, int, double, double) { return 0; }

void lcn_forward(Stream stream, In inputs, In means, Out denoms, Out acts, int size, double scale, double power, double bias) {
  checks::lcn_forward(inputs, means, denoms, acts, size);
  norm_forward<true>(__func__, stream, inputs, means, denoms, acts, size, scale, power, bias);
}

void lcn_backward(Stream stream, In inputs, In means, In denoms, In acts_grad, Out inputs_grad, Out, int size, double scale, double power) {
  checks::lcn_backward(inputs, means, denoms, acts_grad, inputs_grad, size);
  norm_backward<true>(__func__, stream, inputs, means, denoms, acts_grad, inputs_grad, size, scale, power);
}

std::int64_t lcn_backward_workspace(Stream, In, In, In, In, Out, int, double, double) { return 0; }

}  // namespace convnet

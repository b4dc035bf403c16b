// Stochastic pooling: device code.
#pragma once
#include "device.cuh"
#include "random_pool.h"

namespace convnet {

// Calls body(v, u, input) for the pixels of window (y, x) of channel c, row by row.
template <class T, class Body>
__device__ void for_window(const Images<const T>& inputs, const WindowGrid& windows, int c, int y, int x, int n, Body body) {
  const int bottom = windows.down.end(y), right = windows.across.end(x);
  for (int v = windows.down.begin(y); v < bottom; ++v)
    for (int u = windows.across.begin(x); u < right; ++u) body(v, u, inputs.row(c, v, u)[n]);
}

// The sum of a window's weights.
template <class T>
__device__ Computed<T> total_of(const Images<const T>& inputs, const WindowGrid& windows, int c, int y, int x, int n) {
  Computed<T> total = 0;
  for_window(inputs, windows, c, y, x, n, [&](int, int, Computed<T> input) { total += weight_of(input); });
  return total;
}

// Threads: x = image, y = row (channel, y, x) of acts.
template <class T>
__global__ void random_pool_forward_kernel(Images<const T> inputs, Rows<const double> state, Images<T> acts, WindowGrid windows,
                                           std::uint32_t seed, std::uint32_t purpose, int first_image) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const Computed<T> total = total_of(inputs, windows, c, y, x, n);
  const Computed<T> stop = stop_of(place.row, first_image + n, total, std::uint64_t(state.row(0)[state_step]), seed, purpose);
  Computed<T> act = nothing_drawn(total), sum = 0;
  for_window(inputs, windows, c, y, x, n, [&](int, int, Computed<T> input) {
    const bool before = sum <= stop;
    sum += weight_of(input);
    if (before && sum > stop) act = input;
  });
  acts.store(&acts.row(c, y, x)[n], act);
}

// Threads: x = image, y = row (channel, y, x) of inputs. Gathers: a pixel looks at the windows that hold it, and draws
// for each what it drew.
template <class T>
__global__ void random_pool_backward_kernel(Images<const T> inputs, Rows<const double> state, Images<const T> acts_grad, Images<T> inputs_grad,
                                            WindowGrid windows, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  const Place place = this_place();
  if (place.row >= inputs.rows() || place.n >= inputs.images) return;
  const Element at = element_at(inputs, place);

  const auto step = std::uint64_t(state.row(0)[state_step]);
  Computed<T> gradient = 0;
  for (int y = windows.down.first_with(at.y); y < windows.down.end_with(at.y); ++y)
    for (int x = windows.across.first_with(at.x); x < windows.across.end_with(at.x); ++x) {
      const std::int64_t row = (std::int64_t(at.c) * acts_grad.height + y) * acts_grad.width + x;
      const Computed<T> stop = stop_of(row, first_image + at.n, total_of(inputs, windows, at.c, y, x, at.n), step, seed, purpose);
      Computed<T> sum = 0;
      bool drawn = false;
      for_window(inputs, windows, at.c, y, x, at.n, [&](int v, int u, Computed<T> input) {
        const bool before = sum <= stop;
        sum += weight_of(input);
        drawn |= before && sum > stop && v == at.y && u == at.x;
      });
      if (drawn) gradient += acts_grad.row(at.c, y, x)[at.n];
    }
  inputs_grad.store(&inputs_grad.row(at.c, at.y, at.x)[at.n], gradient);
}

// Threads: x = image, y = row (channel, y, x) of acts.
template <class T>
__global__ void expected_pool_forward_kernel(Images<const T> inputs, Images<T> acts, WindowGrid windows) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  Computed<T> total = 0, squares = 0;
  for_window(inputs, windows, c, y, x, n, [&](int, int, Computed<T> input) {
    total += weight_of(input);
    squares += square(weight_of(input));
  });
  acts.store(&acts.row(c, y, x)[n], expected(total, squares));
}

// Threads: x = image, y = row (channel, y, x) of inputs.
template <class T>
__global__ void expected_pool_backward_kernel(Images<const T> inputs, Images<const T> acts, Images<const T> acts_grad, Images<T> inputs_grad,
                                              WindowGrid windows) {
  const Place place = this_place();
  if (place.row >= inputs.rows() || place.n >= inputs.images) return;
  const auto [c, v, u, n] = element_at(inputs, place);

  const Computed<T> input = inputs.row(c, v, u)[n];
  Computed<T> gradient = 0;
  for (int y = windows.down.first_with(v); y < windows.down.end_with(v); ++y)
    for (int x = windows.across.first_with(u); x < windows.across.end_with(u); ++x)
      gradient += acts_grad.row(c, y, x)[n] * expected_slope<Computed<T>>(input, total_of(inputs, windows, c, y, x, n), acts.row(c, y, x)[n]);
  inputs_grad.store(&inputs_grad.row(c, v, u)[n], gradient);
}

}  // namespace convnet

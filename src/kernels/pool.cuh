// Pooling: device code.
#pragma once
#include "device.cuh"
#include "neuron.h"
#include "pool.h"

namespace convnet {

// Threads: x = image, y = row (channel, y, x) of acts.
template <bool by_magnitude, class T>
__global__ void max_pool_forward_kernel(Images<const T> inputs, Images<T> acts, WindowGrid windows) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const int bottom = windows.down.end(y), left = windows.across.begin(x), right = windows.across.end(x);
  Computed<T> best = inputs.row(c, windows.down.begin(y), left)[n];
  for (int v = windows.down.begin(y); v < bottom; ++v) {
    const T* pixel = inputs.row(c, v, left) + n;
    for (int u = left; u < right; ++u, pixel += inputs.pitch) best = better<by_magnitude, Computed<T>>(best, *pixel);
  }
  acts.store(&acts.row(c, y, x)[n], best);
}

// What an input gets from the windows that hold it, in channel c.
template <class T>
__device__ Computed<T> from_windows(const Images<const T>& acts, const Images<const T>& acts_grad, int c, const WindowsWith& holding, int n, T input) {
  Computed<T> sum = 0;
  for (int y = holding.top; y < holding.bottom; ++y) {
    const T* act = acts.row(c, y, holding.left) + n;
    const T* grad = acts_grad.row(c, y, holding.left) + n;
    for (int x = holding.left; x < holding.right; ++x, act += acts.pitch, grad += acts_grad.pitch)
      if (input == *act) sum += *grad;
  }
  return sum;
}

// Threads: x = image, y = row (channel, y, x) of inputs. Gathers: a pixel looks at the windows that hold it.
template <class T>
__global__ void max_pool_backward_kernel(Images<const T> inputs, Images<const T> acts, Images<const T> acts_grad, Images<T> inputs_grad,
                                         WindowGrid windows, bool relu) {
  const Place place = this_place();
  if (place.row >= inputs.rows() || place.n >= inputs.images) return;
  const auto [c, v, u, n] = element_at(inputs, place);

  const T input = inputs.row(c, v, u)[n];
  T& target = inputs_grad.row(c, v, u)[n];
  inputs_grad.store(&target, from_windows(acts, acts_grad, c, windows.with(v, u), n, input));
  if (relu) target = relu_gradient<Computed<T>>(target, input);
}

// Threads: x = image, y = row (channel, y, x) of acts.
template <class T>
__global__ void avg_pool_forward_kernel(Images<const T> inputs, Images<T> acts, WindowGrid windows, bool sum) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const int bottom = windows.down.end(y), left = windows.across.begin(x), right = windows.across.end(x);
  Computed<T> total = 0;
  for (int v = windows.down.begin(y); v < bottom; ++v) {
    const T* pixel = inputs.row(c, v, left) + n;
    for (int u = left; u < right; ++u, pixel += inputs.pitch) total += *pixel;
  }
  const int area = sum ? 1 : windows.down.length(y) * windows.across.length(x);
  acts.store(&acts.row(c, y, x)[n], total / Computed<T>(area));
}

// Threads: x = image, y = row (channel, y, x) of inputs. inputs: the acts of a relu, or null. Of bfloat16 the compiler would
// make room for six blocks, and spill 8 bytes (sm_80, sm_90). 0 leaves it to itself.
template <class T>
__global__ void __launch_bounds__(rows_threads, sizeof(T) == 2 ? 4 : 0)
avg_pool_backward_kernel(Images<const T> acts_grad, Images<T> inputs_grad, WindowGrid windows, bool sum, Images<const T> inputs) {
  const Place place = this_place();
  if (place.row >= inputs_grad.rows() || place.n >= inputs_grad.images) return;
  const auto [c, v, u, n] = element_at(inputs_grad, place);

  const int bottom = windows.down.end_with(v), left = windows.across.first_with(u), right = windows.across.end_with(u);
  Computed<T> total = 0;
  for (int y = windows.down.first_with(v); y < bottom; ++y) {
    const T* grad = acts_grad.row(c, y, left) + n;
    for (int x = left; x < right; ++x, grad += acts_grad.pitch)
      total += *grad * (1 / Computed<T>(sum ? 1 : windows.down.length(y) * windows.across.length(x)));
  }
  T& target = inputs_grad.row(c, v, u)[n];
  inputs_grad.store(&target, total);
  if (inputs.data) target = relu_gradient<Computed<T>>(target, inputs.row(c, v, u)[n]);
}

}  // namespace convnet

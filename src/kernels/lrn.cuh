// Cross-map response normalization: device code.
#pragma once
#include "device.cuh"
#include "lrn.h"
#include "neuron.h"

namespace convnet {

// Threads: x = image, y = row (channel, y, x) of acts.
template <bool three_quarters, class T>
__global__ void lrn_forward_kernel(Images<const T> inputs, Images<T> denoms, Images<T> acts, int size, T scale, T power, T bias, bool blocked) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const auto [first, last] = window_of(c, acts.channels, size, blocked);
  T squares = 0;
  for (int j = first; j < last; ++j) squares += square(inputs.row(j, y, x)[n]);

  const T denom = bias + scale * squares;
  denoms.store(&denoms.row(c, y, x)[n], denom);
  acts.store(&acts.row(c, y, x)[n], inputs.row(c, y, x)[n] * inverse_power<three_quarters>(denom, power));
}

// Threads: x = image, y = row (channel, y, x) of inputs.
// Channel c feeds the channels j whose window holds c.
template <bool three_quarters, class T>
__global__ void lrn_backward_kernel(Images<const T> inputs, Images<const T> denoms, Images<const T> acts_grad, Images<T> inputs_grad,
                                    int size, T scale, T power, bool blocked, bool relu) {
  const Place place = this_place();
  if (place.row >= inputs.rows() || place.n >= inputs.images) return;
  const auto [c, y, x, n] = element_at(inputs, place);

  const auto [first, last] = windows_with(c, inputs.channels, size, blocked);
  T sum = 0;
  for (int j = first; j < last; ++j)
    sum += acts_grad.row(j, y, x)[n] * inputs.row(j, y, x)[n] * inverse_power_plus_1<three_quarters>(denoms.row(j, y, x)[n], power);

  const T input = inputs.row(c, y, x)[n];
  T& target = inputs_grad.row(c, y, x)[n];
  inputs_grad.store(&target, acts_grad.row(c, y, x)[n] * inverse_power<three_quarters>(denoms.row(c, y, x)[n], power) - 2 * scale * power * input * sum);
  if (relu) target = relu_gradient(target, input);
}

}  // namespace convnet

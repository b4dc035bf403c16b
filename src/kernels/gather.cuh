// Chosen channels: device code.
#pragma once
#include "device.cuh"
#include "gather.h"

namespace convnet {

// Threads: x = image, y = row (channel, y, x) of acts.
template <class T>
__global__ void gather_forward_kernel(Images<const T> inputs, const Computed<T>* channels, Images<T> acts) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);
  const Computed<T> channel = channels[c];
  acts.store(&acts.row(c, y, x)[n], is_channel(channel, inputs.channels) ? inputs.row(int(channel), y, x)[n] : T(NAN));
}

// Threads: x = image, y = row (channel, y, x) of inputs.
template <class T>
__global__ void gather_backward_kernel(Images<const T> acts_grad, const Computed<T>* channels, Images<T> inputs_grad) {
  const Place place = this_place();
  if (place.row >= inputs_grad.rows() || place.n >= inputs_grad.images) return;
  const auto [k, y, x, n] = element_at(inputs_grad, place);
  Computed<T> sum = 0;
  for (int c = 0; c < acts_grad.channels; ++c)
    if (channels[c] == k) sum += acts_grad.row(c, y, x)[n];
  inputs_grad.store(&inputs_grad.row(k, y, x)[n], sum);
}

}  // namespace convnet

// Neurons: device code.
#pragma once
#include "device.cuh"
#include "neuron.h"

namespace convnet {

// Threads: x = image, y = row.
template <Neuron neuron, class T>
__global__ void neuron_forward_kernel(Rows<const T> inputs, Rows<T> acts, Computed<T> a, Computed<T> b) {
  const Place place = this_place();
  if (place.row >= acts.rows || place.n >= acts.images) return;
  acts.store(&acts.row(place.row)[place.n], neuron_value<neuron, Computed<T>>(inputs.row(place.row)[place.n], a, b));
}

// Threads: x = image, y = row.
template <Neuron neuron, class T>
__global__ void neuron_backward_kernel(Rows<const T> saved, Rows<const T> acts_grad, Rows<T> inputs_grad, Computed<T> a, Computed<T> b) {
  const Place place = this_place();
  if (place.row >= inputs_grad.rows || place.n >= inputs_grad.images) return;
  const Computed<T> slope = neuron_slope<neuron, Computed<T>>(saved.row(place.row)[place.n], a, b);
  inputs_grad.store(&inputs_grad.row(place.row)[place.n], acts_grad.row(place.row)[place.n] * slope);
}

}  // namespace convnet

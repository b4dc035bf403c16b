// Neurons: device code.
#pragma once
#include "neuron.h"
#include "runs.cuh"

namespace convnet {

// Threads: x = run of images, y = row.
template <Neuron neuron, int width, class T>
__global__ void __launch_bounds__(rows_threads) neuron_forward_kernel(Rows<const T> inputs, Rows<T> acts, Computed<T> a, Computed<T> b) {
  const Place place = this_place();
  if (!exists<width>(acts, place)) return;
  const Run<T, width> input = load_run<width>(inputs, place);
  Run<Computed<T>, width> values;
#pragma unroll
  for (int e = 0; e < width; ++e) values.at[e] = neuron_value<neuron, Computed<T>>(input.at[e], a, b);
  store_run(acts, place, values);
}

// Threads: as above.
template <Neuron neuron, int width, class T>
__global__ void __launch_bounds__(rows_threads) neuron_backward_kernel(Rows<const T> saved, Rows<const T> acts_grad, Rows<T> inputs_grad, Computed<T> a, Computed<T> b) {
  const Place place = this_place();
  if (!exists<width>(inputs_grad, place)) return;
  const Run<T, width> from = load_run<width>(saved, place), grad = load_run<width>(acts_grad, place);
  Run<Computed<T>, width> values;
#pragma unroll
  for (int e = 0; e < width; ++e) values.at[e] = grad.at[e] * neuron_slope<neuron, Computed<T>>(from.at[e], a, b);
  store_run(inputs_grad, place, values);
}

}  // namespace convnet

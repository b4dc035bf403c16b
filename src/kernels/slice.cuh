// Slices of images: device code.
#pragma once
#include "device.cuh"
#include "slice.h"

namespace convnet {

// Threads: x = image, y = row (channel, y, x) of acts.
template <class T>
__global__ void slice_forward_kernel(Images<const T> inputs, Images<T> acts, SliceGrid slices) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);
  acts.store(&acts.row(c, y, x)[n], inputs.row(c, slices.down.pixel(y), slices.across.pixel(x))[n]);
}

// Threads: x = image, y = row (channel, y, x) of inputs_grad. Gathers: a pixel looks whether the slice has it.
template <class T>
__global__ void slice_backward_kernel(Images<const T> acts_grad, Images<T> inputs_grad, SliceGrid slices) {
  const Place place = this_place();
  if (place.row >= inputs_grad.rows() || place.n >= inputs_grad.images) return;
  const auto [c, v, u, n] = element_at(inputs_grad, place);
  const int y = slices.down.index(v), x = slices.across.index(u);
  inputs_grad.store(&inputs_grad.row(c, v, u)[n], y < 0 || x < 0 ? T(0) : acts_grad.row(c, y, x)[n]);
}

}  // namespace convnet

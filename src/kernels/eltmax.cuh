// Element-wise maxima: device code.
#pragma once
#include "device.cuh"
#include "eltmax.h"

namespace convnet {

// Threads: x = image, y = row.
template <class T>
__global__ void eltmax_forward_kernel(Rows<const T> inputs, Rows<const T> others, Rows<T> acts) {
  const auto [row, n] = this_place();
  if (row >= acts.rows || n >= acts.images) return;
  acts.store(&acts.row(row)[n], larger(inputs.row(row)[n], others.row(row)[n]));
}

// Threads: x = image, y = row.
template <class T>
__global__ void eltmax_backward_kernel(Rows<const T> inputs, Rows<const T> acts, Rows<const T> acts_grad, Rows<T> inputs_grad) {
  const auto [row, n] = this_place();
  if (row >= inputs_grad.rows || n >= inputs_grad.images) return;
  const bool is_maximum = inputs.row(row)[n] == acts.row(row)[n];
  inputs_grad.store(&inputs_grad.row(row)[n], is_maximum ? acts_grad.row(row)[n] : T(0));
}

}  // namespace convnet

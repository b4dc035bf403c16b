// Scaled copies: device code.
#pragma once
#include "device.cuh"

namespace convnet {

// Threads: x = image, y = row.
template <class T, class U>
__global__ void scaled_copy_kernel(Rows<const T> inputs, Rows<U> acts, Computed<T> factor) {
  const Place place = this_place();
  if (place.row >= acts.rows || place.n >= acts.images) return;
  acts.store(&acts.row(place.row)[place.n], factor * inputs.row(place.row)[place.n]);
}

}  // namespace convnet

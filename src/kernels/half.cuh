// Half precision: device code.
#pragma once
#include "device.cuh"
#include "half.h"

namespace convnet {

// Threads: x = image, y = row.
template <class T>
__global__ void to_half_kernel(Rows<const T> values, Rows<std::uint16_t> halves) {
  const Place place = this_place();
  if (place.row >= halves.rows || place.n >= halves.images) return;
  halves.row(place.row)[place.n] = half_bits(float(values.row(place.row)[place.n]));
}

// Threads: as above.
template <class T>
__global__ void from_half_kernel(Rows<const std::uint16_t> halves, Rows<T> values) {
  const Place place = this_place();
  if (place.row >= values.rows || place.n >= values.images) return;
  values.store(&values.row(place.row)[place.n], T(half_value(halves.row(place.row)[place.n])));
}

}  // namespace convnet

// Relu with noise: device code.
#pragma once
#include "device.cuh"
#include "noisy_relu.h"

namespace convnet {

// Threads: x = image, y = four consecutive rows, which share one draw of four words.
template <class T>
__global__ void noisy_relu_kernel(Rows<const T> inputs, Rows<const double> state, Rows<T> acts, std::uint32_t seed, std::uint32_t purpose, int first_image) {
  const Place place = this_place();
  if (place.row * 4 >= acts.rows || place.n >= acts.images) return;

  const auto step = std::uint64_t(state.row(0)[state_step]);
  const RandomWords random = random_words(std::uint32_t(place.row), std::uint32_t(first_image + place.n), step, seed, purpose);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = place.row * 4 + i;
    if (row < acts.rows) acts.store(&acts.row(row)[place.n], noisy_relu_value<Computed<T>>(inputs.row(row)[place.n], random_normal<Computed<T>>(random, i)));
  }
}

}  // namespace convnet

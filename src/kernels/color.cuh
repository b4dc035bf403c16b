// Colour spaces: device code.
#pragma once
#include "color.h"
#include "device.cuh"

namespace convnet {

// Stores the three channels of a pixel.
template <class T>
__device__ void store_color(const Images<T>& acts, const Place& pixel, const Color<T>& color) {
  for (int c = 0; c < 3; ++c) acts.store(&acts.row(c, 0, 0)[pixel.row * acts.pitch + pixel.n], color.channel[c]);
}

// Threads: x = image, y = pixel.
template <class T>
__global__ void rgb_to_yuv_kernel(Images<const T> inputs, Images<T> acts) {
  const Place pixel = this_place();
  if (pixel.row >= acts.rows() / 3 || pixel.n >= acts.images) return;
  const std::int64_t at = pixel.row * inputs.pitch + pixel.n;
  store_color(acts, pixel, yuv_of(inputs.row(0, 0, 0)[at], inputs.row(1, 0, 0)[at], inputs.row(2, 0, 0)[at]));
}

// Threads: x = image, y = pixel.
template <class T>
__global__ void rgb_to_lab_kernel(Images<const T> inputs, Images<T> acts, bool center) {
  const Place pixel = this_place();
  if (pixel.row >= acts.rows() / 3 || pixel.n >= acts.images) return;
  const std::int64_t at = pixel.row * inputs.pitch + pixel.n;
  store_color(acts, pixel, lab_of(inputs.row(0, 0, 0)[at], inputs.row(1, 0, 0)[at], inputs.row(2, 0, 0)[at], center));
}

}  // namespace convnet

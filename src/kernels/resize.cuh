// Bilinear resizing: device code.
#pragma once
#include "device.cuh"
#include "resize.h"

namespace convnet {

// The image between four pixels.
template <class T>
__device__ T interpolate(const Images<const T>& inputs, int c, Neighbours down, Neighbours across, int n) {
  const T above = between(inputs.row(c, down.first, across.first)[n], inputs.row(c, down.first, across.second)[n], T(across.share));
  const T below = between(inputs.row(c, down.second, across.first)[n], inputs.row(c, down.second, across.second)[n], T(across.share));
  return between(above, below, T(down.share));
}

// Threads: x = image, y = row (channel, y, x) of acts.
template <class T>
__global__ void resize_kernel(Images<const T> inputs, Images<T> acts, Stretch down, Stretch across) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);
  acts.store(&acts.row(c, y, x)[n], interpolate(inputs, c, down.at(y), across.at(x), n));
}

// Threads: x = image, y = line (channel, y) of acts, whose pixels share the minibatch's one draw.
template <class T>
__global__ void random_scale_crop_kernel(Images<const T> inputs, Rows<const double> state, Images<T> acts, int smallest,
                                         std::uint32_t seed, std::uint32_t purpose) {
  const auto [line, n] = this_place();
  if (line >= std::int64_t(acts.channels) * acts.height || n >= acts.images) return;
  const int c = int(line / acts.height), y = int(line % acts.height), side = inputs.height;

  const RandomScale drawn = draw_scale(side, acts.height, smallest, std::uint64_t(state.row(0)[state_step]), seed, purpose);
  const Stretch stretched = stretch(drawn.scale, side, drawn.size);
  for (int x = 0; x < acts.width; ++x) {
    const int v = y + drawn.top, u = x + drawn.left;
    acts.store(&acts.row(c, y, x)[n], drawn.size == side ? inputs.row(c, v, u)[n] : interpolate(inputs, c, stretched.at(v), stretched.at(u), n));
  }
}

}  // namespace convnet

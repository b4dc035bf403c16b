// Pixels to activities: device code.
#pragma once
#include "device.cuh"
#include "image.h"

namespace convnet {

// Threads: x = image, y = line (channel, y) of acts, whose pixels share the image's one draw.
template <class T, bool noisy>
__global__ void image_forward_kernel(Images<const unsigned char> pixels, Rows<const T> mean, Rows<const T> colors, Rows<const double> state,
                                     Images<T> acts, T scale, Cropping cropping) {
  const auto [line, n] = this_place();
  if (line >= std::int64_t(acts.channels) * acts.height || n >= acts.images) return;
  const int c = int(line / acts.height), y = int(line % acts.height);

  const auto step = std::uint64_t(state.row(0)[state_step]);
  const Crop crop = cropping.crop(n, step);
  T noise = 0;
  if constexpr (noisy) noise = noise_of(colors.row(c), colors.images, cropping.noise_words(n, step));

  const int first = (crop.mirrored ? acts.width - 1 : 0) + crop.left;
  const unsigned char* pixel = &pixels.row(c, y + crop.top, first)[n];
  const std::int64_t next = crop.mirrored ? -pixels.pitch : pixels.pitch;
  const T* const means = mean.row(line);
  T* act = &acts.row(c, y, 0)[n];
  for (int x = 0; x < acts.width; ++x, pixel += next, act += acts.pitch) {
    if constexpr (noisy) acts.store(act, scale * (T(*pixel) - means[x] + noise));
    else acts.store(act, T(*pixel) - means[x]);
  }
}

}  // namespace convnet

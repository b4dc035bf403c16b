// Pixels to activities: what device code and host share.
#pragma once
#include "ops.h"
#include "philox.h"

namespace convnet {

struct Crop {
  int top, left;
  bool mirrored;
};

// An image's random crop, of pixels that have `down` rows and `right` columns too many.
HOST_DEVICE inline Crop random_crop(int image, std::uint64_t step, std::uint32_t seed,
                                    std::uint32_t purpose, int down, int right) {
  const RandomWords words = random_words(0, std::uint32_t(image), step, seed, purpose);
  return {random_below(words.word[0], down + 1), random_below(words.word[1], right + 1),
          bool(words.word[2] & 1)};
}

namespace checks {

inline void image_forward(const In& pixels, const In& mean, const In& state, const Out& acts) {
  CHECK_RANK(pixels, 4);
  CHECK_DTYPE(pixels, Dtype::uint8);
  CHECK_RANK(acts, 4);
  CHECK(pixels.shape[0] == acts.shape[0] && pixels.shape[3] == acts.shape[3]);
  CHECK(pixels.shape[1] >= acts.shape[1] && pixels.shape[2] >= acts.shape[2]);
  CHECK_SHAPE(mean, (Shape{3, {acts.shape[0], acts.shape[1], acts.shape[2]}}));
  CHECK_DTYPE(mean, acts.dtype);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
}

}  // namespace checks

}  // namespace convnet

// Pixels to activities: what device code and host share.
#pragma once
#include "ops.h"
#include "philox.h"

namespace convnet {

constexpr int image_views = 10, most_noise_colors = 4;

struct Crop {
  int top, left;
  bool mirrored;

  // The column of the pixels that column x of acts is.
  HOST_DEVICE int column(int x, int width) const { return left + (mirrored ? width - 1 - x : x); }
};

// Where an op cuts its images, and what it draws them by.
struct Cropping {
  int down, right;  // rows and columns that the pixels have too many
  bool random;
  int view, images_per_crop;
  std::uint32_t seed, purpose;
  int first_image;

  HOST_DEVICE Crop crop(int n, std::uint64_t step) const {
    if (random) {
      const RandomWords words = random_words(0, std::uint32_t((first_image + n) / images_per_crop), step, seed, purpose);
      return {random_below(words.word[0], down + 1), random_below(words.word[1], right + 1), bool(words.word[2] & 1)};
    }
    const int place = view % (image_views / 2);  // the centre, then the corners
    if (place == 0) return {down / 2, right / 2, view != place};
    return {place <= 2 ? 0 : down, place % 2 ? 0 : right, view != place};
  }

  HOST_DEVICE RandomWords noise_words(int n, std::uint64_t step) const {
    return random_words(1, std::uint32_t(first_image + n), step, seed, purpose);
  }
};

inline Cropping cropping(const In& pixels, const Out& acts, bool random, int view, int images_per_crop, std::uint32_t seed,
                         std::uint32_t purpose, int first_image) {
  return {int(pixels.shape[2] - acts.shape[1]), int(pixels.shape[3] - acts.shape[2]), random, view, images_per_crop, seed, purpose, first_image};
}

// What is added to channel c of an image.
template <class T>
HOST_DEVICE T noise_of(const T* colors, int count, const RandomWords& words) {
  T noise = 0;
  for (int k = 0; k < count; ++k) noise += colors[k] * random_normal<T>(words, k);
  return noise;
}

namespace checks {

inline void image_forward(const In& pixels, const In& mean, const In& state, const Out& acts, int view, int images_per_crop) {
  CHECK_RANK(pixels, 4);
  CHECK_DTYPE(pixels, Dtype::uint8);
  CHECK_RANK(acts, 4);
  CHECK(pixels.shape[0] == acts.shape[3] && pixels.shape[1] == acts.shape[0]);
  CHECK(pixels.shape[2] >= acts.shape[1] && pixels.shape[3] >= acts.shape[2]);
  CHECK_SHAPE(mean, (Shape{3, {acts.shape[0], acts.shape[1], acts.shape[2]}}));
  CHECK_DTYPE(mean, computed(acts.dtype));
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  CHECK(view >= 0 && view < image_views);
  CHECK(images_per_crop >= 1);
}

inline void noisy_image_forward(const In& pixels, const In& mean, const In& colors, const In& state, const Out& acts, int images_per_crop) {
  image_forward(pixels, mean, state, acts, 0, images_per_crop);
  CHECK_RANK(colors, 2);
  CHECK(colors.shape[0] == acts.shape[0]);
  CHECK(colors.shape[1] >= 1 && colors.shape[1] <= most_noise_colors);
  CHECK_DTYPE(colors, computed(acts.dtype));
}

}  // namespace checks

}  // namespace convnet

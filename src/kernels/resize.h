// Bilinear resizing: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"
#include "philox.h"

namespace convnet {

// Two neighbouring pixels along one side, and what the second one counts; the first counts the rest.
struct Neighbours {
  int first, second;
  double share;
};

// How resizing sees one side of the images: target pixel i lies at i * scale + offset.
struct Stretch {
  double scale, offset;
  int pixels;

  // In float64: the pixels of large images are far from 0, where float32 leaves few bits to the share.
  HOST_DEVICE Neighbours at(int i) const {
    const double wanted = i * scale + offset, farthest = pixels - 1.01;
    const double place = wanted < farthest ? (wanted > 0 ? wanted : 0) : (farthest > 0 ? farthest : 0);
    const int first = int(place);
    return {first, first + 1 < pixels ? first + 1 : first, place - first};
  }
};

// Of `pixels` to `count` others, centre on centre.
HOST_DEVICE inline Stretch stretch(double scale, int pixels, int count) {
  return {scale, (pixels - count * scale) / 2, pixels};
}

template <class T>
HOST_DEVICE T between(T first, T second, T share) {
  return (1 - share) * first + share * second;
}

// How large a minibatch's images are made, and what is cut out of them.
struct RandomScale {
  int size;      // of the resized images, down and across
  double scale;  // of resizing; 1: they are left as they are
  int top, left;
};

// side, crop: pixels of the images and of what is cut out, down and across; smallest: the size at the largest scale.
HOST_DEVICE inline RandomScale draw_scale(int side, int crop, int smallest, std::uint64_t step, std::uint32_t seed, std::uint32_t purpose) {
  const RandomWords words = random_words(0, 0, step, seed, purpose);
  // Size crop + i, i from 0 to count - 1, has the weight (i + 1)^2; those up to i make (i + 1) (i + 2) (2 i + 3) / 6.
  const int count = side - smallest + 1;
  const auto weights_to = [](double i) { return (i + 1) * (i + 2) * (2 * i + 3) / 6; };
  const double drawn = words.word[0] * 0x1p-32 * weights_to(count - 1);
  int first = 0, last = count - 1;  // the first i whose sum is above `drawn`
  while (first < last) {
    const int middle = (first + last) / 2;
    if (weights_to(middle) > drawn) last = middle;
    else first = middle + 1;
  }
  const int size = crop + first;
  // Of the scales that give this size, down to 1.
  const double most = double(side) / size, next = double(side) / (size + 1), least = next > 1 ? next : 1;
  const double scale = size == side ? 1 : least + words.word[1] * 0x1p-32 * (most - least);
  return {size, scale, random_below(words.word[2], size - crop + 1), random_below(words.word[3], size - crop + 1)};
}

namespace checks {

inline void resize(const In& inputs, const Out& acts, double scale) {
  CHECK_RANK(inputs, 4);
  CHECK_RANK(acts, 4);
  CHECK(acts.shape[0] == inputs.shape[0] && acts.shape[3] == inputs.shape[3]);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK(scale > 0);
}

// Gives the smallest size that max_scale leaves.
inline int random_scale_crop(const In& inputs, const In& state, const Out& acts, double max_scale) {
  CHECK_RANK(inputs, 4);
  CHECK_RANK(acts, 4);
  CHECK(acts.shape[0] == inputs.shape[0] && acts.shape[3] == inputs.shape[3]);
  CHECK_DTYPE(acts, inputs.dtype);
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_step);
  CHECK(inputs.shape[1] == inputs.shape[2] && acts.shape[1] == acts.shape[2]);
  CHECK(max_scale >= 1);
  const int smallest = int(inputs.shape[1] / max_scale);
  CHECK(acts.shape[1] >= smallest && acts.shape[1] <= inputs.shape[1]);
  return smallest;
}

}  // namespace checks

}  // namespace convnet

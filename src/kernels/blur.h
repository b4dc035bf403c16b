// Gaussian blur: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"

namespace convnet {

// The weights along one side, of pixels -radius to radius.
template <class T>
struct BlurWeights {
  static constexpr int largest = 31;
  int radius;
  T weight[largest];

  HOST_DEVICE T at(int pixel) const { return weight[pixel + radius]; }
};

template <class T>
BlurWeights<T> blur_weights(int size, double stdev) {
  BlurWeights<T> weights{size / 2, {}};
  double bells[BlurWeights<T>::largest], sum = 0;
  for (int i = 0; i < size; ++i) {
    const double distance = (i - size / 2) / stdev;
    sum += bells[i] = std::exp(-distance * distance / 2);
  }
  for (int i = 0; i < size; ++i) weights.weight[i] = T(bells[i] / sum);
  return weights;
}

namespace checks {

inline void blur(const In& inputs, const Out& acts, int size, double stdev) {
  CHECK_RANK(inputs, 4);
  CHECK_LIKE(acts, inputs);
  if (size < 1 || size > BlurWeights<float>::largest || size % 2 == 0)
    fail_check(__func__, "size " + std::to_string(size) + ", expected an odd number from 1 to " + std::to_string(BlurWeights<float>::largest));
  CHECK(stdev > 0);
}

}  // namespace checks

}  // namespace convnet

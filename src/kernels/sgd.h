// SGD, and the check that comes before it: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"

namespace convnet {

// What divides a gradient g, after the averages have taken it in.
template <class T>
HOST_DEVICE T spread_with(T g, T momentum, T epsilon, T& mean, T& square) {
  mean = momentum * mean + (1 - momentum) * g;
  square = momentum * square + (1 - momentum) * g * g;
  const T variance = square - mean * mean;
  return std::sqrt((variance > 0 ? variance : 0) + epsilon);
}

// How sgd_update changes a weight. The sums are rounded one by one: left to itself, nvcc contracts them in one kernel and not in
// another, and ops that are this step promise its very bits.
template <class T>
struct SgdStep {
  T rate, momentum, decay, images;

  HOST_DEVICE void operator()(T gradient, T& increment, T& weight) const {
    increment = sum_of(sum_of(momentum * increment, -rate * gradient / images), -decay * rate * weight);
    weight = sum_of(weight, increment);
  }
};

constexpr int most_tensors = 24;  // of sgd_update_many: as many as the 4 KB hold that any GPU passes to a kernel

namespace checks {

inline void sgd_update(const In& state, const In& weights_grad, const Out& increments,
                       const Out& weights, int rate_slot, int images) {
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(rate_slot >= 0 && state.shape[0] > state_rates + rate_slot);
  CHECK_LIKE(increments, weights_grad);
  CHECK_LIKE(weights, weights_grad);
  CHECK(!increments.add && !weights.add);
  CHECK(images > 0);
}

inline void sgd_update_many(const In& state, const Many<In>& weights_grad, const Many<Out>& increments, const Many<Out>& weights,
                            const Many<int>& rate_slot, const Many<double>& momentum, const Many<double>& decay, const Many<int>& images) {
  const std::size_t tensors = weights.size();
  CHECK(tensors >= 1 && tensors <= most_tensors);
  CHECK(weights_grad.size() == tensors && increments.size() == tensors);
  CHECK(rate_slot.size() == tensors && momentum.size() == tensors && decay.size() == tensors && images.size() == tensors);
  for (std::size_t i = 0; i < tensors; ++i) {
    sgd_update(state, weights_grad[i], increments[i], weights[i], rate_slot[i], images[i]);
    CHECK_DTYPE(weights[i], weights[0].dtype);
  }
}

inline void adaptive_update(const In& state, const In& weights_grad, const Out& means, const Out& squares, const Out& increments,
                            const Out& weights, int rate_slot, double momentum, double epsilon, int images) {
  sgd_update(state, weights_grad, increments, weights, rate_slot, images);
  CHECK_LIKE(means, weights_grad);
  CHECK_LIKE(squares, weights_grad);
  CHECK(!means.add && !squares.add);
  CHECK(momentum >= 0 && momentum < 1);
  CHECK(epsilon > 0);
}

inline void check_finite(const Out& state) {
  CHECK_RANK(state, 1);
  CHECK_DTYPE(state, Dtype::float64);
  CHECK(state.shape[0] > state_finite);
  CHECK(!state.add);
}

}  // namespace checks

}  // namespace convnet

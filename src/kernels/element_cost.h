// Costs that are sums over elements: their terms and slopes, for device code and host.
#pragma once
#include <cmath>
#include "ops.h"

namespace convnet {

// The logarithm of 0 is -50; of what is not a number it is none, and shows.
HOST_DEVICE inline double safe_log(double p) { return p <= 0 ? -50 : std::log(p); }

// Its slope; at most 2^126, where 1 / p would be infinite in float32.
template <class T>
HOST_DEVICE T safe_log_slope(T p) {
  return p <= 0 ? 0 : 1 / (p < T(0x1p-126) ? T(0x1p-126) : p);
}

// ---- terms: what an element adds to the cost ----

template <class T>
struct Sum2Term {
  Rows<const T> inputs;
  HOST_DEVICE double operator()(std::int64_t r, int n) const {
    const double x = inputs.row(r)[n];
    return x * x;
  }
};

template <class T>
struct Gsum2Term {
  Rows<const T> gates, inputs;
  HOST_DEVICE double operator()(std::int64_t r, int n) const {
    const double x = inputs.row(r)[n];
    return gates.row(0)[n] * (x * x);
  }
};

template <class T>
struct RflickrTerm {
  Rows<const T> targets, inputs;
  HOST_DEVICE double operator()(std::int64_t r, int n) const {
    const double d = double(inputs.row(r)[n]) - double(targets.row(r)[n]);
    return std::log1p(d * d);
  }
};

template <class T>
struct BceTerm {
  Rows<const T> targets, probs;
  double positive_weight;
  HOST_DEVICE double operator()(std::int64_t r, int n) const {
    const double t = targets.row(r)[n], p = probs.row(r)[n];
    return -(positive_weight * t * safe_log(p) + (1 - t) * safe_log(1 - p));
  }
};

// 1 where a probability is on the wrong side of 1/2.
template <class T>
struct WrongTerm {
  Rows<const T> targets, probs;
  HOST_DEVICE double operator()(std::int64_t r, int n) const { return T(probs.row(r)[n] > T(0.5)) != targets.row(r)[n]; }
};

// ---- slopes: the gradient at an element ----

template <class T>
struct Gsum2Slope {
  Rows<const T> gates, inputs;
  T coeff;
  HOST_DEVICE T operator()(std::int64_t r, int n) const { return 2 * coeff * gates.row(0)[n] * inputs.row(r)[n]; }
};

template <class T>
struct RflickrSlope {
  Rows<const T> targets, inputs;
  T coeff;
  HOST_DEVICE T operator()(std::int64_t r, int n) const {
    const T d = inputs.row(r)[n] - targets.row(r)[n];
    return 2 * coeff * (d / (1 + d * d));
  }
};

template <class T>
struct BceSlope {
  Rows<const T> targets, probs;
  T coeff, positive_weight;
  HOST_DEVICE T operator()(std::int64_t r, int n) const {
    const T t = targets.row(r)[n], p = probs.row(r)[n];
    return coeff * ((1 - t) * safe_log_slope(1 - p) - positive_weight * t * safe_log_slope(p));
  }
};

template <class T>
struct BceLogisticSlope {
  Rows<const T> targets, probs;
  T coeff, positive_weight;
  HOST_DEVICE T operator()(std::int64_t r, int n) const {
    const T t = targets.row(r)[n], p = probs.row(r)[n];
    return coeff * ((1 - t) * p - positive_weight * t * (1 - p));
  }
};

namespace checks {

// Float64 numbers that are sums over the images.
inline void costs_are(const char* op, const Out& costs, std::int64_t count) {
  check_shape(op, "costs", costs.shape, {1, {count}});
  check_dtype(op, "costs", costs.dtype, Dtype::float64);
}

inline void sum2_forward(const Out& costs) { costs_are(__func__, costs, 1); }

inline void gsum2_forward(const In& gates, const In& inputs, const Out& costs) {
  CHECK_SHAPE(gates, (Shape{4, {1, 1, 1, inputs.shape.images()}}));
  CHECK_DTYPE(gates, inputs.dtype);
  costs_are(__func__, costs, 1);
}

inline void gsum2_backward_gates(const In& inputs, const Out& gates_grad) {
  CHECK_SHAPE(gates_grad, (Shape{4, {1, 1, 1, inputs.shape.images()}}));
  CHECK_DTYPE(gates_grad, inputs.dtype);
}

inline void gsum2_backward_inputs(const In& gates, const In& inputs, const Out& inputs_grad) {
  CHECK_SHAPE(gates, (Shape{4, {1, 1, 1, inputs.shape.images()}}));
  CHECK_DTYPE(gates, inputs.dtype);
  CHECK_LIKE(inputs_grad, inputs);
}

inline void rflickr_forward(const In& targets, const In& inputs, const Out& costs) {
  CHECK_LIKE(targets, inputs);
  costs_are(__func__, costs, 1);
}

inline void rflickr_backward(const In& targets, const In& inputs, const Out& inputs_grad) {
  CHECK_LIKE(targets, inputs);
  CHECK_LIKE(inputs_grad, inputs);
}

inline void bce_forward(const In& targets, const In& probs, const Out& costs) {
  CHECK_LIKE(targets, probs);
  costs_are(__func__, costs, 3);
}

inline void bce_backward(const In& targets, const In& probs, const Out& probs_grad) {
  CHECK_LIKE(targets, probs);
  CHECK_LIKE(probs_grad, probs);
}

inline void bce_logistic_backward(const In& targets, const In& probs, const Out& inputs_grad) {
  CHECK_LIKE(targets, probs);
  CHECK_LIKE(inputs_grad, probs);
}

}  // namespace checks

}  // namespace convnet

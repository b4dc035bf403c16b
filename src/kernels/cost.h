// Multinomial logistic regression: what device code and host share.
#pragma once
#include <cmath>
#include "ops.h"
#include "sgd.h"

namespace convnet {

// Whether a label names one of the classes; one that does not costs NaN.
template <class T>
HOST_DEVICE bool is_class(T label, std::int64_t classes) {
  return label >= 0 && label < T(classes) && label == T(std::int64_t(label));
}

// Share of the topk slots that go to a class with `likelier` classes before it, one of `tied` of
// equal probability.
HOST_DEVICE inline double credit_of(int likelier, int tied, int topk) {
  const int slots = topk - likelier;
  return slots <= 0 ? 0 : tied <= slots ? 1 : double(slots) / tied;
}

// What an image adds to the three costs.
struct LogregTerms {
  double of[3];
};
template <class T>
HOST_DEVICE LogregTerms logreg_terms(T prob, int likelier, int tied, int topk) {
  const double missed = prob == prob ? 1 : double(prob);  // or NaN, as the cost
  return {{-std::log(double(prob)), missed - credit_of(likelier, tied, 1), missed - credit_of(likelier, tied, topk)}};
}

namespace checks {

inline void labels_like(const char* op, const In& labels, const In& probs) {
  check_shape(op, "labels", labels.shape, {4, {1, 1, 1, probs.shape.images()}});
  check_dtype(op, "labels", labels.dtype, probs.dtype);
}

inline void logreg_forward(const In& labels, const In& probs, const Out& costs, int topk) {
  labels_like(__func__, labels, probs);
  CHECK_SHAPE(costs, (Shape{1, {3}}));
  CHECK_DTYPE(costs, Dtype::float64);
  CHECK(topk > 0);
}

inline void logreg_backward(const In& labels, const In& probs, const Out& probs_grad) {
  labels_like(__func__, labels, probs);
  CHECK_LIKE(probs_grad, probs);
}

inline void logreg_softmax_backward(const In& labels, const In& probs, const Out& inputs_grad) {
  labels_like(__func__, labels, probs);
  CHECK_LIKE(inputs_grad, probs);
}

inline void logreg_softmax(const In& labels, const In& inputs, const Out& state, const Out& probs, const Out& costs, const Out& inputs_grad, int topk) {
  CHECK_SHAPE(probs, inputs.shape);
  CHECK_DTYPE(probs, computed(inputs.dtype));
  logreg_forward(labels, as_in(probs), costs, topk);
  CHECK_LIKE(inputs_grad, inputs);
  check_finite(state);
  CHECK(!probs.add && !costs.add && !inputs_grad.add);
}

}  // namespace checks

}  // namespace convnet

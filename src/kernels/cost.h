// Multinomial logistic regression: what device code and host share.
#pragma once
#include "ops.h"

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

}  // namespace checks

}  // namespace convnet

// Multinomial logistic regression: launchers.
#include "cost.cuh"

namespace convnet {

static std::int64_t terms_bytes(const Shape& probs) { return 3 * probs.images() * std::int64_t(sizeof(double)); }

// What the images add to the costs, (3, images), in the workspace.
static Rows<double> terms_in(const Out& workspace, const Shape& probs) {
  return {static_cast<double*>(workspace.ptr), 3, int(probs.images()), probs.images(), false};
}

static void sum_costs(Stream stream, const Rows<double>& terms, const Out& costs, const Rows<double>& state) {
  launch<sum_costs_kernel>({dim3(1), dim3(sum_threads)}, stream, Rows<const double>{terms.data, terms.rows, terms.images, terms.pitch, false}, rows_of<double>(costs), state);
}

void logreg_forward(Stream stream, In labels, In probs, Out costs, Out workspace, int topk) {
  checks::logreg_forward(labels, probs, costs, topk);
  CHECK_WORKSPACE(workspace, terms_bytes(probs.shape));
  const Rows<double> terms = terms_in(workspace, probs.shape);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<logreg_forward_kernel<T>>(softmax_grid(probs.shape), stream, rows_of<T>(labels), rows_of<T>(probs), terms, topk);
  });
  sum_costs(stream, terms, costs, {});
}

std::int64_t logreg_forward_workspace(Stream, In labels, In probs, Out costs, int topk) {
  checks::logreg_forward(labels, probs, costs, topk);
  return terms_bytes(probs.shape);
}

void logreg_softmax(Stream stream, In labels, In inputs, Out state, Out probs, Out costs, Out inputs_grad, Out workspace, int topk, double coeff) {
  checks::logreg_softmax(labels, inputs, state, probs, costs, inputs_grad, topk);
  CHECK_WORKSPACE(workspace, terms_bytes(probs.shape));
  const Rows<double> terms = terms_in(workspace, probs.shape);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    using Sum = Computed<T>;
    launch<logreg_softmax_kernel<T>>(softmax_grid(probs.shape), stream, rows_of<Sum>(labels), rows_of<T>(inputs), rows_of<Sum>(probs), terms,
           rows_of<T>(inputs_grad), topk, Sum(coeff));
  });
  sum_costs(stream, terms, costs, rows_of<double>(state));
}

std::int64_t logreg_softmax_workspace(Stream, In labels, In inputs, Out state, Out probs, Out costs, Out inputs_grad, int topk, double) {
  checks::logreg_softmax(labels, inputs, state, probs, costs, inputs_grad, topk);
  return terms_bytes(probs.shape);
}

void logreg_backward(Stream stream, In labels, In probs, Out probs_grad, double coeff) {
  checks::logreg_backward(labels, probs, probs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<logreg_backward_kernel<T>>(rows_grid(probs.shape.rows(), int(probs.shape.images())), stream,
           rows_of<T>(labels), rows_of<T>(probs), rows_of<T>(probs_grad), T(coeff));
  });
}

void logreg_softmax_backward(Stream stream, In labels, In probs, Out inputs_grad, double coeff) {
  checks::logreg_softmax_backward(labels, probs, inputs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<logreg_softmax_backward_kernel<T>>(rows_grid(probs.shape.rows(), int(probs.shape.images())), stream,
           rows_of<T>(labels), rows_of<T>(probs), rows_of<T>(inputs_grad), T(coeff));
  });
}

}  // namespace convnet

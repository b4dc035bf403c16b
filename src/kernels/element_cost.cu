// Costs that are sums over elements: launchers.
#include "element_cost.cuh"

namespace convnet {

namespace {

template <class Term>
void sum_terms(Stream stream, const Term& term, const Shape& inputs, const Out& costs) {
  launch<sum_terms_kernel<Term>>({dim3(1), dim3(32, 32)}, stream, term, inputs.rows(), int(inputs.images()), rows_of<double>(costs));
}

template <class T, class Slope>
void slopes(Stream stream, const Slope& slope, const Out& inputs_grad) {
  launch<slopes_kernel<T, Slope>>(rows_grid(inputs_grad.shape.rows(), int(inputs_grad.shape.images())), stream, slope, rows_of<T>(inputs_grad));
}

}  // namespace

void sum2_forward(Stream stream, In inputs, Out costs) {
  checks::sum2_forward(costs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) { sum_terms(stream, Sum2Term<T>{rows_of<T>(inputs)}, inputs.shape, costs); });
}

void gsum2_forward(Stream stream, In gates, In inputs, Out costs) {
  checks::gsum2_forward(gates, inputs, costs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    sum_terms(stream, Gsum2Term<T>{rows_of<T>(gates), rows_of<T>(inputs)}, inputs.shape, costs);
  });
}

void gsum2_backward_gates(Stream stream, In inputs, Out gates_grad, double coeff) {
  checks::gsum2_backward_gates(inputs, gates_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    launch<gsum2_backward_gates_kernel<T>>({dim3(unsigned(ceil_div<std::int64_t>(inputs.shape.images(), 32))), dim3(32, 32)}, stream,
           rows_of<T>(inputs), rows_of<T>(gates_grad), coeff);
  });
}

void gsum2_backward_inputs(Stream stream, In gates, In inputs, Out inputs_grad, double coeff) {
  checks::gsum2_backward_inputs(gates, inputs, inputs_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    slopes<T>(stream, Gsum2Slope<T>{rows_of<T>(gates), rows_of<T>(inputs), T(coeff)}, inputs_grad);
  });
}

void rflickr_forward(Stream stream, In targets, In inputs, Out costs) {
  checks::rflickr_forward(targets, inputs, costs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    sum_terms(stream, RflickrTerm<T>{rows_of<T>(targets), rows_of<T>(inputs)}, inputs.shape, costs);
  });
}

void rflickr_backward(Stream stream, In targets, In inputs, Out inputs_grad, double coeff) {
  checks::rflickr_backward(targets, inputs, inputs_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    slopes<T>(stream, RflickrSlope<T>{rows_of<T>(targets), rows_of<T>(inputs), T(coeff)}, inputs_grad);
  });
}

void bce_forward(Stream stream, In targets, In probs, Out costs, double positive_weight) {
  checks::bce_forward(targets, probs, costs);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    launch<bce_forward_kernel<T>>({dim3(1), dim3(32, 32)}, stream, rows_of<T>(targets), rows_of<T>(probs), rows_of<double>(costs), positive_weight);
  });
}

void bce_backward(Stream stream, In targets, In probs, Out probs_grad, double coeff, double positive_weight) {
  checks::bce_backward(targets, probs, probs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    slopes<T>(stream, BceSlope<T>{rows_of<T>(targets), rows_of<T>(probs), T(coeff), T(positive_weight)}, probs_grad);
  });
}

void bce_logistic_backward(Stream stream, In targets, In probs, Out inputs_grad, double coeff, double positive_weight) {
  checks::bce_logistic_backward(targets, probs, inputs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    slopes<T>(stream, BceLogisticSlope<T>{rows_of<T>(targets), rows_of<T>(probs), T(coeff), T(positive_weight)}, inputs_grad);
  });
}

}  // namespace convnet

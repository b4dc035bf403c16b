// Costs that are sums over elements, on the host.
#include <algorithm>
#include <limits>
#include <vector>
#include "../element_cost.h"
#include "loops.h"

namespace convnet {
namespace {

// The sum of the terms of all elements: of some rows at a time, then of these sums in order. Which rows they are
// depends on the shape alone.
template <class Term>
double sum_terms(Stream stream, const Shape& shape, const Term& term) {
  constexpr std::int64_t elements = 4096;
  const std::int64_t rows = shape.rows(), per_task = std::max<std::int64_t>(1, elements / std::max<std::int64_t>(1, shape.images()));
  std::vector<double> sums(std::size_t((rows + per_task - 1) / per_task));
  parallel_for(stream, std::int64_t(sums.size()), [&](std::int64_t task, int) {
    double sum = 0;
    for (std::int64_t r = task * per_task; r < std::min(rows, (task + 1) * per_task); ++r)
      for (int n = 0; n < shape.images(); ++n) sum += term(r, n);
    sums[std::size_t(task)] = sum;
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

template <class T, class Slope>
void slopes(Stream stream, const Out& inputs_grad, const Slope& slope) {
  const auto out = rows_of<T>(inputs_grad);
  for_row_ranges(stream, out.rows, out.pitch, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) store_row(out.row(r), out.images, out.add, [&](int n) { return slope(r, n); });
  });
}

template <int count>
void store_costs(const Out& costs, const double (&values)[count]) {
  const auto out = rows_of<double>(costs);
  store_row(out.row(0), count, out.add, [&](int i) { return values[i]; });
}

// Images whose likeliest row has a target of 0; the mean of several that are equally likely.
template <class T>
double missed_images(const Rows<const T>& targets, const Rows<const T>& probs) {
  std::vector<T> maximum(std::size_t(probs.images), -std::numeric_limits<T>::infinity());
  for (std::int64_t r = 0; r < probs.rows; ++r)
    for (int n = 0; n < probs.images; ++n) maximum[n] = std::max(maximum[n], probs.row(r)[n]);
  std::vector<double> hits(maximum.size());
  std::vector<int> tied(maximum.size());
  for (std::int64_t r = 0; r < probs.rows; ++r)
    for (int n = 0; n < probs.images; ++n) {
      const bool likeliest = probs.row(r)[n] == maximum[n];
      hits[n] += likeliest ? double(targets.row(r)[n]) : 0;
      tied[n] += likeliest;
    }
  double missed = 0;
  for (int n = 0; n < probs.images; ++n) missed += 1 - hits[n] / tied[n];
  return missed;
}

}  // namespace

void sum2_forward(Stream stream, In inputs, Out costs) {
  checks::sum2_forward(costs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) { store_costs(costs, {sum_terms(stream, inputs.shape, Sum2Term<T>{rows_of<T>(inputs)})}); });
}

void gsum2_forward(Stream stream, In gates, In inputs, Out costs) {
  checks::gsum2_forward(gates, inputs, costs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    store_costs(costs, {sum_terms(stream, inputs.shape, Gsum2Term<T>{rows_of<T>(gates), rows_of<T>(inputs)})});
  });
}

void gsum2_backward_gates(Stream, In inputs, Out gates_grad, double coeff) {
  checks::gsum2_backward_gates(inputs, gates_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto x = rows_of<T>(inputs);
    const auto out = rows_of<T>(gates_grad);
    const Sum2Term<T> term{x};
    std::vector<double> sums(std::size_t(x.images));
    for (std::int64_t r = 0; r < x.rows; ++r)
      for (int n = 0; n < x.images; ++n) sums[n] += term(r, n);
    store_row(out.row(0), out.images, out.add, [&](int n) { return T(coeff * sums[n]); });
  });
}

void gsum2_backward_inputs(Stream stream, In gates, In inputs, Out inputs_grad, double coeff) {
  checks::gsum2_backward_inputs(gates, inputs, inputs_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    slopes<T>(stream, inputs_grad, Gsum2Slope<T>{rows_of<T>(gates), rows_of<T>(inputs), T(coeff)});
  });
}

void rflickr_forward(Stream stream, In targets, In inputs, Out costs) {
  checks::rflickr_forward(targets, inputs, costs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    store_costs(costs, {sum_terms(stream, inputs.shape, RflickrTerm<T>{rows_of<T>(targets), rows_of<T>(inputs)})});
  });
}

void rflickr_backward(Stream stream, In targets, In inputs, Out inputs_grad, double coeff) {
  checks::rflickr_backward(targets, inputs, inputs_grad);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    slopes<T>(stream, inputs_grad, RflickrSlope<T>{rows_of<T>(targets), rows_of<T>(inputs), T(coeff)});
  });
}

void bce_forward(Stream stream, In targets, In probs, Out costs, double positive_weight) {
  checks::bce_forward(targets, probs, costs);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    const auto t = rows_of<T>(targets), p = rows_of<T>(probs);
    store_costs(costs, {sum_terms(stream, probs.shape, BceTerm<T>{t, p, positive_weight}),
                        sum_terms(stream, probs.shape, WrongTerm<T>{t, p}) / double(p.rows), missed_images(t, p)});
  });
}

void bce_backward(Stream stream, In targets, In probs, Out probs_grad, double coeff, double positive_weight) {
  checks::bce_backward(targets, probs, probs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    slopes<T>(stream, probs_grad, BceSlope<T>{rows_of<T>(targets), rows_of<T>(probs), T(coeff), T(positive_weight)});
  });
}

void bce_logistic_backward(Stream stream, In targets, In probs, Out inputs_grad, double coeff, double positive_weight) {
  checks::bce_logistic_backward(targets, probs, inputs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    slopes<T>(stream, inputs_grad, BceLogisticSlope<T>{rows_of<T>(targets), rows_of<T>(probs), T(coeff), T(positive_weight)});
  });
}

}  // namespace convnet

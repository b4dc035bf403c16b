// Multinomial logistic regression on the host.
#include <cmath>
#include <limits>
#include <vector>
#include "../cost.h"
#include "loops.h"

namespace convnet {

void logreg_forward(Stream, In labels, In probs, Out costs, Out, int topk) {
  checks::logreg_forward(labels, probs, costs, topk);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    const auto p = rows_of<T>(probs);
    const T* const label = rows_of<T>(labels).row(0);
    std::vector<T> prob(p.images);
    std::vector<int> likelier(p.images), tied(p.images);
    for (int n = 0; n < p.images; ++n)
      prob[n] = is_class(label[n], p.rows) ? p.row(std::int64_t(label[n]))[n]
                                           : std::numeric_limits<T>::quiet_NaN();
    for (std::int64_t r = 0; r < p.rows; ++r) {
      const T* row = p.row(r);
      for (int n = 0; n < p.images; ++n) {
        likelier[n] += row[n] > prob[n];
        tied[n] += row[n] == prob[n];
      }
    }
    double sums[3] = {};
    for (int n = 0; n < p.images; ++n) {
      const LogregTerms added = logreg_terms(prob[n], likelier[n], tied[n], topk);
      for (int cost = 0; cost < 3; ++cost) sums[cost] += added.of[cost];
    }
    const auto result = rows_of<double>(costs);
    store_row(result.row(0), 3, result.add, [&](int i) { return sums[i]; });
  });
}

void logreg_backward(Stream stream, In labels, In probs, Out probs_grad, double coeff) {
  checks::logreg_backward(labels, probs, probs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    const auto p = rows_of<T>(probs);
    const auto result = rows_of<T>(probs_grad);
    const T* const label = rows_of<T>(labels).row(0);
    for_row_ranges(stream, p.rows, p.pitch, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t r = first; r < end; ++r) {
        const T* row = p.row(r);
        store_row(result.row(r), p.images, result.add, [&](int n) { return T(r) == label[n] ? T(-coeff) / row[n] : T(0); });
      }
    });
  });
}

void logreg_softmax_backward(Stream stream, In labels, In probs, Out inputs_grad, double coeff) {
  checks::logreg_softmax_backward(labels, probs, inputs_grad);
  WITH_FLOAT_TYPE(probs, [&]<class T>(T) {
    const auto p = rows_of<T>(probs);
    const auto result = rows_of<T>(inputs_grad);
    const T* const label = rows_of<T>(labels).row(0);
    for_row_ranges(stream, p.rows, p.pitch, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t r = first; r < end; ++r) {
        const T* row = p.row(r);
        store_row(result.row(r), p.images, result.add, [&](int n) { return T(coeff) * (row[n] - (T(r) == label[n] ? T(1) : T(0))); });
      }
    });
  });
}

// One op after the other: what they take is computing.
void logreg_softmax(Stream stream, In labels, In inputs, Out state, Out probs, Out costs, Out inputs_grad, Out workspace, int topk, double coeff) {
  checks::logreg_softmax(labels, inputs, state, probs, costs, inputs_grad, topk);
  softmax_forward(stream, inputs, probs);
  logreg_forward(stream, labels, as_in(probs), costs, workspace, topk);
  logreg_softmax_backward(stream, labels, as_in(probs), inputs_grad, coeff);
  check_finite(stream, as_in(costs), state);
}

std::int64_t logreg_forward_workspace(Stream, In, In, Out, int) { return 0; }
std::int64_t logreg_softmax_workspace(Stream, In, In, Out, Out, Out, Out, int, double) { return 0; }

}  // namespace convnet

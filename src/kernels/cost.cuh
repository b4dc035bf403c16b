// Multinomial logistic regression: device code.
#pragma once
#include "cost.h"
#include "softmax.cuh"

namespace convnet {

// What an image adds to the costs, by all lanes of its column of the block: each has counted the classes y, y + 32, y + 64, ...
// of `n`; terms: (3, images).
template <class T>
__device__ void store_terms(const Rows<double>& terms, int n, T prob, int likelier, int tied, int topk) {
  SMEM(int, likelier_of, [softmax_lanes][32]);
  SMEM(int, tied_of, [softmax_lanes][32]);
  const auto sum = [](int a, int b) { return a + b; };
  likelier = over_lanes(likelier_of, likelier, sum);
  tied = over_lanes(tied_of, tied, sum);
  if (threadIdx.y != 0 || n >= terms.images) return;
  const LogregTerms added = logreg_terms(prob, likelier, tied, topk);
  for (int cost = 0; cost < 3; ++cost) terms.row(cost)[n] = added.of[cost];
}

// Threads: x = image, y = lane. Of an image without a class the probability is NaN, and no other is likelier.
template <class T>
__global__ void __launch_bounds__(32 * softmax_lanes, 1) logreg_forward_kernel(Rows<const T> labels, Rows<const T> probs, Rows<double> terms, int topk) {
  const int n = int(blockIdx.x * 32 + threadIdx.x);
  const std::int64_t rows = n < probs.images ? probs.rows : 0;
  const T label = rows ? labels.row(0)[n] : T(-1);
  const T prob = is_class(label, rows) ? probs.row(std::int64_t(label))[n] : T(NAN);
  int likelier = 0, tied = 0;
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) {
    const T other = probs.row(row)[n];
    likelier += other > prob;
    tied += other == prob;
  }
  store_terms(terms, n, prob, likelier, tied, topk);
}

// One block: three threads, one a cost, add up the terms in the order of the images, which are brought 256 at a time.
// state: of no rows, or where it is noted that the first cost is not finite, without which the others are.
constexpr int sum_threads = 256;
inline __global__ void __launch_bounds__(sum_threads, 1) sum_costs_kernel(Rows<const double> terms, Rows<double> costs, Rows<double> state) {
  SMEM(double, brought, [3][sum_threads]);
  const int thread = threadIdx.x;
  double sum = 0;
  for (int first = 0; first < terms.images; first += sum_threads) {
    const int images = min(sum_threads, terms.images - first);
    for (int cost = 0; cost < 3 && thread < images; ++cost) brought[cost][thread] = terms.row(cost)[first + thread];
    __syncthreads();
    for (int i = 0; i < images && thread < 3; ++i) sum += brought[thread][i];
    __syncthreads();
  }
  if (thread >= 3) return;
  double* const cost = &costs.row(0)[thread];
  costs.store(cost, sum);
  if (thread == 0 && state.rows && !std::isfinite(*cost)) state.row(0)[state_finite] = 0;
}

// Threads: x = image, y = row (class) of probs.
template <class T>
__global__ void logreg_backward_kernel(Rows<const T> labels, Rows<const T> probs, Rows<T> probs_grad, T coeff) {
  const auto [row, n] = this_place();
  if (row >= probs.rows || n >= probs.images) return;
  const bool is_label = T(row) == labels.row(0)[n];
  probs_grad.store(&probs_grad.row(row)[n], is_label ? -coeff / probs.row(row)[n] : T(0));
}

// Threads: x = image, y = row (class) of probs.
template <class T>
__global__ void logreg_softmax_backward_kernel(Rows<const T> labels, Rows<const T> probs, Rows<T> inputs_grad, T coeff) {
  const auto [row, n] = this_place();
  if (row >= probs.rows || n >= probs.images) return;
  const bool is_label = T(row) == labels.row(0)[n];
  inputs_grad.store(&inputs_grad.row(row)[n], coeff * (probs.row(row)[n] - T(is_label)));
}

// Threads: x = image, y = lane. Softmax, what the image adds to the costs, and the gradient: the bits are those of the kernels
// that do one of these.
template <class T>
__global__ void __launch_bounds__(32 * softmax_lanes, 1) logreg_softmax_kernel(Rows<const Computed<T>> labels, Rows<const T> inputs, Rows<Computed<T>> probs,
                                                                               Rows<double> terms, Rows<T> inputs_grad, int topk, Computed<T> coeff) {
  using Sum = Computed<T>;
  const int n = int(blockIdx.x * 32 + threadIdx.x);
  const std::int64_t rows = n < inputs.images ? inputs.rows : 0;
  const Softmax<Sum> softmax = softmax_of(inputs, rows, n);
  const Sum label = rows ? labels.row(0)[n] : Sum(-1);
  const Sum prob = is_class(label, rows) ? softmax(inputs.row(std::int64_t(label))[n]) : Sum(NAN);
  int likelier = 0, tied = 0;
  for (std::int64_t row = threadIdx.y; row < rows; row += softmax_lanes) {
    const Sum other = softmax(inputs.row(row)[n]);
    likelier += other > prob;
    tied += other == prob;
    probs.store(&probs.row(row)[n], other);
    inputs_grad.store(&inputs_grad.row(row)[n], coeff * (other - Sum(Sum(row) == label)));
  }
  store_terms(terms, n, prob, likelier, tied, topk);
}

}  // namespace convnet

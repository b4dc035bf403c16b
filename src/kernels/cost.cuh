// Multinomial logistic regression: device code.
#pragma once
#include "cost.h"
#include "device.cuh"

namespace convnet {

// One block; threads: x = image of 32, y = lane, which counts the classes y, y + 32, y + 64, ... The images are taken
// 32 at a time, and three threads, one a cost, add them up in order.
template <class T>
__global__ void __launch_bounds__(1024) logreg_forward_kernel(Rows<const T> labels, Rows<const T> probs, Rows<double> costs, int topk) {
  constexpr int lanes = 32;
  SMEM(int, likelier_of, [lanes][32]);
  SMEM(int, tied_of, [lanes][32]);
  SMEM(double, costs_of, [3][32]);
  const int lane = threadIdx.y, column = threadIdx.x;

  double sum = 0;
  for (int first = 0; first < probs.images; first += 32) {
    const int n = first + column;
    const T label = n < probs.images ? labels.row(0)[n] : T(-1);
    const bool valid = is_class(label, probs.rows);
    const T prob = valid ? probs.row(std::int64_t(label))[n] : T(NAN);
    const std::int64_t rows = valid ? probs.rows : 0;
    int likelier = 0, tied = 0;
    for (std::int64_t row = lane; row < rows; row += lanes) {
      const T other = probs.row(row)[n];
      likelier += other > prob;
      tied += other == prob;
    }
    likelier_of[lane][column] = likelier;
    tied_of[lane][column] = tied;
    __syncthreads();

    if (lane == 0) {
      for (int i = 1; i < lanes; ++i) {
        likelier += likelier_of[i][column];
        tied += tied_of[i][column];
      }
      const double missed = prob == prob ? 1 : double(prob);  // or NaN, as the cost
      costs_of[0][column] = -std::log(double(prob));
      costs_of[1][column] = missed - credit_of(likelier, tied, 1);
      costs_of[2][column] = missed - credit_of(likelier, tied, topk);
    }
    __syncthreads();

    if (lane == 0 && column < 3)
      for (int i = 0; i < min(32, probs.images - first); ++i) sum += costs_of[column][i];
  }
  if (lane == 0 && column < 3) costs.store(&costs.row(0)[column], sum);
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

}  // namespace convnet

// Weights on the nodes of a tree: device code.
#pragma once
#include "device.cuh"
#include "tree.h"

namespace convnet {

// Threads: x = column of sums, y = row. Neighbours read anywhere in the same row, which the caches hold.
template <class T>
__global__ void sum_columns_kernel(Rows<const T> inputs, Rows<const T> starts, Rows<const T> members, Rows<T> sums) {
  const auto [row, n] = this_place();
  if (row >= sums.rows || n >= sums.images) return;
  sums.store(&sums.row(row)[n], sum_of_members(inputs.row(row), inputs.images, members.row(0), members.images, starts.row(0)[n], starts.row(0)[n + 1]));
}

// Threads: x = column, y = row of weights.
template <class T>
__global__ void tree_update_kernel(Rows<const double> state, Rows<const T> weights_grad, Rows<const T> counts, Rows<T> increments, Rows<T> weights,
                                   int rate_slot, T momentum, T decay, T images) {
  const auto [row, n] = this_place();
  if (row >= weights.rows || n >= weights.images) return;
  if (state.row(0)[state_finite] != 1) return;

  const T rate = T(state.row(0)[state_rates + rate_slot]), count = counts.row(0)[n];
  T& increment = increments.row(row)[n];
  T& weight = weights.row(row)[n];
  increment = momentum * increment - rate / count * (weights_grad.row(row)[n] / images + decay / count * weight);
  weight += increment;
}

}  // namespace convnet

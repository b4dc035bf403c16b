// The loop of sgd_update, for fc_backward_update.
#pragma once
#include "../sgd.h"

namespace convnet {

// Weights, and how they are changed by a piece of their gradient.
template <class T>
struct Update {
  SgdStep<T> step;
  Rows<T> increments, weights;

  // Both tensors come from memory, in pieces too short for the hardware to foresee.
  void prefetch(std::int64_t first_row, int rows, int first, int count) const {
    for (const Rows<T>& tensor : {increments, weights})
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < count; j += 64 / int(sizeof(T))) __builtin_prefetch(tensor.row(first_row + i) + first + j, 1);
  }
};

// Elements first to first + count - 1 of some rows of weights; gradient: theirs alone, from the first row on.
template <class T>
void sgd_rows(const SgdStep<T>& step, const T* gradient, std::int64_t gradient_pitch, const Rows<T>& increments, const Rows<T>& weights,
              std::int64_t first_row, std::int64_t rows, int first, int count);

}  // namespace convnet

// Biases on the host.
#include "../bias.h"
#include "loops.h"
#include "simd.h"

namespace convnet {
namespace {

// A row is summed as 64 sums side by side, so that it vectorises in an order that depends on the shape alone.
constexpr int side_by_side = 64;

template <class T>
ALWAYS_INLINE T folded(T (&sums)[side_by_side]) {
  for (int half = side_by_side / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  return sums[0];
}

template <class T>
T sum_rows(const Rows<const T>& tensor, std::int64_t first, std::int64_t last) {
  T sums[side_by_side] = {};
  for (std::int64_t r = first; r < last; ++r) {
    const T* row = tensor.row(r);
    int n = 0;
    for (; n + side_by_side <= tensor.images; n += side_by_side)
      for (int i = 0; i < side_by_side; ++i) sums[i] += row[n + i];
    for (int i = 0; n + i < tensor.images; ++i) sums[i] += row[n + i];
  }
  return folded(sums);
}

// Of few images, as many rows as there is room for are added side by side.
template <class T>
T sum_short_rows(const Rows<const T>& tensor, std::int64_t first, std::int64_t last) {
  T sums[side_by_side] = {};
  const int together = side_by_side / tensor.images;
  const bool joined = tensor.pitch == tensor.images && together * tensor.images == side_by_side;
  for (std::int64_t r = first; r < last; r += together) {
    if (joined && r + together <= last)
      for (int i = 0; i < side_by_side; ++i) sums[i] += tensor.row(r)[i];
    else
      for (int j = 0; j < together && r + j < last; ++j)
        for (int n = 0; n < tensor.images; ++n) sums[j * tensor.images + n] += tensor.row(r + j)[n];
  }
  return folded(sums);
}

}  // namespace

void bias_forward(Stream stream, In biases, Out acts) {
  const std::int64_t rows = rows_per_bias(__func__, biases.shape, acts.shape);
  CHECK_DTYPE(acts, biases.dtype);
  WITH_FLOAT_TYPE(biases, [&]<class T>(T) {
    const auto out = rows_of<T>(acts);
    const T* values = static_cast<const T*>(biases.ptr);
    for_row_ranges(stream, out.rows, out.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        store_row(out.row(r), out.images, out.add, [value = values[r / rows]](int) { return value; });
    });
  });
}

void bias_backward(Stream stream, In acts_grad, Out biases_grad, Out) {
  const std::int64_t rows = rows_per_bias(__func__, biases_grad.shape, acts_grad.shape);
  CHECK_DTYPE(biases_grad, acts_grad.dtype);
  WITH_FLOAT_TYPE(acts_grad, [&]<class T>(T) {
    const auto grads = rows_of<T>(acts_grad);
    const auto out = rows_of<T>(biases_grad);
    for_row_ranges(stream, out.images, rows * grads.pitch, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t b = first; b < last; ++b) {
        const std::int64_t from = b * rows, to = from + rows;
        const bool short_rows = grads.images > 0 && grads.images < side_by_side;
        out.store(&out.row(0)[b], short_rows ? sum_short_rows(grads, from, to) : sum_rows(grads, from, to));
      }
    });
  });
}

std::int64_t bias_backward_workspace(Stream, In, Out) { return 0; }

}  // namespace convnet

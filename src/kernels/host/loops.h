// The loop nests host ops share.
#pragma once
#include <algorithm>
#include <initializer_list>
#include "../neuron.h"
#include "parallel.h"

namespace convnet {

// body(first, last) for ranges of rows: one task each, about 64 KiB of work, so small tensors stay on one core.
template <class Body>
void for_row_ranges(Stream stream, std::int64_t rows, std::int64_t pitch, Body body) {
  const std::int64_t per_task = std::max<std::int64_t>(1, (16 << 10) / std::max<std::int64_t>(1, pitch));
  parallel_for(stream, (rows + per_task - 1) / per_task,
               [&](std::int64_t task, int) { body(task * per_task, std::min(rows, (task + 1) * per_task)); });
}

// Whether the rows of tensors with these pitches may be worked on as one run: they have the same, and what lies between
// the rows is at most 15 bytes, which mean nothing. So few images are no slower than many.
inline bool can_join(int images, Dtype dtype, std::initializer_list<std::int64_t> pitches) {
  const std::int64_t pitch = *pitches.begin();
  return (pitch - images) * size_of(dtype) < 16 && std::all_of(pitches.begin(), pitches.end(), [&](auto other) { return other == pitch; });
}

// body(row, count) for all numbers of tensors of one shape: `count` of them from the first of `row` on.
template <class Body>
void for_numbers(Stream stream, std::int64_t rows, int images, Dtype dtype, std::initializer_list<std::int64_t> pitches, Body body) {
  const bool joined = can_join(images, dtype, pitches);
  const std::int64_t pitch = *pitches.begin();
  for_row_ranges(stream, rows, pitch, [&](std::int64_t first, std::int64_t last) {
    if (joined) body(first, int((last - first - 1) * pitch) + images);
    else for (std::int64_t r = first; r < last; ++r) body(r, images);
  });
}

// body(c, y, x) for every pixel of a tensor.
template <class T, class Body>
void for_pixels(Stream stream, const Images<T>& tensor, Body body) {
  for_row_ranges(stream, std::int64_t(tensor.channels) * tensor.height, tensor.width * tensor.pitch, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const int c = int(row / tensor.height), y = int(row % tensor.height);
      for (int x = 0; x < tensor.width; ++x) body(c, y, x);
    }
  });
}

// target (+)= value along the images of a row.
template <class T, class Value>
void store_row(T* target, int images, bool add, Value value) {
  if (add) for (int n = 0; n < images; ++n) target[n] += value(n);
  else for (int n = 0; n < images; ++n) target[n] = value(n);
}

// What neuron_backward of a relu makes of a gradient, in place, along the images of a row.
template <class T>
void relu_row(T* gradient, const T* acts, int images) {
  for (int n = 0; n < images; ++n) gradient[n] = relu_gradient(gradient[n], acts[n]);
}

}  // namespace convnet

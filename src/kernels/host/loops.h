// The loop nests host ops share.
#pragma once
#include <algorithm>
#include "../tensor.h"
#include "parallel.h"

namespace convnet {

// body(first, last) for ranges of rows: one task each, about 64 KiB of work, so small tensors stay on one core.
template <class Body>
void for_row_ranges(Stream stream, std::int64_t rows, std::int64_t pitch, Body body) {
  const std::int64_t per_task = std::max<std::int64_t>(1, (16 << 10) / std::max<std::int64_t>(1, pitch));
  parallel_for(stream, (rows + per_task - 1) / per_task,
               [&](std::int64_t task, int) { body(task * per_task, std::min(rows, (task + 1) * per_task)); });
}

// target (+)= value along the images of a row.
template <class T, class Value>
void store_row(T* target, int images, bool add, Value value) {
  if (add) for (int n = 0; n < images; ++n) target[n] += value(n);
  else for (int n = 0; n < images; ++n) target[n] = value(n);
}

}  // namespace convnet

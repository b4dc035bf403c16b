// Few images leave lanes of a vector idle where images are the lanes: then outputs are the lanes, and pixels, images or
// inputs are the rows of a tile. What conv and fc share for it.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

#include "tiles.h"

namespace convnet {

// The factors of product k: a[taps[k] + i] for row i, b[k * b_step + j] for lane j.
template <class T>
struct Products {
  const T* a;
  const std::ptrdiff_t* taps;
  const T* b;
  std::int64_t b_step;
  int count;
};

// sums[i * vectors * lanes + j] = sum over k of a[taps[k] + i] * b[k * b_step + j], added to what is there if `add`. The
// rows stand side by side, so that their addresses cost nothing; the table allows any order and any gaps of products.
template <class T>
using FewKernel = void (*)(const Products<T>& products, T* sums, bool add);

template <class T, int rows, int vectors>
[[gnu::noinline]] void multiply_few(const Products<T>& products, T* sums, bool add) {
  using namespace simd;
  Vector<T> tile[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) tile[i][j] = Vector<T>{};
  const T* b = products.b;
  const std::ptrdiff_t *tap = products.taps, *end = tap + products.count;
  for (; tap != end; ++tap, b += products.b_step) {
    const T* a = products.a + *tap;
    if constexpr (rows >= vectors) {
      Vector<T> values[vectors];
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) values[j] = load(b + j * lanes<T>);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const Vector<T> factor = broadcast(a[i]);
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) tile[i][j] += factor * values[j];
      }
    } else {
      Vector<T> factors[rows];
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) factors[i] = broadcast(a[i]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        const Vector<T> value = load(b + j * lanes<T>);
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i) tile[i][j] += factors[i] * value;
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      T* target = sums + (i * vectors + j) * lanes<T>;
      store(target, add ? load(target) + tile[i][j] : tile[i][j]);
    }
}

template <class T, int vectors>
FewKernel<T> few_kernel_of(int rows) {
  constexpr auto table = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<FewKernel<T>, sizeof...(i)>{&multiply_few<T, i + 1, vectors>...};
  }(std::make_integer_sequence<int, max_rows<T>(vectors)>());
  return table[rows - 1];
}

template <class T>
FewKernel<T> few_kernel(int rows, int vectors) {
  switch (vectors) {
    case 1: return few_kernel_of<T, 1>(rows);
    case 2: return few_kernel_of<T, 2>(rows);
    case 4: return few_kernel_of<T, 4>(rows);
    default: return few_kernel_of<T, 8>(rows);
  }
}

// body(task, thread) for every task. Each thread has tasks that follow each other, so that what it has packed is packed by no
// other, and then helps with what is left of the others'.
template <class Body>
void for_tasks_in_runs(Stream stream, std::int64_t tasks, Body body) {
  const std::int64_t runs = std::min<std::int64_t>(tasks, thread_count(stream));
  std::vector<std::atomic<std::int64_t>> next(runs);
  const auto first = [&](std::int64_t run) { return run * (tasks / runs) + std::min(run, tasks % runs); };
  for (std::int64_t run = 0; run < runs; ++run) next[run].store(first(run), std::memory_order_relaxed);
  parallel_for(stream, runs, [&](std::int64_t own, int thread) {
    for (std::int64_t i = own; i < own + runs; ++i)
      for (std::int64_t task; (task = next[i % runs].fetch_add(1, std::memory_order_relaxed)) < first(i % runs + 1);) body(task, thread);
  });
}

// The images of `count` pixels that are `step` apart, without gaps. Of one image, conv1 takes every fourth pixel: one by
// one, that took a seventh of it.
template <class T>
void copy_pixels(T* target, const T* source, std::int64_t step, int images, int count) {
  using namespace simd;
  if (step == images) {
    std::copy_n(source, std::int64_t(count) * images, target);
    return;
  }
  int i = 0;
  constexpr int quarter = lanes<T> / 4;
  if (images == 1 && step == 4 && quarter > 1) {
    typename VectorOf<T>::index firsts;
    for (int k = 0; k < lanes<T>; ++k) firsts[k] = k % quarter * 4;
    for (; i + quarter < count; i += quarter) {  // behind the last pixel the tensor may end
      const Vector<T> pixels = __builtin_shuffle(load(source + i * step), firsts);
      std::memcpy(target + i, &pixels, quarter * sizeof(T));
    }
  }
  for (; i < count; ++i)
    for (int n = 0; n < images; ++n) target[std::int64_t(i) * images + n] = source[i * step + n];
}

// The other way: sums without gaps, which a vector of anything follows, to pixels that are `step` apart; `padded`: what
// lies between them is padding, and may be written.
template <class T>
class PixelStore {
 public:
  PixelStore(std::int64_t step, bool padded, int images, bool add, const Epilogue<T>& epilogue)
      : step_(step), images_(images), add_(add), epilogue_(epilogue) {
    if (!padded || step > simd::lanes<T> || simd::lanes<T> % step) return;
    pixels_ = simd::lanes<T> / int(step);
    for (int k = 0; k < simd::lanes<T>; ++k) order_[k] = k / int(step) * images + std::min(k % int(step), images - 1);
  }

  void operator()(T* target, const T* sums, int count, std::int64_t channel) const {
    using namespace simd;
    if (step_ == images_) {
      count *= images_;
      int i = 0;
      for (; i + lanes<T> <= count; i += lanes<T>)
        store(target + i, finished(load(sums + i), add_ ? load(target + i) : Vector<T>{}, channel,
                                   epilogue_.acts ? load(epilogue_.acts_at(target + i)) : Vector<T>{}));
      if (i < count) {
        const Vector<T> last = finished(load(sums + i), add_ ? load_first(target + i, count - i) : Vector<T>{}, channel,
                                        epilogue_.acts ? load_first(epilogue_.acts_at(target + i), count - i) : Vector<T>{});
        std::memcpy(target + i, &last, (count - i) * sizeof(T));
      }
      return;
    }
    int i = 0;
    if (pixels_)
      for (; i + pixels_ <= count; i += pixels_) {
        T* to = target + i * step_;
        store(to, finished(__builtin_shuffle(load(sums + i * images_), order_), add_ ? load(to) : Vector<T>{}, channel,
                           epilogue_.acts ? load(epilogue_.acts_at(to)) : Vector<T>{}));
      }
    for (; i < count; ++i) store_lanes(target + i * step_, sums + i * images_, images_, add_, epilogue_, channel);
  }

 private:
  // Of a channel's sums, what is there before, and the acts of a relu.
  simd::Vector<T> finished(simd::Vector<T> values, simd::Vector<T> before, std::int64_t channel, simd::Vector<T> acts) const {
    using namespace simd;
    if (add_) values = before + values;
    if (epilogue_.biases) values += broadcast(epilogue_.biases[channel]);
    if (epilogue_.relu) values = values < Vector<T>{} ? Vector<T>{} : values;
    return epilogue_.acts ? relu_gradients<T>(values, acts) : values;
  }

  std::int64_t step_;
  int images_;
  bool add_;
  Epilogue<T> epilogue_;
  int pixels_ = 0;  // of a vector
  typename simd::VectorOf<T>::index order_ = {};
};

// (rows, columns) -> (columns, rows), of up to lanes x lanes elements: target[j * target_step + i] = source[i * source_step
// + j]. Whole vectors are written, zeros beyond the rows.
template <class T>
ALWAYS_INLINE void transpose_square(T* target, std::int64_t target_step, const T* source, std::int64_t source_step, int rows,
                                    int columns) {
  using namespace simd;
  Vector<T> square[lanes<T>];
  if (rows == lanes<T> && columns == lanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) square[i] = load(source + i * source_step);
    transpose<T>(square);
#pragma GCC unroll 16
    for (int j = 0; j < lanes<T>; ++j) store(target + j * target_step, square[j]);
  } else {
    // The edge goes through memory: were it chosen row by row, every square would leave the registers.
    alignas(64) T edge[lanes<T> * lanes<T>] = {};
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) edge[j * lanes<T> + i] = source[i * source_step + j];
    for (int j = 0; j < columns; ++j) store(target + j * target_step, load(edge + j * lanes<T>));
  }
}

}  // namespace convnet

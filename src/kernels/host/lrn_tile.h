// Cross-map response normalization of some numbers of each channel: what lrn, and pooling over it, are made of.
#pragma once
#include "loops.h"
#include "powers.h"

namespace convnet {

// Numbers of a channel that are worked on together, through all channels: what a window needs of them stays in the
// L1 cache. With half as many, too little of a page of the memory is read at once: lrn takes a fourth longer.
constexpr int lrn_tile = 256;

// `count` numbers of every channel, from the one at `first` of a row of images on.
struct Run {
  std::int64_t row, first;
  int count;

  template <class T>
  T* of(const Images<T>& tensor, int c) const { return tensor.row(c, 0, 0) + row * tensor.pitch + first; }

  // Fetches those of channel c + 2, to be read or written: the step from channel to channel is too long for the CPU to
  // foresee. Without this lrn_backward takes twice the time, and lrn_forward up to three times: stores to lines that are
  // not there yet fill the store buffer, in one build and not in the next.
  template <class T>
  void fetch_ahead(const Images<T>& tensor, int c) const {
    const T* const next = of(tensor, c + 2 < tensor.channels ? c + 2 : c);
    for (int n = 0; n < count; n += 64 / int(sizeof(T))) __builtin_prefetch(next + n);
  }
};

// sums[n] = finish(sum of f(from[n + i * step]) over i from 0 to terms - 1), each kept in a register until it is complete: in
// memory, term by term, lrn takes a sixth longer.
template <class T, class F, class Finish>
ALWAYS_INLINE void sum_up(const T* from, std::int64_t step, int terms, int count, T* sums, F f, Finish finish) {
  const auto some = [&](int n, auto sum) {
    const T* next = from + n;
    for (int i = 0; i < terms; ++i, next += step) {
      decltype(sum) value;
      std::memcpy(&value, next, sizeof value);
      sum += f(value);
    }
    sum = finish(sum);
    std::memcpy(sums + n, &sum, sizeof sum);
  };
  int n = 0;
  for (; n + simd::lanes<T> <= count; n += simd::lanes<T>) some(n, simd::Vector<T>{});
  for (; n < count; ++n) some(n, T(0));
}

// The denominators of channel c, and these to the power of -power.
template <class T>
ALWAYS_INLINE void denominators(const Images<const T>& x, int c, const Run& run, int size, bool blocked, T scale, T power, T bias, T* denom, T* inverse) {
  const auto [first, last] = window_of(c, x.channels, size, blocked);
  run.fetch_ahead(x, last - 1);
  sum_up(run.of(x, first), x.row(1, 0, 0) - x.data, last - first, run.count, denom, [](auto input) { return input * input; },
         [&](auto squares) { return bias + scale * squares; });
  inverse_powers(denom, run.count, power, inverse);
}

}  // namespace convnet

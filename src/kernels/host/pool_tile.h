// What pooling on the host reduces in registers.
#pragma once
#include "simd.h"

namespace convnet {

// Images that are reduced together, in `parts` vectors of `lanes`. Explicit vectors, since they stay in registers
// over all pixels of a window; plain loops over an array on the stack took two to four times as long.
template <class T, int lanes, int parts>
struct Tile {
  typedef T Part __attribute__((vector_size(lanes * sizeof(T)), aligned(sizeof(T)), may_alias));
  Part part[parts] = {};

  // part = f(part, the same part of each row). Windows are too short for the CPU to foresee what comes next: fetching
  // what lies `ahead`, four pixels on, takes a third off the time of max_pool.
  template <class F, class... Row>
  ALWAYS_INLINE void update(std::int64_t ahead, F f, const Row*... rows) {
#pragma GCC unroll 8
    for (int i = 0; i < parts; ++i) {
      if (ahead) (__builtin_prefetch(rows + ahead + i * lanes), ...);
      part[i] = f(part[i], *reinterpret_cast<const Part*>(rows + i * lanes)...);
    }
  }
  template <class F>
  ALWAYS_INLINE void apply(F f) {
#pragma GCC unroll 8
    for (int i = 0; i < parts; ++i) part[i] = f(part[i]);
  }
  ALWAYS_INLINE void store(T* target, bool add) const {
#pragma GCC unroll 8
    for (int i = 0; i < parts; ++i) {
      Part& old = *reinterpret_cast<Part*>(target + i * lanes);
      old = add ? old + part[i] : part[i];
    }
  }
};

}  // namespace convnet

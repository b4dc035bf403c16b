// Vectors of the instruction set that this file is compiled for: GCC's vector extensions, no
// intrinsics.
#pragma once
#include <cstdint>
#include <cstring>

namespace convnet::simd {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, registers = 32;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32, registers = 16;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, registers = 32;
#else
constexpr int vector_bytes = 16, registers = 16;
#endif

#define ALWAYS_INLINE [[gnu::always_inline]] inline

// Aligned like one element: rows of any pitch can be read and written.
template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
  typedef std::int32_t index __attribute__((vector_size(vector_bytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
  typedef std::int64_t index __attribute__((vector_size(vector_bytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int lanes = vector_bytes / int(sizeof(T));

template <class T>
ALWAYS_INLINE Vector<T> load(const T* source) {
  return *reinterpret_cast<const Vector<T>*>(source);
}

template <class T>
ALWAYS_INLINE void store(T* target, Vector<T> value) {
  *reinterpret_cast<Vector<T>*>(target) = value;
}

// The first `count` elements, then zeros; nothing is read beyond them.
template <class T>
ALWAYS_INLINE Vector<T> load_first(const T* source, int count) {
  Vector<T> value = {};
  std::memcpy(&value, source, std::size_t(count) * sizeof(T));
  return value;
}

// `x - 0` is x whatever its sign, so the compiler makes one broadcast of it; `x + 0` would not do.
template <class T>
ALWAYS_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

// Past the caches, for what nobody reads soon; target aligned to vector_bytes. Ends with
// stream_fence().
template <class T>
ALWAYS_INLINE void stream_store(T* target, Vector<T> value) {
#if defined(__clang__)
  typedef T Aligned __attribute__((vector_size(vector_bytes)));
  __builtin_nontemporal_store(Aligned(value), reinterpret_cast<Aligned*>(target));
#elif defined(__x86_64__)
  typedef float Floats __attribute__((vector_size(vector_bytes)));
  float* floats = reinterpret_cast<float*>(target);
#if defined(__AVX512F__)
  __builtin_ia32_movntps512(floats, Floats(value));
#elif defined(__AVX2__)
  __builtin_ia32_movntps256(floats, Floats(value));
#else
  __builtin_ia32_movntps(floats, Floats(value));
#endif
#else
  store(target, value);
#endif
}

// Streamed stores are ordered by nothing else, not even by the atomics that end a parallel loop.
inline void stream_fence() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

// The lower or upper halves of a and b, element by element in turn.
template <class T>
ALWAYS_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, bool upper) {
  typename VectorOf<T>::index index;
  for (int i = 0; i < lanes<T>; ++i)
    index[i] = i / 2 + (i % 2 ? lanes<T> : 0) + (upper ? lanes<T> / 2 : 0);
  return __builtin_shuffle(a, b, index);
}

// A square of lanes x lanes: element j of row i becomes element i of row j. Interleaving rows that
// are half a square apart, log2(lanes) times, is a transposition.
template <class T>
ALWAYS_INLINE void transpose(Vector<T> (&rows)[lanes<T>]) {
  constexpr int half = lanes<T> / 2;
#pragma GCC unroll 4
  for (int width = 1; width < lanes<T>; width *= 2) {
    Vector<T> mixed[lanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < half; ++i) {
      mixed[2 * i] = interleave<T>(rows[i], rows[i + half], false);
      mixed[2 * i + 1] = interleave<T>(rows[i], rows[i + half], true);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) rows[i] = mixed[i];
  }
}

}  // namespace convnet::simd

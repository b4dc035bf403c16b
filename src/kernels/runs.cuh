// Neighbours in memory that are moved together: device code.
#pragma once
#include "device.cuh"

namespace convnet {

template <class T, int size>
struct alignas(sizeof(T) * size < 16 ? sizeof(T) * size : 16) Run {
  T at[size];
};

// Of another type: what is stored, and what it is computed in.
template <class To, class From, int size>
__device__ Run<To, size> converted(const Run<From, size>& values) {
  Run<To, size> result;
#pragma unroll
  for (int e = 0; e < size; ++e) result.at[e] = values.at[e];
  return result;
}

// Elements that are fetched together: 16 bytes, of float64 32.
template <class T>
constexpr int piece = sizeof(T) == 2 ? 8 : 4;
template <class T>
using Piece = Run<T, piece<T>>;

// The first `count` elements at `source`, zeros after them; nothing is read unless `inside`. Vector: the whole run is
// there, `source` is aligned to it, and what is after `count` may be anything unless `Masked`.
template <bool Vector, int size, bool Masked = false, class T>
__device__ Run<T, size> load_run(bool inside, const T* source, int count) {
  Run<T, size> values{};
  if constexpr (Vector) {
    if (inside) values = *reinterpret_cast<const Run<T, size>*>(source);
  }
#pragma unroll
  for (int e = 0; e < size; ++e) {
    if constexpr (!Vector) {
      if (inside && e < count) values.at[e] = source[e];
    } else if constexpr (Masked) {
      values.at[e] = e < count ? values.at[e] : T(0);
    }
  }
  return values;
}
template <bool Vector, bool Masked, class T>
__device__ Piece<T> load_piece(bool inside, const T* source, int count) { return load_run<Vector, piece<T>, Masked>(inside, source, count); }

// ---- element-wise kernels -----------------------------------------------------------------------------------
//
// They have `width` neighbours a thread. Tensors without gaps, which have their padding as they have their rows, are
// seen as rows of 32 times as many elements, one of a warp: 16 bytes a thread, where a row of few images would leave threads idle
// and single elements keep too little of a GPU's memory busy (of bfloat16 4 KB a multiprocessor, where an H200 asks for 23).
template <int width, class T>
Rows<T> in_runs(const Rows<T>& t) {
  if constexpr (width == 1) return t;
  return {t.data, t.rows * t.pitch / (32 * width), 32 * width, 32 * width, t.add};
}
template <int width, class T>
Grid runs_grid(const Rows<T>& t) { return rows_grid(t.rows, ceil_div(t.images, width)); }

// Calls body(Width{}) with Width::value how many: a piece of T, the smallest type of them, or 1.
template <class T, class Body, class First, class... Others>
void with_width(Body body, const First& first, const Others&... others) {
  if constexpr (sizeof(T) < 8) {
    constexpr std::int64_t most_padding = 64;  // bytes: a plan has less
    const bool without_gaps = (first.pitch - first.shape.images()) * std::int64_t(sizeof(T)) < most_padding && is_vectorizable(first) &&
                              ((is_vectorizable(others) && others.pitch == first.pitch) && ...);
    if (without_gaps && first.shape.rows() * first.pitch % (32 * piece<T>) == 0) return body(std::integral_constant<int, piece<T>>{});
  }
  body(std::integral_constant<int, 1>{});
}

// The run of this thread in a row; `exists`: it has one.
template <int width, class T>
__device__ bool exists(const Rows<T>& t, Place place) { return place.row < t.rows && place.n * width < t.images; }
template <int width, class T>
__device__ Run<std::remove_const_t<T>, width> load_run(const Rows<T>& t, Place place) {
  return *reinterpret_cast<const Run<std::remove_const_t<T>, width>*>(t.row(place.row) + place.n * width);
}
template <int width, class T>
__device__ void store_run(const Rows<T>& t, Place place, const Run<Computed<T>, width>& values) {
  Run<T, width>* const target = reinterpret_cast<Run<T, width>*>(t.row(place.row) + place.n * width);
  Run<T, width> whole;
  if (t.add) whole = *target;
#pragma unroll
  for (int e = 0; e < width; ++e) t.store(&whole.at[e], values.at[e]);
  *target = whole;
}

}  // namespace convnet

// The inner loop of conv and fc: a tile of sums held in registers.
//   tile[i][j] = sum over segments and k of a[i,k] * b[k][j],  i < rows, j < vectors * lanes
// AVX-512 has room for 14 x 2 vectors: 28 multiply-adds for 2 loads of b and 14 broadcasts of a,
// which is what keeps both multipliers busy. Where there are few rows, more vectors take their
// place.
#pragma once
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "../epilogue.h"
#include "simd.h"

namespace convnet {

// `length` products of a and b, one after the other in memory.
//   columns of a: a[k * rows + i]      rows of a: a[i * row_pitch + k]      b[k * vectors * lanes +
//   j]
//   pairs: columns of a; two pixels of one vector each: b[j / lanes * b_pair + k * lanes + j % lanes]
template <class T>
struct Segment {
  const T *a, *b;
  int length;
  const T* prefetch;  // four times 128 bytes that are read soon, or null
  std::int64_t prefetch_step;
};

enum class Order { columns, rows, pairs };

// The most products in a segment of Order::rows, and the distance of its rows.
constexpr int row_length = 32, row_pitch = 32 + 16;

// Where the sums go.
template <class T>
struct Target {
  T* data;
  const std::int64_t* rows;  // distances of the tile's rows from data; null: without gaps
  const T* partial;          // sums to be added first, without gaps; or null
  bool add, stream;          // to what is there; past the caches
  Epilogue<T> epilogue = {};  // of the tile's rows
  // Order::pairs: distance of the second pixel in b, and in rows with gaps; without gaps its tile
  // follows the first's.
  std::int64_t b_pair = 0, row_pair = 0;
};

template <class T>
using Microkernel = void (*)(const Segment<T>* segments, int count, const Target<T>& target);

// relu_gradient of vectors.
template <class T>
ALWAYS_INLINE simd::Vector<T> relu_gradients(simd::Vector<T> grad, simd::Vector<T> acts) {
  return grad * (acts > simd::Vector<T>{} ? simd::broadcast(T(1)) : simd::Vector<T>{});
}

// Tiles of this many rows exist, for 1, 2, 4, 8 vectors (0: none).
template <class T>
constexpr int max_rows(int vectors) {
  constexpr bool many = simd::registers == 32;
  return vectors <= 2   ? (many ? 14 : 6)
         : vectors == 4 ? (many ? 6 : 3)
         : vectors == 8 ? (many ? 3 : 0)
                        : 0;
}

template <class T, int rows, int vectors, Order order>
[[gnu::noinline]] void multiply(const Segment<T>* segments, int count, const Target<T>& target) {
  using namespace simd;
  static_assert(order != Order::pairs || vectors == 2);
  constexpr int width = (order == Order::pairs ? 1 : vectors) * lanes<T>;
  // From one vector to the next: of tiles without gaps, of b, and of the target.
  constexpr int tile_apart = order == Order::pairs ? rows * width : lanes<T>;
  const std::int64_t b_apart = order == Order::pairs ? target.b_pair : lanes<T>,
                     apart = order == Order::pairs && target.rows ? target.row_pair : tile_apart;
  Vector<T> sums[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sums[i][j] = Vector<T>{};

  if (target.partial)
#pragma GCC unroll 32
    for (int i = 0; i < rows * vectors; ++i)
      __builtin_prefetch(target.partial + i / vectors * width + i % vectors * tile_apart);
  if (target.add)
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j)
        __builtin_prefetch(target.data + (target.rows ? target.rows[i] : i * width) + j * apart);

  for (int s = 0; s < count; ++s) {
    const T *a = segments[s].a, *b = segments[s].b;
    if (const T* soon = segments[s].prefetch)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i, soon += segments[s].prefetch_step)
        __builtin_prefetch(soon), __builtin_prefetch(soon + 64 / int(sizeof(T)));
    if (target.epilogue.acts)  // some with each segment: all at once would keep the operands waiting
      for (int i = rows * s / count; i < rows * (s + 1) / count; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j)
          __builtin_prefetch(target.epilogue.acts_at(target.data + (target.rows ? target.rows[i] : i * width) + j * apart));
    for (int k = segments[s].length; k > 0; --k) {
      if constexpr (rows >= vectors) {
        Vector<T> values[vectors];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) values[j] = load(b + j * b_apart);
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i) {
          const Vector<T> factor = broadcast(order == Order::rows ? a[i * row_pitch] : a[i]);
#pragma GCC unroll 8
          for (int j = 0; j < vectors; ++j) sums[i][j] += factor * values[j];
        }
      } else {
        Vector<T> factors[rows];
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i)
          factors[i] = broadcast(order == Order::rows ? a[i * row_pitch] : a[i]);
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) {
          const Vector<T> value = load(b + j * b_apart);
#pragma GCC unroll 16
          for (int i = 0; i < rows; ++i) sums[i][j] += factors[i] * value;
        }
      }
      a += order == Order::rows ? 1 : rows;
      b += width;
    }
  }

  if (target.partial)
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j)
        sums[i][j] = load(target.partial + i * width + j * tile_apart) + sums[i][j];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    T* row = target.data + (target.rows ? target.rows[i] : i * width);
    if (target.add)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = load(row + j * apart) + sums[i][j];
    if (target.epilogue.biases) {
      const Vector<T> bias = broadcast(target.epilogue.biases[i]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] += bias;
    }
    if (target.epilogue.relu)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = sums[i][j] < Vector<T>{} ? Vector<T>{} : sums[i][j];
    if (target.epilogue.acts)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j)
        sums[i][j] = relu_gradients<T>(sums[i][j], load(target.epilogue.acts_at(row + j * apart)));
    if (target.stream)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) stream_store(row + j * apart, sums[i][j]);
    else
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) store(row + j * apart, sums[i][j]);
  }
}

template <class T, int vectors, Order order>
Microkernel<T> microkernel_of(int rows) {
  constexpr auto table = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<Microkernel<T>, sizeof...(i)>{&multiply<T, i + 1, vectors, order>...};
  }(std::make_integer_sequence<int, max_rows<T>(vectors)>());
  return table[rows - 1];
}

}  // namespace convnet

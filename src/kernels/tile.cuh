// Products of matrices in tiles, which convolutions and fully connected layers are made of: device code.
//   D[m,n] = sum over k of A[k,m] * B[k,n]
// A block computes a tile of D. It walks along k in slices of `depth`: while the threads multiply the slice that
// lies in shared memory, each already holds its share of the next one, fetched from A and B, in registers.
#pragma once
#include "device.cuh"
#include "epilogue.h"

namespace convnet {

constexpr int depth = 16;  // k of a slice
constexpr int quad = 4;    // elements that are fetched, kept and stored together: 16 bytes of float32

template <class T>
struct alignas(16) Quad {
  T at[quad];
};

// The piece of D that a block computes, (M, N), and that of each of its threads, (ThreadM, ThreadN): quads of rows
// and columns, spread over the tile so that neighbours read neighbouring banks.
template <int M, int N, int ThreadM, int ThreadN>
struct Tile {
  static constexpr int m = M, n = N, thread_m = ThreadM, thread_n = ThreadN;
  static constexpr int threads_n = N / ThreadN, threads = M / ThreadM * threads_n;
  static constexpr int blocks = threads > 64 ? 3 : 4;  // that should fit on a multiprocessor: what limits the registers

  // Where the thread's quad of rows, or of columns, begins in the tile.
  __device__ static int row(int index) { return int(threadIdx.x) / threads_n * quad + index * (M * quad / ThreadM); }
  __device__ static int column(int index) { return int(threadIdx.x) % threads_n * quad + index * (N * quad / ThreadN); }
};

template <class T, class Tile>
using Sums = T[Tile::thread_m][Tile::thread_n];

// The first `count` elements at `source`, zeros after them; nothing is read unless `inside`. Vector: all four are
// there, `source` is aligned to them, and those after `count` may be anything unless `Masked`.
template <bool Vector, bool Masked, class T>
__device__ Quad<T> load_quad(bool inside, const T* source, int count) {
  Quad<T> values{};
  if constexpr (Vector) {
    if (inside) values = *reinterpret_cast<const Quad<T>*>(source);
  }
#pragma unroll
  for (int e = 0; e < quad; ++e) {
    if constexpr (!Vector) {
      if (inside && e < count) values.at[e] = source[e];
    } else if constexpr (Masked) {
      values.at[e] = e < count ? values.at[e] : T(0);
    }
  }
  return values;
}

// The other way: overwrites `count` elements of a channel, or adds to them. Vector: all four, the padding of the row included.
template <bool Vector, class T>
__device__ void store_quad(T* target, Quad<T> values, int count, bool add, const Epilogue<T>& epilogue = {}, int channel = 0) {
  if constexpr (Vector) {
    Quad<T>* const whole = reinterpret_cast<Quad<T>*>(target);
    if (add) {
      const Quad<T> old = *whole;
#pragma unroll
      for (int e = 0; e < quad; ++e) values.at[e] = sum_of(old.at[e], values.at[e]);
    }
#pragma unroll
    for (int e = 0; e < quad; ++e) values.at[e] = epilogue(values.at[e], channel);
    *whole = values;
  } else {
#pragma unroll
    for (int e = 0; e < quad; ++e)
      if (e < count) target[e] = epilogue(add ? sum_of(target[e], values.at[e]) : values.at[e], channel);
  }
}

// k as digits, the lowest fastest: k = (high * mid_size + mid) * low_size + low.
struct Digits {
  int low, mid, high;
};
__device__ inline Digits digits_of(int k, int low_size, int mid_size) {
  return {k % low_size, k / low_size % mid_size, k / low_size / mid_size};
}

// The k of one thread, one in each slice, as digits: steps of `depth` without a division.
struct Walk {
  int low_size, mid_size;
  Digits step, at;
  int left;  // k from here to the end; none left: what is fetched is zero

  // `first`: the thread's k in the first slice; `count`: all k.
  __device__ Walk(int low_size, int mid_size, int count, int first)
      : low_size(max(low_size, 1)), mid_size(max(mid_size, 1)), step(digits_of(depth, this->low_size, this->mid_size)),
        at(digits_of(first, this->low_size, this->mid_size)), left(count - first) {}

  __device__ void advance() {
    left -= depth;
    at.low += step.low;
    at.mid += step.mid;
    at.high += step.high;
    if (at.low >= low_size) at.low -= low_size, ++at.mid;
    if (at.mid >= mid_size) at.mid -= mid_size, ++at.high;
  }
};

// A slice of A or B in shared memory: (depth, Size), rows padded by a quad so that ColumnShare meets more banks.
template <class T, int Size>
using Slice = T[depth][Size + quad];

// A thread's share of a slice whose rows lie in memory as they do here: quads of one row.
template <class T, class Tile, int Size>
struct RowShare {
  static constexpr int lanes = Tile::threads / depth, quads = Size / quad / lanes;
  static_assert(quads * lanes * quad == Size);
  Quad<T> values[quads];

  __device__ static int k() { return int(threadIdx.x) / lanes; }
  __device__ static int column(int index) { return (int(threadIdx.x) % lanes + index * lanes) * quad; }
  __device__ void put(Slice<T, Size>& slice) const {
#pragma unroll
    for (int index = 0; index < quads; ++index) *reinterpret_cast<Quad<T>*>(&slice[k()][column(index)]) = values[index];
  }
};

// The same where columns lie in memory along k: quads of columns, stored element by element. Neighbours have
// neighbouring quads of one column, 64 bytes of it.
template <class T, class Tile, int Size>
struct ColumnShare {
  static constexpr int lanes = Tile::threads / (depth / quad), quads = Size / lanes;
  static_assert(quads * lanes == Size);
  Quad<T> values[quads];

  __device__ static int k() { return int(threadIdx.x) % (depth / quad) * quad; }
  __device__ static int column(int index) { return int(threadIdx.x) / (depth / quad) + index * lanes; }
  __device__ void put(Slice<T, Size>& slice) const {
#pragma unroll
    for (int index = 0; index < quads; ++index)
#pragma unroll
      for (int e = 0; e < quad; ++e) slice[k() + e][column(index)] = values[index].at[e];
  }
};

// Adds the products of one slice to the thread's sums.
template <class Tile, class T>
__device__ void multiply_slice(const Slice<T, Tile::m>& a, const Slice<T, Tile::n>& b, Sums<T, Tile>& sums) {
#pragma unroll
  for (int k = 0; k < depth; ++k) {
    Quad<T> rows[Tile::thread_m / quad], columns[Tile::thread_n / quad];
#pragma unroll
    for (int i = 0; i < Tile::thread_m / quad; ++i) rows[i] = *reinterpret_cast<const Quad<T>*>(&a[k][Tile::row(i)]);
#pragma unroll
    for (int j = 0; j < Tile::thread_n / quad; ++j) columns[j] = *reinterpret_cast<const Quad<T>*>(&b[k][Tile::column(j)]);
#pragma unroll
    for (int i = 0; i < Tile::thread_m; ++i)
#pragma unroll
      for (int j = 0; j < Tile::thread_n; ++j) sums[i][j] += rows[i / quad].at[i % quad] * columns[j / quad].at[j % quad];
  }
}

// The sums over `count` k. fetch(a, b) gets the thread's shares of the next slices of A and B; beyond the last k it
// gets zeros. Shared memory: two slices of A, (depth, m), and of B, (depth, n): one in use, one being filled.
template <class Tile, class ShareA, class ShareB, class T, class Fetch>
__device__ void multiply(int count, Sums<T, Tile>& sums, Fetch fetch) {
  SMEM(T, slices_a, [2][depth][Tile::m + quad]);
  SMEM(T, slices_b, [2][depth][Tile::n + quad]);
  ShareA a;
  ShareB b;
  fetch(a, b);
  a.put(slices_a[0]);
  b.put(slices_b[0]);
  for (int k = 0, now = 0; k < count; k += depth, now ^= 1) {
    fetch(a, b);
    __syncthreads();  // `now` is there and nobody reads the other; it also keeps the compiler from fetching later
    multiply_slice<Tile>(slices_a[now], slices_b[now], sums);
    a.put(slices_a[now ^ 1]);
    b.put(slices_b[now ^ 1]);
  }
}

// What fills the machine when D has few tiles: the k are dealt to `parts` blocks a tile. Each part of D goes to the
// workspace, (parts, rows of D, images rounded up to quads), and sum_parts_kernel adds them up.
// Threads: x = image (or filter), y = row of the sums, of which each channel has `pixels`.
template <class T>
__global__ void sum_parts_kernel(Rows<const T> parts, Rows<T> sums, int count, int pixels, Epilogue<T> epilogue) {
  const Place place = this_place();
  if (place.row >= sums.rows || place.n >= sums.images) return;
  T sum = 0;
  for (int part = 0; part < count; ++part) sum += parts.row(part * sums.rows + place.row)[place.n];
  T& target = sums.row(place.row)[place.n];
  target = epilogue(sums.add ? sum_of(target, sum) : sum, place.row / pixels);
}

}  // namespace convnet

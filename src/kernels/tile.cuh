// Products of matrices in tiles, which convolutions and fully connected layers are made of: device code.
//   D[m,n] = sum over k of A[k,m] * B[k,n]
// A block computes a tile of D. It walks along k in slices of `depth`: while the threads multiply the slice that
// lies in shared memory, each already holds its share of the next one, fetched from A and B, in registers.
#pragma once
#include "epilogue.h"
#include "runs.cuh"

namespace convnet {

constexpr int quad = 4;  // rows or columns side by side that a thread multiplies
template <class T>
using Quad = Run<T, quad>;

// The other way: overwrites `count` elements of a channel, or adds to them. Vector: the whole run, the padding of the row included.
template <bool Vector, class T, int size>
__device__ void store_run(T* target, Run<Computed<T>, size> values, int count, bool add, const Epilogue<T>& epilogue = {}, int channel = 0) {
  if constexpr (Vector) {
    Run<T, size>* const whole = reinterpret_cast<Run<T, size>*>(target);
    if (add) {
      const Run<T, size> old = *whole;
#pragma unroll
      for (int e = 0; e < size; ++e) values.at[e] = added(old.at[e], values.at[e]);
    }
#pragma unroll
    for (int e = 0; e < size; ++e) values.at[e] = epilogue(values.at[e], channel);
    Run<T, size> result = converted<T>(values);
    if (epilogue.acts) {
      const Run<T, size> acts = *reinterpret_cast<const Run<T, size>*>(epilogue.acts_at(target));
#pragma unroll
      for (int e = 0; e < size; ++e) result.at[e] = relu_gradient<Computed<T>>(result.at[e], acts.at[e]);
    }
    *whole = result;
  } else {
#pragma unroll
    for (int e = 0; e < size; ++e)
      if (e < count) target[e] = epilogue.masked(epilogue(add ? added(target[e], values.at[e]) : values.at[e], channel), target + e);
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
template <int depth>
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

// The piece of D that a block computes, (M, N), and that of each of its threads, (ThreadM, ThreadN): quads of rows
// and columns, spread over the tile so that neighbours read neighbouring banks. What a kernel asks of its tile:
//   m, n, depth, threads, blocks        the size of the tile and of a slice; threads of a block, blocks of a multiprocessor
//   runs_m of run_m rows, runs_n ...    what a thread has of D, and row(run), column(run), where they begin in the tile
//   Sums, at(row, column)               that part of D
//   RowShare, ColumnShare               what a thread fetches of a slice of A or B; load(...) as load_piece
//   multiply(count, sums, fetch)        the sums over `count` k
// mma_tile.cuh has the other kind, for tensor cores.
template <int M, int N, int ThreadM, int ThreadN>
struct Tile {
  static constexpr int m = M, n = N, depth = 16;
  static constexpr int run_m = quad, runs_m = ThreadM / quad, run_n = quad, runs_n = ThreadN / quad;
  static constexpr int threads_n = N / ThreadN, threads = M / ThreadM * threads_n;
  static constexpr int blocks = threads > 64 ? 3 : 4;  // that should fit on a multiprocessor: what limits the registers
  template <class A, class B>
  static constexpr std::size_t shared_bytes = 0;  // beside what `multiply` declares

  __device__ static int row(int run) { return int(threadIdx.x) / threads_n * quad + run * (M * quad / ThreadM); }
  __device__ static int column(int run) { return int(threadIdx.x) % threads_n * quad + run * (N * quad / ThreadN); }

  template <class T>
  struct Sums {
    T values[ThreadM][ThreadN];
    __device__ T at(int row, int column) const { return values[row][column]; }
  };

  // A slice of A or B in shared memory: (depth, Size), rows padded by a quad so that ColumnShare meets more banks.
  template <class T, int Size>
  using Slice = T[depth][Size + quad];

  // A thread's share of a slice whose rows lie in memory as they do here: pieces of one row.
  template <class T, int Size>
  struct RowShare {
    static constexpr int lanes = threads / depth, pieces = Size / piece<T> / lanes;
    static_assert(pieces * lanes * piece<T> == Size);
    Piece<T> values[pieces];

    __device__ static int k() { return int(threadIdx.x) / lanes; }
    __device__ static int column(int index) { return (int(threadIdx.x) % lanes + index * lanes) * piece<T>; }
    template <bool Vector, bool Masked>
    __device__ void load(int index, bool inside, const T* source, int count) { values[index] = load_piece<Vector, Masked>(inside, source, count); }
    __device__ void put(Slice<Computed<T>, Size>& slice) const {
#pragma unroll
      for (int index = 0; index < pieces; ++index)
        *reinterpret_cast<Run<Computed<T>, piece<T>>*>(&slice[k()][column(index)]) = converted<Computed<T>>(values[index]);
    }
  };

  // The same where columns lie in memory along k: pieces of columns, stored element by element. Neighbours have
  // neighbouring pieces of one column, all of its k.
  template <class T, int Size>
  struct ColumnShare {
    static constexpr int lanes = threads / (depth / piece<T>), pieces = Size / lanes;
    static_assert(pieces * lanes == Size);
    Piece<T> values[pieces];

    __device__ static int k() { return int(threadIdx.x) % (depth / piece<T>) * piece<T>; }
    __device__ static int column(int index) { return int(threadIdx.x) / (depth / piece<T>) + index * lanes; }
    template <bool Vector, bool Masked>
    __device__ void load(int index, bool inside, const T* source, int count) { values[index] = load_piece<Vector, Masked>(inside, source, count); }
    __device__ void put(Slice<Computed<T>, Size>& slice) const {
#pragma unroll
      for (int index = 0; index < pieces; ++index)
#pragma unroll
        for (int e = 0; e < piece<T>; ++e) slice[k() + e][column(index)] = values[index].at[e];
    }
  };

  // Adds the products of one slice to the thread's sums.
  template <class T>
  __device__ static void multiply_slice(const Slice<T, M>& a, const Slice<T, N>& b, Sums<T>& sums) {
#pragma unroll
    for (int k = 0; k < depth; ++k) {
      Quad<T> rows[runs_m], columns[runs_n];
#pragma unroll
      for (int i = 0; i < runs_m; ++i) rows[i] = *reinterpret_cast<const Quad<T>*>(&a[k][row(i)]);
#pragma unroll
      for (int j = 0; j < runs_n; ++j) columns[j] = *reinterpret_cast<const Quad<T>*>(&b[k][column(j)]);
#pragma unroll
      for (int i = 0; i < ThreadM; ++i)
#pragma unroll
        for (int j = 0; j < ThreadN; ++j) sums.values[i][j] += rows[i / quad].at[i % quad] * columns[j / quad].at[j % quad];
    }
  }

  // The sums over `count` k. fetch(a, b) gets the thread's shares of the next slices of A and B; beyond the last k it
  // gets zeros. Shared memory: two slices of A, (depth, m), and of B, (depth, n): one in use, one being filled.
  template <class ShareA, class ShareB, class T, class Fetch>
  __device__ static void multiply(int count, Sums<T>& sums, Fetch fetch) {
    SMEM(T, slices_a, [2][depth][M + quad]);
    SMEM(T, slices_b, [2][depth][N + quad]);
    ShareA a;
    ShareB b;
    fetch(a, b);
    a.put(slices_a[0]);
    b.put(slices_b[0]);
    for (int k = 0, now = 0; k < count; k += depth, now ^= 1) {
      fetch(a, b);
      __syncthreads();  // `now` is there and nobody reads the other; it also keeps the compiler from fetching later
      multiply_slice(slices_a[now], slices_b[now], sums);
      a.put(slices_a[now ^ 1]);
      b.put(slices_b[now ^ 1]);
    }
  }
};

// What fills the machine when D has few tiles: the k are dealt to `parts` blocks a tile. Each part of D goes to the
// workspace, (parts, rows of D, images rounded up to pieces), and sum_parts_kernel adds them up.
// Threads: x = image (or filter), y = row of the sums, of which each channel has `pixels`.
template <class T>
__global__ void sum_parts_kernel(Rows<const Computed<T>> parts, Rows<T> sums, int count, int pixels, Epilogue<T> epilogue) {
  const Place place = this_place();
  if (place.row >= sums.rows || place.n >= sums.images) return;
  Computed<T> sum = 0;
  for (int part = 0; part < count; ++part) sum += parts.row(part * sums.rows + place.row)[place.n];
  T& target = sums.row(place.row)[place.n];
  target = epilogue.masked(epilogue(sums.add ? added(target, sum) : sum, place.row / pixels), &target);
}

}  // namespace convnet

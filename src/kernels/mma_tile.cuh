// The tiles of tile.cuh on tensor cores (sm_80): float32 in memory, rounded to what an instruction multiplies on the way
// from shared memory to the registers, and summed in float32.
#pragma once
#include "ptx/convert.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/mma.cuh"
#include "tile.cuh"

namespace convnet {

// ---- what becomes of the operands ------------------------------------------------------------------------------------
//
// An instruction takes `depth` k. Lane 4 g + t brings, of each row g of A and column g of B, a pair (k, k + 1) with
// k = 2 t for every 8 of these k. That is another order of k than the instruction's own, but the same one in A and B.

using Pair = Run<float, 2>;

// 10 bits of fraction, in one instruction for 8 k.
struct Tf32 {
  static constexpr int depth = 8, planes = 1, products = 1;

  // words: (planes, 2 rows), the registers of the instruction in its order; rows: 2 of A, 1 of B.
  template <int rows>
  __device__ static void convert(const Pair (&pairs)[1][rows], unsigned (&words)[1][2 * rows]) {
#pragma unroll
    for (int row = 0; row < rows; ++row) {
      words[0][row] = ptx::to_tf32(pairs[0][row].at[0]);
      words[0][rows + row] = ptx::to_tf32(pairs[0][row].at[1]);
    }
  }
  // Which planes the product number `product` is of.
  __device__ static constexpr int plane_a(int) { return 0; }
  __device__ static constexpr int plane_b(int) { return 0; }
  __device__ static void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ptx::mma_m16n8k8_tf32(sums, a, b); }
};

// 7 bits of fraction, in one instruction for 16 k.
struct Bf16 {
  static constexpr int depth = 16, planes = 1, products = 1;

  template <int rows>
  __device__ static void convert(const Pair (&pairs)[2][rows], unsigned (&words)[1][2 * rows]) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int row = 0; row < rows; ++row) words[0][half * rows + row] = ptx::pack_bf16(pairs[half][row].at[0], pairs[half][row].at[1]);
  }
  __device__ static constexpr int plane_a(int) { return 0; }
  __device__ static constexpr int plane_b(int) { return 0; }
  __device__ static void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ptx::mma_m16n8k16_bf16(sums, a, b); }
};

// A number as the sum of two of Bf16, plane 0 the larger one; of the four products the smallest is left out.
struct Bf16x3 {
  static constexpr int depth = 16, planes = 2, products = 3;

  template <int rows>
  __device__ static void convert(const Pair (&pairs)[2][rows], unsigned (&words)[2][2 * rows]) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int row = 0; row < rows; ++row) {
        const auto [low, high] = pairs[half][row].at;
        const unsigned rounded = ptx::pack_bf16(low, high);
        words[0][half * rows + row] = rounded;
        words[1][half * rows + row] = ptx::pack_bf16(low - __uint_as_float(rounded << 16), high - __uint_as_float(rounded & 0xFFFF0000u));
      }
  }
  __device__ static constexpr int plane_a(int product) { return product == 0; }  // the small products come first
  __device__ static constexpr int plane_b(int product) { return product == 1; }
  __device__ static void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { ptx::mma_m16n8k16_bf16(sums, a, b); }
};

// ---- slices in shared memory -----------------------------------------------------------------------------------------

// Where element (k, column) of a slice of `depth` k is, so that no two lanes meet in a bank.

// Rows lie in memory as they do here: (depth, Size), and a quad more.
template <int Size>
struct RowSlice {
  static constexpr int pitch = Size + quad;
  HOST_DEVICE static constexpr int at(int k, int column) { return k * pitch + column; }
};

// Columns lie in memory along k: (Size, 16), in every other two of them the quads exchanged; so at(k, column) is
// at(k, column % 4) + at(0, column / 4 * 4), which saves registers.
struct ColumnSlice {
  HOST_DEVICE static constexpr int at(int k, int column) { return column * 16 + ((k / quad) ^ (column / 2 % 2 * 2)) * quad + k % quad; }
};

// Of 32 lanes that each move `size` elements at place(lane): groups of them take turns, 32 elements at a time, and in
// a turn each must have banks of its own.
template <class Place>
consteval bool is_conflict_free(int size, Place place) {
  for (int first = 0; first < 32; first += 32 / size) {
    unsigned banks = 0;
    for (int lane = first; lane < first + 32 / size; ++lane)
      for (int e = 0; e < size; ++e) banks |= 1u << (place(lane) + e) % 32;
    if (banks != 0xFFFFFFFF) return false;
  }
  return true;
}

// Lanes that read the pairs of rows or columns 0 to 7, and those that fetch quads.
static_assert(is_conflict_free(1, [](int lane) { return RowSlice<128>::at(lane % 4 * 2, lane / 4); }));
static_assert(is_conflict_free(1, [](int lane) { return RowSlice<128>::at(lane % 4 * 2 + 1, lane / 4); }));
static_assert(is_conflict_free(4, [](int lane) { return RowSlice<128>::at(lane / 8, lane % 8 * quad); }));
static_assert(is_conflict_free(2, [](int lane) { return ColumnSlice::at(lane % 4 * 2, lane / 4); }));
static_assert(is_conflict_free(2, [](int lane) { return ColumnSlice::at(8 + lane % 4 * 2, lane / 4); }));
static_assert(is_conflict_free(4, [](int lane) { return ColumnSlice::at(lane % 4 * quad, lane / 4); }));

// ---- the tile --------------------------------------------------------------------------------------------------------

// (M, N) of D for a block, (WarpM, WarpN) for each of its warps: 16 rows and 8 columns for an instruction. Slices are
// fetched by asynchronous copies; Stages of them are on the way or in use.
template <class Math, int M, int N, int WarpM, int WarpN, int Stages, int Blocks>
struct MmaTile {
  static constexpr int m = M, n = N, depth = 16;
  static constexpr int run_m = 1, runs_m = WarpM / 8, run_n = 2, runs_n = WarpN / 8;
  static constexpr int warps_n = N / WarpN, threads = 32 * (M / WarpM) * warps_n;
  static constexpr int blocks = Blocks;
  static constexpr int stage_size = depth * (RowSlice<M>::pitch + RowSlice<N>::pitch);
  static constexpr std::size_t shared_bytes = Stages * stage_size * sizeof(float);

  __device__ static int lane() { return int(threadIdx.x) % 32; }
  __device__ static int warp() { return int(threadIdx.x) / 32; }
  __device__ static int row(int run) { return warp() / warps_n * WarpM + run * 8 + lane() / 4; }
  __device__ static int column(int run) { return warp() % warps_n * WarpN + run * 8 + lane() % 4 * 2; }

  template <class T>
  struct Sums {
    float values[WarpM / 16][WarpN / 8][4];
    __device__ float at(int row, int column) const { return values[row / 2][column / 2][row % 2 * 2 + column % 2]; }
  };

  // Begins to fetch a quad, as load_quad does; `count` is above 0 if it is inside.
  template <bool Vector, bool Masked>
  __device__ static void load(float* target, bool inside, const float* source, int count) {
    if constexpr (Vector) {
      ptx::cp_async<16>(target, source, inside ? Masked ? min(count, quad) * 4 : 16 : 0);
    } else {
#pragma unroll
      for (int e = 0; e < quad; ++e) ptx::cp_async<4>(target + e, source + e, inside && e < count ? 4 : 0);
    }
  }

  // The lane's pairs of a slice, from a column of the warp's on. pair(k, column): of the eight k from k on and the eight
  // columns from `column` on, numbers that the compiler knows, so that both are part of the instruction.
  template <int Size>
  struct RowPairs {
    const float* first;
    __device__ RowPairs(const float* slice, int column) : first(slice + RowSlice<Size>::at(lane() % 4 * 2, column + lane() / 4)) {}
    __device__ Pair pair(int k, int column) const {
      const float* const at = first + RowSlice<Size>::at(k, column);
      return {at[0], at[RowSlice<Size>::at(1, 0)]};
    }
  };
  struct ColumnPairs {
    const float* first[depth / 8];
    __device__ ColumnPairs(const float* slice, int column) {
#pragma unroll
      for (int k = 0; k < depth; k += 8) first[k / 8] = slice + ColumnSlice::at(k + lane() % 4 * 2, lane() / 4) + ColumnSlice::at(0, column);
    }
    __device__ Pair pair(int k, int column) const { return *reinterpret_cast<const Pair*>(first[k / 8] + ColumnSlice::at(0, column)); }
  };

  template <class T, int Size>
  struct RowShare {
    using Pairs = RowPairs<Size>;
    static constexpr int lanes = threads / depth, quads = Size / quad / lanes;
    static_assert(quads * lanes * quad == Size);
    float* slice;

    __device__ static int k() { return int(threadIdx.x) / lanes; }
    __device__ static int column(int index) { return (int(threadIdx.x) % lanes + index * lanes) * quad; }
    template <bool Vector, bool Masked>
    __device__ void load(int index, bool inside, const float* source, int count) {
      MmaTile::load<Vector, Masked>(slice + RowSlice<Size>::at(k(), column(index)), inside, source, count);
    }
  };

  template <class T, int Size>
  struct ColumnShare {
    using Pairs = ColumnPairs;
    static constexpr int lanes = threads / (depth / quad), quads = Size / lanes;
    static_assert(quads * lanes == Size);
    float* slice;

    __device__ static int k() { return int(threadIdx.x) % (depth / quad) * quad; }
    __device__ static int column(int index) { return int(threadIdx.x) / (depth / quad) + index * lanes; }
    template <bool Vector, bool Masked>
    __device__ void load(int index, bool inside, const float* source, int count) {
      MmaTile::load<Vector, Masked>(slice + ColumnSlice::at(k(), column(0)) + index * ColumnSlice::at(0, lanes), inside, source, count);
    }
  };

  template <class ShareA, class ShareB, class T>
  __device__ static void multiply_slice(const float* a, const float* b, Sums<T>& sums) {
    const typename ShareA::Pairs pairs_a(a, warp() / warps_n * WarpM);
    const typename ShareB::Pairs pairs_b(b, warp() % warps_n * WarpN);
#pragma unroll
    for (int k = 0; k < depth; k += Math::depth) {
      unsigned columns[WarpN / 8][Math::planes][2];
#pragma unroll
      for (int j = 0; j < WarpN / 8; ++j) {
        Pair pairs[Math::depth / 8][1];
#pragma unroll
        for (int e = 0; e < Math::depth / 8; ++e) pairs[e][0] = pairs_b.pair(k + e * 8, j * 8);
        Math::convert(pairs, columns[j]);
      }
#pragma unroll
      for (int i = 0; i < WarpM / 16; ++i) {
        Pair pairs[Math::depth / 8][2];
        unsigned rows[Math::planes][4];
#pragma unroll
        for (int e = 0; e < Math::depth / 4; ++e) pairs[e / 2][e % 2] = pairs_a.pair(k + e / 2 * 8, i * 16 + e % 2 * 8);
        Math::convert(pairs, rows);
#pragma unroll
        for (int product = 0; product < Math::products; ++product)
#pragma unroll
          for (int j = 0; j < WarpN / 8; ++j) Math::multiply(sums.values[i][j], rows[Math::plane_a(product)], columns[j][Math::plane_b(product)]);
      }
    }
  }

  // The sums over `count` k. fetch(a, b) begins to fetch the thread's shares of the next slices of A and B; beyond the
  // last k these are zeros. Shared memory: (Stages, a slice of A and one of B).
  template <class ShareA, class ShareB, class T, class Fetch>
  __device__ static void multiply(int count, Sums<T>& sums, Fetch fetch) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    __trap();  // has_tensor_cores() keeps the launchers from it
#else
    DYN_SMEM(float, slices);
    const auto fetch_into = [&](int stage) {
      ShareA a{slices + stage * stage_size};
      ShareB b{a.slice + depth * RowSlice<M>::pitch};
      fetch(a, b);
      ptx::cp_async_commit();
    };
#pragma unroll
    for (int stage = 0; stage < Stages - 1; ++stage) fetch_into(stage);
    for (int k = 0, now = 0; k < count; k += depth) {
      ptx::cp_async_wait<Stages - 2>();
      __syncthreads();  // `now` is there for all threads, and nobody reads the one before it
      fetch_into(now == 0 ? Stages - 1 : now - 1);
      const float* const slice = slices + now * stage_size;
      multiply_slice<ShareA, ShareB>(slice, slice + depth * RowSlice<M>::pitch, sums);
      now = now == Stages - 1 ? 0 : now + 1;
    }
    ptx::cp_async_wait<0>();
#endif
  }
};

}  // namespace convnet

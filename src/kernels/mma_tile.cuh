// The tiles of tile.cuh on tensor cores (sm_80): float32 in memory, rounded to what an instruction multiplies on the way
// from shared memory to the registers, and summed in float32. What is stored in bfloat16 is multiplied as it is.
#pragma once
#include "ptx/convert.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
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

constexpr int slice_depth = 16;

// Rows lie in memory as they do here: (slice_depth, Size), and 16 bytes more.
template <class T, int Size>
struct RowSlice {
  static constexpr int pitch = Size + 16 / int(sizeof(T)), size = slice_depth * pitch;
  HOST_DEVICE static constexpr int at(int k, int column) { return k * pitch + column; }
};

// Columns lie in memory along k: (Size, slice_depth), in some of them pieces of k exchanged: of float32 in every
// other two columns, of bfloat16 in every other four. So at(k, column) is at(k, column % 8) + at(0, column / 8 * 8), which saves registers.
template <class T>
struct ColumnSlice {
  HOST_DEVICE static constexpr int at(int k, int column) {
    const int moved = sizeof(T) == 4 ? column / 2 % 2 * 2 : column / 4 % 2;
    return column * slice_depth + ((k / piece<T>) ^ moved) * piece<T> + k % piece<T>;
  }
};

// Of 32 lanes that each move `bytes` at place(lane): groups of them take turns, 128 bytes at a time, and in a turn each must
// have banks of its own. T: what is counted by `place`.
template <class T, class Place>
consteval bool is_conflict_free(int bytes, Place place, int lanes = 32) {
  for (int first = 0; first < lanes; first += 128 / bytes) {
    unsigned banks = 0;
    for (int lane = first; lane < first + 128 / bytes; ++lane)
      for (int byte = 0; byte < bytes; byte += 4) banks |= 1u << (place(lane) * int(sizeof(T)) + byte) / 4 % 32;
    if (banks != 0xFFFFFFFF) return false;
  }
  return true;
}

// Lanes that read the pairs of rows or columns 0 to 7, and those that fetch pieces.
static_assert(is_conflict_free<float>(4, [](int lane) { return RowSlice<float, 128>::at(lane % 4 * 2, lane / 4); }));
static_assert(is_conflict_free<float>(4, [](int lane) { return RowSlice<float, 128>::at(lane % 4 * 2 + 1, lane / 4); }));
static_assert(is_conflict_free<float>(16, [](int lane) { return RowSlice<float, 128>::at(lane / 8, lane % 8 * 4); }));
static_assert(is_conflict_free<float>(8, [](int lane) { return ColumnSlice<float>::at(lane % 4 * 2, lane / 4); }));
static_assert(is_conflict_free<float>(8, [](int lane) { return ColumnSlice<float>::at(8 + lane % 4 * 2, lane / 4); }));
static_assert(is_conflict_free<float>(16, [](int lane) { return ColumnSlice<float>::at(lane % 4 * 4, lane / 4); }));
// Of bfloat16 an 8x8 matrix is read at once, its rows by 8 lanes.
static_assert(is_conflict_free<bfloat16>(16, [](int lane) { return RowSlice<bfloat16, 128>::at(lane, 0); }, 8));
static_assert(is_conflict_free<bfloat16>(16, [](int lane) { return RowSlice<bfloat16, 128>::at(lane / 8, lane % 8 * 8); }));
static_assert(is_conflict_free<bfloat16>(16, [](int lane) { return ColumnSlice<bfloat16>::at(0, lane); }, 8));
static_assert(is_conflict_free<bfloat16>(16, [](int lane) { return ColumnSlice<bfloat16>::at(8, lane); }, 8));
static_assert(is_conflict_free<bfloat16>(16, [](int lane) { return ColumnSlice<bfloat16>::at(lane % 2 * 8, lane / 2); }));

// ---- the tile --------------------------------------------------------------------------------------------------------

// (M, N) of D for a block, (WarpM, WarpN) for each of its warps: 16 rows and 8 columns for an instruction. Slices are
// fetched by asynchronous copies; Stages of them are on the way or in use.
template <class Math, int M, int N, int WarpM, int WarpN, int Stages, int Blocks>
struct MmaTile {
  static constexpr int m = M, n = N, depth = slice_depth;
  static constexpr int run_m = 1, runs_m = WarpM / 8, run_n = 2, runs_n = WarpN / 8;
  static constexpr int warps_n = N / WarpN, threads = 32 * (M / WarpM) * warps_n;
  static constexpr int blocks = Blocks;
  template <class A>
  static constexpr std::size_t bytes_a = RowSlice<A, M>::size * sizeof(A);  // of a slice; of columns it is less
  template <class A, class B>
  static constexpr std::size_t stage_bytes = bytes_a<A> + RowSlice<B, N>::size * sizeof(B);
  template <class A, class B>
  static constexpr std::size_t shared_bytes = Stages * stage_bytes<A, B>;

  __device__ static int lane() { return int(threadIdx.x) % 32; }
  __device__ static int warp() { return int(threadIdx.x) / 32; }
  __device__ static int row(int run) { return warp() / warps_n * WarpM + run * 8 + lane() / 4; }
  __device__ static int column(int run) { return warp() % warps_n * WarpN + run * 8 + lane() % 4 * 2; }

  template <class T>
  struct Sums {
    float values[WarpM / 16][WarpN / 8][4];
    __device__ float at(int row, int column) const { return values[row / 2][column / 2][row % 2 * 2 + column % 2]; }
  };

  // Begins to fetch a piece, as load_piece does; `count` is above 0 if it is inside. Copies of less than 4 bytes do not go on meanwhile.
  template <bool Vector, bool Masked, class T>
  __device__ static void load(T* target, bool inside, const T* source, int count) {
    if constexpr (Vector) {
      ptx::cp_async<16>(target, source, inside ? Masked ? min(count, piece<T>) * int(sizeof(T)) : 16 : 0);
    } else {
#pragma unroll
      for (int e = 0; e < piece<T>; ++e) {
        if constexpr (sizeof(T) == 4) ptx::cp_async<4>(target + e, source + e, inside && e < count ? 4 : 0);
        else target[e] = inside && e < count ? source[e] : T(0);
      }
    }
  }

  // What a warp reads of a slice, from a row or column of it on: read(k, column, words) gets a lane's words of the instruction, of
  // `tiles` times eight rows of A or columns of B. k and column are numbers that the compiler knows, so that they are part of
  // the instruction. Of float32 a lane reads its pairs; of bfloat16 the warp reads matrices: tiles beside each other, two
  // of eight k, and a lane has the address of a row of one.
  __device__ static int matrix() { return lane() / 8; }
  template <int tiles, class PairAt>
  __device__ static void convert(unsigned (&words)[Math::planes][2 * tiles], PairAt pair_at) {
    Pair pairs[Math::depth / 8][tiles];
#pragma unroll
    for (int e = 0; e < Math::depth / 8 * tiles; ++e) pairs[e / tiles][e % tiles] = pair_at(e / tiles * 8, e % tiles * 8);
    Math::convert(pairs, words);
  }

  template <class T, int Size, int tiles>
  struct RowReader {
    using Slice = RowSlice<T, Size>;
    const T* first;
    __device__ RowReader(const T* slice, int column)
        : first(slice + (sizeof(T) == 4 ? Slice::at(lane() % 4 * 2, column + lane() / 4)
                                        : Slice::at(matrix() / tiles % 2 * 8 + lane() % 8, column + matrix() % tiles * 8))) {}
    __device__ void read(int k, int column, unsigned (&words)[Math::planes][2 * tiles]) const {
      if constexpr (sizeof(T) == 4)
        convert<tiles>(words, [&](int more_k, int more_columns) -> Pair {
          const T* const at = first + Slice::at(k + more_k, column + more_columns);
          return {at[0], at[Slice::at(1, 0)]};
        });
      else
        ptx::ldmatrix_transposed(words[0], first + Slice::at(k, column));
    }
  };

  template <class T, int tiles>
  struct ColumnReader {
    using Slice = ColumnSlice<T>;
    static constexpr int starts = sizeof(T) == 4 ? depth / 8 : 1;
    const T* first[starts];
    __device__ ColumnReader(const T* slice, int column) {
#pragma unroll
      for (int i = 0; i < starts; ++i)
        first[i] = slice + Slice::at(0, column) + (sizeof(T) == 4 ? Slice::at(i * 8 + lane() % 4 * 2, lane() / 4)
                                                                  : Slice::at(matrix() / tiles % 2 * 8, lane() % 8) + Slice::at(0, matrix() % tiles * 8));
    }
    __device__ void read(int k, int column, unsigned (&words)[Math::planes][2 * tiles]) const {
      if constexpr (sizeof(T) == 4)
        convert<tiles>(words, [&](int more_k, int more_columns) {
          return *reinterpret_cast<const Pair*>(first[(k + more_k) / 8] + Slice::at(0, column + more_columns));
        });
      else
        ptx::ldmatrix(words[0], first[0] + Slice::at(0, column));  // of all k
    }
  };

  template <class T, int Size>
  struct RowShare {
    using Element = T;
    template <int tiles>
    using Reader = RowReader<T, Size, tiles>;
    static constexpr int lanes = threads / depth, pieces = Size / piece<T> / lanes;
    static_assert(pieces * lanes * piece<T> == Size);
    T* slice;

    __device__ static int k() { return int(threadIdx.x) / lanes; }
    __device__ static int column(int index) { return (int(threadIdx.x) % lanes + index * lanes) * piece<T>; }
    template <bool Vector, bool Masked>
    __device__ void load(int index, bool inside, const T* source, int count) {
      MmaTile::load<Vector, Masked>(slice + RowSlice<T, Size>::at(k(), column(index)), inside, source, count);
    }
  };

  template <class T, int Size>
  struct ColumnShare {
    using Element = T;
    template <int tiles>
    using Reader = ColumnReader<T, tiles>;
    static constexpr int lanes = threads / (depth / piece<T>), pieces = Size / lanes;
    static_assert(pieces * lanes == Size && lanes % 8 == 0);
    T* slice;

    __device__ static int k() { return int(threadIdx.x) % (depth / piece<T>) * piece<T>; }
    __device__ static int column(int index) { return int(threadIdx.x) / (depth / piece<T>) + index * lanes; }
    template <bool Vector, bool Masked>
    __device__ void load(int index, bool inside, const T* source, int count) {
      MmaTile::load<Vector, Masked>(slice + ColumnSlice<T>::at(k(), column(0)) + index * ColumnSlice<T>::at(0, lanes), inside, source, count);
    }
  };

  template <class ShareA, class ShareB, class T>
  __device__ static void multiply_slice(const typename ShareA::Element* a, const typename ShareB::Element* b, Sums<T>& sums) {
    const typename ShareA::template Reader<2> reader_a(a, warp() / warps_n * WarpM);
    const typename ShareB::template Reader<1> reader_b(b, warp() % warps_n * WarpN);
#pragma unroll
    for (int k = 0; k < depth; k += Math::depth) {
      unsigned columns[WarpN / 8][Math::planes][2];
#pragma unroll
      for (int j = 0; j < WarpN / 8; ++j) reader_b.read(k, j * 8, columns[j]);
#pragma unroll
      for (int i = 0; i < WarpM / 16; ++i) {
        unsigned rows[Math::planes][4];
        reader_a.read(k, i * 16, rows);
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
    DYN_SMEM(unsigned char, slices);
    using A = typename ShareA::Element;
    using B = typename ShareB::Element;
    const auto fetch_into = [&](int stage) {
      ShareA a{reinterpret_cast<A*>(slices + stage * stage_bytes<A, B>)};
      ShareB b{reinterpret_cast<B*>(slices + stage * stage_bytes<A, B> + bytes_a<A>)};
      fetch(a, b);
      ptx::cp_async_commit();
    };
#pragma unroll
    for (int stage = 0; stage < Stages - 1; ++stage) fetch_into(stage);
    for (int k = 0, now = 0; k < count; k += depth) {
      ptx::cp_async_wait<Stages - 2>();
      __syncthreads();  // `now` is there for all threads, and nobody reads the one before it
      fetch_into(now == 0 ? Stages - 1 : now - 1);
      const unsigned char* const slice = slices + now * stage_bytes<A, B>;
      multiply_slice<ShareA, ShareB>(reinterpret_cast<const A*>(slice), reinterpret_cast<const B*>(slice + bytes_a<A>), sums);
      now = now == Stages - 1 ? 0 : now + 1;
    }
    ptx::cp_async_wait<0>();
#endif
  }
};

}  // namespace convnet

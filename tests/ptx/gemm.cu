// Products of matrices with every instruction of ptx/: a pipeline of asynchronous copies, and tensor cores. In tests
// only, with bugs to plant, until a kernel of the library is made this way.
#include "harness.cuh"
#include "ptx/convert.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

namespace convnet {
namespace {

enum Bug { none, early_refill, lax_wait, pending_at_exit };

constexpr int stages = 3;               // slices of k that are on the way or in use
constexpr int tile_m = 32, tile_n = 32;  // of sums that a block computes: 4 warps, (16, 16) each
constexpr int threads = 128;

// float32 rounded to tf32. b: (n, k), because 32-bit elements cannot be transposed on their way to the registers.
struct Tf32 {
  using Element = float;
  using Sum = float;
  static constexpr int depth = 8, slice = 16;
  static constexpr bool b_is_nk = true;

  template <class Rows>
  __device__ static void load_b(unsigned (&b)[2][2], Rows& rows, int n, int k) {
    const int lane = int(threadIdx.x) % 32;
    for (int j = 0; j < 2; ++j) {
      ptx::ldmatrix(b[j], &rows[n + 8 * j + lane % 8].at[k + lane / 8 % 2 * 4]);
      for (unsigned& bits : b[j]) bits = ptx::to_tf32(__uint_as_float(bits));
    }
  }
  __device__ static void convert(unsigned (&a)[4]) {
    for (unsigned& bits : a) bits = ptx::to_tf32(__uint_as_float(bits));
  }
  __device__ static void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    ptx::mma_m16n8k8_tf32(sums, a, b);
  }
  __device__ static void store(Sum* at, int count, float first, float second) {
    if (count > 0) at[0] = first;
    if (count > 1) at[1] = second;
  }
};

// bfloat16, also the sums. b: (k, n).
struct Bf16 {
  using Element = unsigned short;
  using Sum = unsigned short;
  static constexpr int depth = 16, slice = 32;
  static constexpr bool b_is_nk = false;

  template <class Rows>
  __device__ static void load_b(unsigned (&b)[2][2], Rows& rows, int n, int k) {
    const int lane = int(threadIdx.x) % 32;
    unsigned both[4];
    ptx::ldmatrix_transposed(both, &rows[k + lane % 16].at[n + lane / 16 * 8]);
    for (int r = 0; r < 4; ++r) b[r / 2][r % 2] = both[r];
  }
  __device__ static void convert(unsigned (&)[4]) {}
  __device__ static void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    ptx::mma_m16n8k16_bf16(sums, a, b);
  }
  __device__ static void store(Sum* at, int count, float first, float second) {
    const unsigned both = ptx::pack_bf16(first, second);
    if (count > 0) at[0] = Sum(both);
    if (count > 1) at[1] = Sum(both >> 16);
  }
};

// A row of a slice in shared memory; 16 bytes more than it holds, so that eight rows meet all banks.
template <class T, int count>
struct alignas(16) Row {
  T at[count + 16 / sizeof(T)];
};

// A matrix with rows at multiples of `bytes`, of a copy, from each other.
template <class T>
struct Matrix {
  const T* data;
  int rows, columns, pitch;
};

// Starts the copies of (Rows, columns) of the matrix, from (row, column); zeros where it ends.
template <int bytes, int rows, int columns, class T, class Slice>
__device__ void fetch(Slice& slice, const Matrix<T>& matrix, int row, int column) {
  constexpr int elements = bytes / int(sizeof(T));
  for (int i = int(threadIdx.x); i < rows * columns / elements; i += threads) {
    const int r = i / (columns / elements), c = i % (columns / elements) * elements;
    const int left = row + r < matrix.rows ? max(0, min(elements, matrix.columns - column - c)) : 0;
    const T* const source = left ? matrix.data + std::size_t(row + r) * matrix.pitch + column + c : matrix.data;
    ptx::cp_async<bytes>(&slice[r].at[c], source, left * int(sizeof(T)));
  }
}

// sums (m, n) of a (m, k) and b, (n, k) or (k, n). A block computes a tile, a warp (16, 16) of it. Slices of k go round
// through `stages` places in shared memory: while one is multiplied, stages - 1 others are on the way.
template <class Type, int bytes, Bug bug>
__global__ void __launch_bounds__(threads) gemm_kernel(Matrix<typename Type::Element> a, Matrix<typename Type::Element> b, typename Type::Sum* sums, int n_count) {
  using T = typename Type::Element;
  using RowA = Row<T, Type::slice>;
  constexpr int b_rows = Type::b_is_nk ? tile_n : Type::slice, b_columns = Type::b_is_nk ? Type::slice : tile_n;
  using RowB = Row<T, b_columns>;
  SMEM(RowA, slices_a, [stages][tile_m]);
  SMEM(RowB, slices_b, [stages][b_rows]);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int warp_m = warp / 2 * 16, warp_n = warp % 2 * 16;
  const int first_m = int(blockIdx.y) * tile_m, first_n = int(blockIdx.x) * tile_n;
  const int slices = ceil_div(a.columns, Type::slice);

  const auto fetch_slice = [&](int index) {
    const int stage = index % stages, k = index * Type::slice;
    if (index < slices || bug == pending_at_exit) {
      fetch<bytes, tile_m, Type::slice>(slices_a[stage], a, first_m, k);
      fetch<bytes, b_rows, b_columns>(slices_b[stage], b, Type::b_is_nk ? first_n : k, Type::b_is_nk ? k : first_n);
    }
    ptx::cp_async_commit();  // of nothing at the end, so that the number of groups on the way is always the same
  };

  float own[2][4] = {};
  for (int index = 0; index < stages - 1; ++index) fetch_slice(index);
  for (int index = 0; index < slices; ++index) {
    ptx::cp_async_wait<bug == lax_wait ? stages - 1 : stages - 2>();
    if constexpr (bug == early_refill) fetch_slice(index + stages - 1);  // others may still multiply what lies there
    __syncthreads();  // everybody's copies of this slice are there, and nobody still multiplies the one before
    if constexpr (bug != early_refill) fetch_slice(index + stages - 1);
    auto& slice_a = slices_a[index % stages];
    auto& slice_b = slices_b[index % stages];
#pragma unroll
    for (int k = 0; k < Type::slice; k += Type::depth) {
      unsigned registers_a[4], registers_b[2][2];
      ptx::ldmatrix(registers_a, &slice_a[warp_m + lane % 16].at[k + lane / 16 * int(16 / sizeof(T))]);
      Type::convert(registers_a);
      Type::load_b(registers_b, slice_b, warp_n, k);
#pragma unroll
      for (int j = 0; j < 2; ++j) Type::multiply(own[j], registers_a, registers_b[j]);
    }
  }
  if constexpr (bug == lax_wait) ptx::cp_async_wait_all();  // too late
#pragma unroll
  for (int j = 0; j < 2; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int m = first_m + warp_m + lane / 4 + 8 * half, n = first_n + warp_n + 8 * j + lane % 4 * 2;
      if (m < a.rows) Type::store(sums + std::size_t(m) * n_count + n, n_count - n, own[j][2 * half], own[j][2 * half + 1]);
    }
}

template <class Type, int bytes, Bug bug>
void gemm(const typename Type::Element* a, const typename Type::Element* b, typename Type::Sum* sums, int m, int n, int k, int pitch_a, int pitch_b) {
  const int rows_b = Type::b_is_nk ? n : k, columns_b = Type::b_is_nk ? k : n;
  const Copied in_a(a, std::size_t(m) * pitch_a), in_b(b, std::size_t(rows_b) * pitch_b);
  const Copied out(sums, std::size_t(m) * n);
  using T = typename Type::Element;
  launch<gemm_kernel<Type, bytes, bug>>({dim3(ceil_div(n, tile_n), ceil_div(m, tile_m)), dim3(threads)}, Stream{},
         Matrix<T>{in_a.get(), m, k, pitch_a}, Matrix<T>{in_b.get(), rows_b, columns_b, pitch_b}, out.get(), n);
  out.bring_back(sums);
}

}  // namespace
}  // namespace convnet

using namespace convnet;

// Matrices whose rows lie pitch elements apart, a multiple of `bytes`, the size of the copies: 4, 8 or 16.
API gemm_tf32(int bytes, const float* a, const float* b, float* sums, int m, int n, int k, int pitch_a, int pitch_b) {
  const auto run = bytes == 4 ? gemm<Tf32, 4, none> : bytes == 8 ? gemm<Tf32, 8, none> : gemm<Tf32, 16, none>;
  return text_of_error([&] { run(a, b, sums, m, n, k, pitch_a, pitch_b); });
}

API gemm_bf16(int bytes, const unsigned short* a, const unsigned short* b, unsigned short* sums, int m, int n, int k, int pitch_a, int pitch_b) {
  const auto run = bytes == 4 ? gemm<Bf16, 4, none> : bytes == 8 ? gemm<Bf16, 8, none> : gemm<Bf16, 16, none>;
  return text_of_error([&] { run(a, b, sums, m, n, k, pitch_a, pitch_b); });
}

API gemm_with_bug(int bug, const float* a, const float* b, float* sums, int m, int n, int k, int pitch_a, int pitch_b) {
  const auto run = bug == early_refill ? gemm<Tf32, 16, early_refill> : bug == lax_wait ? gemm<Tf32, 16, lax_wait> : gemm<Tf32, 16, pending_at_exit>;
  return text_of_error([&] { run(a, b, sums, m, n, k, pitch_a, pitch_b); });
}

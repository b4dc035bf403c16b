// One instruction a kernel, for conformance.py: what a warp gives to an instruction and what it gets. A block is one
// warp, and one case.
#include "harness.cuh"
#include "ptx/convert.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

namespace convnet {
namespace {

using Byte = unsigned char;
constexpr int lanes = 32;

// ---- cvt ----------------------------------------------------------------------------------------

__global__ void to_tf32_kernel(const float* values, unsigned* bits) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  bits[i] = ptx::to_tf32(values[i]);
}

__global__ void pack_bf16_kernel(const float* low, const float* high, unsigned* bits) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  bits[i] = ptx::pack_bf16(low[i], high[i]);
}

// ---- cp.async -----------------------------------------------------------------------------------

// (blocks, 32 lanes, bytes): each lane copies source_bytes of its bytes, over others.
template <int bytes>
__global__ void cp_async_kernel(const Byte* source, const int* source_bytes, Byte* copies) {
  SMEM(uint4, memory, [lanes]);
  const int lane = int(threadIdx.x), i = int(blockIdx.x) * lanes + lane;
  Byte* const own = reinterpret_cast<Byte*>(memory) + lane * bytes;
  for (int b = 0; b < bytes; ++b) own[b] = 0xAA;
  __syncthreads();
  ptx::cp_async<bytes>(own, source + i * bytes, source_bytes[i]);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  __syncthreads();
  const Byte* const next = reinterpret_cast<const Byte*>(memory) + (lane + 1) % lanes * bytes;
  for (int b = 0; b < bytes; ++b) copies[(i - lane + (lane + 1) % lanes) * bytes + b] = next[b];
}

// (blocks, 4 groups, 32 lanes): waits for one group after the other, the last of them not committed.
__global__ void cp_async_wait_kernel(const float* source, float* copies) {
  SMEM(float, memory, [4][lanes]);
  const int lane = int(threadIdx.x), first = int(blockIdx.x) * 4 * lanes + lane;
  const auto keep = [&](int group) { copies[first + group * lanes] = memory[group][lane]; };
  for (int group = 0; group < 4; ++group) {
    ptx::cp_async<4>(&memory[group][lane], source + first + group * lanes);
    if (group < 3) ptx::cp_async_commit();
  }
  ptx::cp_async_wait<2>();
  keep(0);
  ptx::cp_async_wait<1>();
  keep(1);
  ptx::cp_async_wait<0>();
  keep(2);
  ptx::cp_async_wait_all();
  keep(3);
}

// ---- ldmatrix -----------------------------------------------------------------------------------

// memory: (blocks, 32 rows, 16 bytes), places: (blocks, 32 lanes), the row whose address a lane gives;
// registers: (blocks, 32 lanes, matrices).
template <int matrices, bool transposed>
__global__ void ldmatrix_kernel(const uint4* memory, const int* places, unsigned* registers) {
  SMEM(uint4, rows, [lanes]);
  const int lane = int(threadIdx.x), i = int(blockIdx.x) * lanes + lane;
  rows[lane] = memory[i];
  __syncthreads();
  unsigned own[matrices];
  if constexpr (transposed)
    ptx::ldmatrix_transposed(own, &rows[places[i]]);
  else
    ptx::ldmatrix(own, &rows[places[i]]);
  for (int j = 0; j < matrices; ++j) registers[i * matrices + j] = own[j];
}

// ---- mma ----------------------------------------------------------------------------------------

// a, sums: (blocks, 32 lanes, 4 registers); b: (blocks, 32 lanes, 2 registers). Into `sums`.
template <bool bf16>
__global__ void mma_kernel(const unsigned* a, const unsigned* b, float* sums) {
  const int i = int(blockIdx.x) * lanes + int(threadIdx.x);
  unsigned own_a[4], own_b[2];
  float own_sums[4];
  for (int r = 0; r < 4; ++r) own_a[r] = a[i * 4 + r];
  for (int r = 0; r < 2; ++r) own_b[r] = b[i * 2 + r];
  for (int r = 0; r < 4; ++r) own_sums[r] = sums[i * 4 + r];
  if constexpr (bf16)
    ptx::mma_m16n8k16_bf16(own_sums, own_a, own_b);
  else
    ptx::mma_m16n8k8_tf32(own_sums, own_a, own_b);
  for (int r = 0; r < 4; ++r) sums[i * 4 + r] = own_sums[r];
}

// ---- the C functions ----------------------------------------------------------------------------
// What is not const is written, and what is of 32 lanes is of each block.

const Grid warps(int blocks) { return {dim3(unsigned(blocks)), dim3(lanes)}; }
std::size_t all_lanes(int blocks) { return std::size_t(blocks) * lanes; }

template <int bytes>
void run_cp_async(const Byte* source, const int* source_bytes, Byte* copies, int blocks) {
  const Copied in(source, all_lanes(blocks) * bytes), out(copies, all_lanes(blocks) * bytes);
  const Copied sizes(source_bytes, all_lanes(blocks));
  launch<cp_async_kernel<bytes>>(warps(blocks), Stream{}, in.get(), sizes.get(), out.get());
  out.bring_back(copies);
}

template <int matrices, bool transposed>
void run_ldmatrix(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  const Copied in(memory, all_lanes(blocks));
  const Copied rows(places, all_lanes(blocks));
  const Copied out(registers, all_lanes(blocks) * matrices);
  launch<ldmatrix_kernel<matrices, transposed>>(warps(blocks), Stream{}, in.get(), rows.get(), out.get());
  out.bring_back(registers);
}

template <bool bf16>
void run_mma(const unsigned* a, const unsigned* b, float* sums, int blocks) {
  const Copied in_a(a, all_lanes(blocks) * 4), in_b(b, all_lanes(blocks) * 2);
  const Copied out(sums, all_lanes(blocks) * 4);
  launch<mma_kernel<bf16>>(warps(blocks), Stream{}, in_a.get(), in_b.get(), out.get());
  out.bring_back(sums);
}

}  // namespace
}  // namespace convnet

using namespace convnet;

API to_tf32(const float* values, unsigned* bits, int blocks) {
  return text_of_error([&] {
    const Copied in(values, all_lanes(blocks));
    const Copied out(bits, all_lanes(blocks));
    launch<to_tf32_kernel>(warps(blocks), Stream{}, in.get(), out.get());
    out.bring_back(bits);
  });
}
API pack_bf16(const float* low, const float* high, unsigned* bits, int blocks) {
  return text_of_error([&] {
    const Copied in_low(low, all_lanes(blocks)), in_high(high, all_lanes(blocks));
    const Copied out(bits, all_lanes(blocks));
    launch<pack_bf16_kernel>(warps(blocks), Stream{}, in_low.get(), in_high.get(), out.get());
    out.bring_back(bits);
  });
}

API cp_async_4(const Byte* source, const int* source_bytes, Byte* copies, int blocks) {
  return text_of_error([&] { run_cp_async<4>(source, source_bytes, copies, blocks); });
}
API cp_async_8(const Byte* source, const int* source_bytes, Byte* copies, int blocks) {
  return text_of_error([&] { run_cp_async<8>(source, source_bytes, copies, blocks); });
}
API cp_async_16(const Byte* source, const int* source_bytes, Byte* copies, int blocks) {
  return text_of_error([&] { run_cp_async<16>(source, source_bytes, copies, blocks); });
}
API cp_async_wait(const float* source, float* copies, int blocks) {
  return text_of_error([&] {
    const Copied in(source, all_lanes(blocks) * 4);
    const Copied out(copies, all_lanes(blocks) * 4);
    launch<cp_async_wait_kernel>(warps(blocks), Stream{}, in.get(), out.get());
    out.bring_back(copies);
  });
}

API ldmatrix_x1(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  return text_of_error([&] { run_ldmatrix<1, false>(memory, places, registers, blocks); });
}
API ldmatrix_x2(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  return text_of_error([&] { run_ldmatrix<2, false>(memory, places, registers, blocks); });
}
API ldmatrix_x4(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  return text_of_error([&] { run_ldmatrix<4, false>(memory, places, registers, blocks); });
}
API ldmatrix_x1_transposed(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  return text_of_error([&] { run_ldmatrix<1, true>(memory, places, registers, blocks); });
}
API ldmatrix_x2_transposed(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  return text_of_error([&] { run_ldmatrix<2, true>(memory, places, registers, blocks); });
}
API ldmatrix_x4_transposed(const uint4* memory, const int* places, unsigned* registers, int blocks) {
  return text_of_error([&] { run_ldmatrix<4, true>(memory, places, registers, blocks); });
}

API mma_m16n8k8_tf32(const unsigned* a, const unsigned* b, float* sums, int blocks) {
  return text_of_error([&] { run_mma<false>(a, b, sums, blocks); });
}
API mma_m16n8k16_bf16(const unsigned* a, const unsigned* b, float* sums, int blocks) {
  return text_of_error([&] { run_mma<true>(a, b, sums, blocks); });
}

// For simt alone: its options, and what is undefined on a GPU.
#include "harness.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"

namespace convnet {
namespace {

__global__ void unaligned_target_kernel(const float* source) {
  SMEM(float, memory, [8]);
  ptx::cp_async<16>(memory + 1, source);
}
__global__ void unaligned_source_kernel(const float* source) {
  SMEM(float, memory, [8]);
  ptx::cp_async<16>(memory, source + 1);
}
__global__ void target_in_global_memory_kernel(float* source) { ptx::cp_async<4>(source + 4, source); }
__global__ void target_beyond_shared_memory_kernel(const float* source) {
  SMEM(float, memory, [8]);
  ptx::cp_async<4>(memory + 8, source);
}
__global__ void source_in_shared_memory_kernel(const float*) {
  SMEM(float, memory, [8]);
  ptx::cp_async<4>(memory, memory + 4);
}
__global__ void too_many_source_bytes_kernel(const float* source) {
  SMEM(float, memory, [8]);
  ptx::cp_async<8>(memory, source, 12);
}

__global__ void unaligned_row_kernel(const float*) {
  SMEM(float, memory, [32][5]);
  unsigned registers[4];
  ptx::ldmatrix(registers, memory[threadIdx.x]);
}
__global__ void row_in_global_memory_kernel(const float* source) {
  unsigned registers[1];
  ptx::ldmatrix(registers, source);
}
__global__ void half_a_warp_kernel(const float*) {
  float sums[4] = {};
  const unsigned a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) ptx::mma_m16n8k8_tf32(sums, a, b);  // half a warp
}
__global__ void small_block_kernel(const float*) {
  float sums[4] = {};
  const unsigned a[4] = {}, b[2] = {};
  ptx::mma_m16n8k16_bf16(sums, a, b);
}
__global__ void two_places_kernel(const float*) {
  float sums[4] = {};
  const unsigned a[4] = {}, b[2] = {};
  if (threadIdx.x % 2)
    ptx::mma_m16n8k8_tf32(sums, a, b);  // odd lanes
  else
    ptx::mma_m16n8k8_tf32(sums, a, b);  // even lanes
}

// What lies in the targets of three copies after their issue and after each wait: (4, 3).
__global__ void targets_over_time_kernel(const float* source, float* seen) {
  SMEM(float, memory, [3]);
  const auto look = [&](int time) {
    for (int i = 0; i < 3; ++i) seen[3 * time + i] = memory[i];
  };
  for (int i = 0; i < 3; ++i) {
    memory[i] = -1;
    ptx::cp_async<4>(memory + i, source + i);
    if (i < 2) ptx::cp_async_commit();
  }
  look(0);
  ptx::cp_async_wait<1>();
  look(1);
  ptx::cp_async_wait<0>();
  look(2);
  ptx::cp_async_wait_all();
  look(3);
}

}  // namespace
}  // namespace convnet

using namespace convnet;

// A function for a kernel: it runs on one block and eight floats.
#define MISUSE(name, threads)                                                                 \
  API name() {                                                                                \
    const float values[8] = {};                                                               \
    const Copied<float> source(values, 8);                                                    \
    return text_of_error([&] { launch<name##_kernel>({dim3(1), dim3(threads)}, Stream{}, source.get()); }); \
  }

MISUSE(unaligned_target, 1)
MISUSE(unaligned_source, 1)
MISUSE(target_in_global_memory, 1)
MISUSE(target_beyond_shared_memory, 1)
MISUSE(source_in_shared_memory, 1)
MISUSE(too_many_source_bytes, 1)
MISUSE(unaligned_row, 32)
MISUSE(row_in_global_memory, 32)
MISUSE(half_a_warp, 32)
MISUSE(small_block, 31)
MISUSE(two_places, 32)

API targets_over_time(const float* source, float* seen) {
  return text_of_error([&] {
    const Copied in(source, 3);
    const Copied out(seen, 12);
    launch<targets_over_time_kernel>({dim3(1), dim3(1)}, Stream{}, in.get(), out.get());
    out.bring_back(seen);
  });
}

API set_options(unsigned long long order, int early) {
  return text_of_error([&] {
    simt::set_options({.order = order, .async = early ? simt::AsyncLanding::kEarly : simt::AsyncLanding::kLate});
  });
}
API landing() {
  const char* landing = nullptr;
  const char* error = text_of_error([&] { landing = simt::options().async == simt::AsyncLanding::kEarly ? "early" : "late"; });
  return landing ? landing : error;
}

// Kernels with a bug each, for the checkers to find, and sound ones, for them to pass. Driven by test_planted.py:
// `planted NAME...` runs them one after the other and says what each one threw.
//
// A line that a report must name ends in "// BUG", and outside of the kernel itself in "// BUG of" and its name.
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>

#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "runtime.h"
#include "simt/simt.h"

namespace ptx = convnet::ptx;

namespace {

constexpr int kThreads = 64;

// ---- races in shared memory ---------------------------------------------------------------------

__global__ void shared_read_before_barrier(const int* in, int* out) {
  SMEM(int, tile, [kThreads]);
  tile[threadIdx.x] = in[threadIdx.x];  // BUG
  out[threadIdx.x] = tile[threadIdx.x ^ 63];  // BUG
}

__global__ void shared_tile_overwritten_too_early(const int* in, int* out) {
  SMEM(int, tile, [kThreads]);
  int sum = 0;
  for (int step = 0; step < 3; ++step) {
    tile[threadIdx.x] = in[threadIdx.x] + step;  // BUG
    __syncthreads();
    for (int i = 0; i < kThreads; ++i) sum += tile[i];  // BUG
  }
  out[threadIdx.x] = sum;
}

__device__ int sum_over_block(int (&values)[kThreads], int value) {
  values[threadIdx.x] = value;  // BUG of shared_reduction_buffer_reused
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
  }
  __syncthreads();
  return values[0];  // BUG of shared_reduction_buffer_reused
}

__global__ void shared_reduction_buffer_reused(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  const int sum = sum_over_block(values, in[threadIdx.x]);
  out[threadIdx.x] = sum + sum_over_block(values, 2 * in[threadIdx.x]);
}

__global__ void shared_double_buffer_of_one(const int* in, int* out) {
  SMEM(int, tiles, [2][kThreads]);
  int sum = 0;
  for (int step = 0; step < 4; ++step) {
    tiles[0][threadIdx.x] = in[threadIdx.x] + step;  // BUG
    __syncthreads();
    sum += tiles[0][threadIdx.x ^ 40];  // BUG
  }
  out[threadIdx.x] = sum;
}

__global__ void shared_warp_without_syncwarp(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  const int lane = threadIdx.x % 32, base = threadIdx.x - lane;
  values[threadIdx.x] = in[threadIdx.x];
  __syncwarp();
  for (int half = 16; half > 0; half /= 2) {
    if (lane < half) values[base + lane] += values[base + lane + half];  // BUG
  }
  if (lane == 0) out[base / 32] = values[base];
}

__global__ void shared_ordered_by_a_shuffle(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  values[threadIdx.x] = in[threadIdx.x];  // BUG
  const int ticket = __shfl_sync(0xffffffffu, in[threadIdx.x], 0);
  out[threadIdx.x] = ticket + values[threadIdx.x ^ 1];  // BUG
}

__global__ void shared_dynamic_read_before_barrier(const int* in, int* out) {
  DYN_SMEM(int, buffer);
  buffer[threadIdx.x] = in[threadIdx.x];  // BUG
  out[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];  // BUG
}

__global__ void shared_barrier_of_half_the_work(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  if (threadIdx.x < 32) values[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  if (threadIdx.x >= 32) values[threadIdx.x] = in[threadIdx.x];  // BUG
  out[threadIdx.x] = values[kThreads - 1 - threadIdx.x];  // BUG
}

// ---- races in global memory, within a block -----------------------------------------------------

__global__ void global_neighbour_in_block(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x];  // BUG
  out[kThreads + threadIdx.x] = out[threadIdx.x ^ 1];  // BUG
}

__global__ void global_sum_without_atomics(const int* in, int* out) {
  out[0] += in[threadIdx.x];  // BUG
}

__global__ void global_atomic_meets_plain_read(const int* in, int* out) {
  atomicAdd(&out[0], in[threadIdx.x]);
  if (threadIdx.x == 63) out[1] = out[0];  // BUG
}

// ---- races between blocks -----------------------------------------------------------------------

__global__ void blocks_count_without_atomics(const int*, int* out) {
  if (threadIdx.x == 0) out[0] += 1;  // BUG
}

__global__ void blocks_read_their_neighbour(const int* in, int* out) {
  const int sum = __syncthreads_count(in[threadIdx.x] > 3);
  if (threadIdx.x == 0) out[1 + blockIdx.x] = sum;  // BUG
  __syncthreads();
  if (threadIdx.x == 1) out[20 + blockIdx.x] = out[blockIdx.x];  // BUG
}

__global__ void blocks_overlap_by_one(const int* in, int* out) {
  for (int i = threadIdx.x; i < 65; i += kThreads) out[blockIdx.x * 64 + i] = in[0];  // BUG
}

__global__ void blocks_expect_the_first_to_initialise(const int* in, int* out) {
  if (blockIdx.x == 0 && threadIdx.x == 0) out[0] = 0;  // BUG
  __syncthreads();
  atomicAdd(&out[0], in[threadIdx.x]);
}

// ---- out of bounds ------------------------------------------------------------------------------

__device__ int element(const int* array, int i) {
  return array[i];  // BUG of bounds_shared_through_a_pointer bounds_shared_before_an_array
}

__global__ void bounds_shared_through_a_pointer(const int*, int* out) {
  SMEM(int, values, [32]);
  values[threadIdx.x % 32] = 1;
  __syncthreads();
  out[threadIdx.x] = element(values, threadIdx.x == 0 ? 32 : 0);
}

__global__ void bounds_shared_before_an_array(const int*, int* out) {
  SMEM(int, values, [32]);
  values[threadIdx.x % 32] = 1;
  __syncthreads();
  out[threadIdx.x] = element(values, threadIdx.x == 0 ? -1 : 0);
}

__global__ void bounds_row_of_a_shared_array(const int* in, int* out) {
  SMEM(int, tile, [2][33]);
  const int row = threadIdx.x / 32, column = threadIdx.x % 32 + (threadIdx.x == 31) * 2;
  tile[row][column] = in[threadIdx.x];  // BUG
  __syncthreads();
  out[threadIdx.x] = tile[row][0];
}

__global__ void bounds_dynamic_shared(const int* in, int* out) {
  DYN_SMEM(int, buffer);
  buffer[threadIdx.x + (threadIdx.x == 63)] = in[threadIdx.x];  // BUG
  __syncthreads();
  out[threadIdx.x] = buffer[threadIdx.x];
}

__global__ void bounds_global_read(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x + 1];  // BUG
}

__global__ void bounds_global_write(const int* in, int* out) {
  out[256 + threadIdx.x] = in[threadIdx.x];  // BUG
}

__global__ void bounds_global_before(const int* in, int* out) {
  out[threadIdx.x] = in[int(threadIdx.x) - 1];  // BUG
}

__global__ void bounds_misaligned_vector(const int* in, int* out) {
  const int4 four = *reinterpret_cast<const int4*>(in + threadIdx.x % 8);  // BUG
  out[threadIdx.x] = four.x;
}

// ---- 32 bits for an index -----------------------------------------------------------------------

__global__ void index_product_overflows(const int* in, int* out, int rows, int pitch) {
  const int last = (rows - 1) * pitch;  // BUG
  out[threadIdx.x] = in[threadIdx.x] + (last > 0);
}

// Right up to 2^31 elements: a conversion, which no sanitizer objects to. Wrong values show it, where rows are far apart.
__global__ void index_cut_to_32_bits(const float* rows, float* out, long pitch) {
  out[threadIdx.x] = rows[int(threadIdx.x * pitch)];
}

// ---- barriers and warp functions ----------------------------------------------------------------

__global__ void misuse_divergent_barrier(const int* in, int* out) {
  if (in[threadIdx.x] > 3) {
    __syncthreads();  // BUG
  } else {
    __syncthreads();  // BUG
  }
  out[threadIdx.x] = 1;
}

__global__ void misuse_shuffle_of_half_a_warp(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  values[threadIdx.x] = in[threadIdx.x];
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);  // BUG
  __syncthreads();  // BUG
}

__global__ void misuse_two_functions_in_a_warp(const int* in, int* out) {
  if (threadIdx.x % 32 < 16) {
    out[threadIdx.x] = __shfl_sync(0xffffffffu, in[threadIdx.x], 0);  // BUG
  } else {
    out[threadIdx.x] = __any_sync(0xffffffffu, in[threadIdx.x]);  // BUG
  }
}

__global__ void misuse_lane_outside_its_mask(const int* in, int* out) {
  out[threadIdx.x] = __shfl_sync(0x0000ffffu, in[threadIdx.x], 0);  // BUG
}

// ---- sound --------------------------------------------------------------------------------------

__global__ void sound_reduction(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  const int sum = sum_over_block(values, in[threadIdx.x]);
  __syncthreads();
  const int twice = sum_over_block(values, 2 * in[threadIdx.x]);
  if (threadIdx.x == 0) out[blockIdx.x] = sum + twice;
}

__global__ void sound_double_buffer(const int* in, int* out) {
  SMEM(int, tiles, [2][kThreads]);
  int sum = 0;
  for (int step = 0; step < 6; ++step) {
    tiles[step % 2][threadIdx.x] = in[threadIdx.x] + step;
    __syncthreads();
    for (int i = 0; i < kThreads; i += 7) sum += tiles[step % 2][i];
  }
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

__global__ void sound_warp_reduction(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  const int lane = threadIdx.x % 32, base = threadIdx.x - lane;
  values[threadIdx.x] = in[threadIdx.x];
  for (int half = 16; half > 0; half /= 2) {
    __syncwarp();
    if (lane < half) values[base + lane] += values[base + lane + half];
  }
  __syncwarp();
  out[blockIdx.x * kThreads + threadIdx.x] = values[base];
}

__global__ void sound_half_warps(const int* in, int* out) {
  SMEM(int, values, [kThreads]);
  const int lane = threadIdx.x % 32;
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  int sum = in[threadIdx.x];
  for (int round = 0; round < 3; ++round) {
    values[threadIdx.x] = sum;
    __syncwarp(mask);
    sum += values[threadIdx.x ^ 5];
    __syncwarp(mask);
  }
  for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(mask, sum, offset);
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

__global__ void sound_atomics(const int* in, int* out) {
  SMEM(int, counts, [4]);
  if (threadIdx.x < 4) counts[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&counts[in[threadIdx.x] % 4], 1);
  __syncthreads();
  if (threadIdx.x < 4) atomicAdd(&out[threadIdx.x], counts[threadIdx.x]);
}

__global__ void sound_early_exit(const int* in, int* out) {
  DYN_SMEM(int, buffer);
  if (threadIdx.x >= 48) return;
  buffer[threadIdx.x] = in[threadIdx.x];
  const int live = __syncthreads_count(1);
  out[blockIdx.x * kThreads + threadIdx.x] = buffer[47 - threadIdx.x] + live;
}

__global__ void sound_no_barrier(const int* in, int* out) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  out[i] = in[threadIdx.x] + 1;  // BUG of bounds_released_memory
}

// ---- asynchronous copies and matrices -----------------------------------------------------------

__global__ void shared_stage_refilled_too_early(const int* in, int* out) {
  SMEM(int, stages, [2][kThreads]);  // three would do
  int sum = 0;
  ptx::cp_async<4>(&stages[0][threadIdx.x], in + threadIdx.x);
  ptx::cp_async_commit();
  for (int step = 0; step < 4; ++step) {
    ptx::cp_async<4>(&stages[(step + 1) % 2][threadIdx.x], in + (threadIdx.x + step) % kThreads);  // BUG
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    sum += stages[step % 2][63 - threadIdx.x];  // BUG
  }
  ptx::cp_async_wait_all();
  out[threadIdx.x] = sum;
}

__global__ void shared_copies_of_others_without_barrier(const int* in, int* out) {
  SMEM(int, stage, [kThreads]);
  ptx::cp_async<4>(&stage[threadIdx.x], in + threadIdx.x);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();  // BUG
  out[threadIdx.x] = stage[63 - threadIdx.x];  // BUG
}

__global__ void shared_wait_for_one_group_too_few(const int* in, int* out) {
  SMEM(int, stages, [2][kThreads]);
  for (int stage = 0; stage < 2; ++stage) {
    ptx::cp_async<4>(&stages[stage][threadIdx.x], in + threadIdx.x);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<1>();
  __syncthreads();
  const int sum = stages[0][63 - threadIdx.x] + stages[1][63 - threadIdx.x];  // BUG
  ptx::cp_async_wait_all();  // BUG
  out[threadIdx.x] = sum;
}

__global__ void shared_matrix_loaded_before_it_is_there(const int* in, int* out) {
  SMEM(int, tile, [2][32][4]);
  auto& rows = tile[threadIdx.x / 32];
  rows[threadIdx.x % 32][0] = in[threadIdx.x];  // BUG
  unsigned registers[4];
  ptx::ldmatrix(registers, rows[31 - threadIdx.x % 32]);  // BUG
  out[threadIdx.x] = int(registers[0]);
}

__global__ void bounds_source_of_a_copy(const int* in, int* out) {
  SMEM(int, stage, [kThreads]);
  ptx::cp_async<4>(&stage[threadIdx.x], in + threadIdx.x + 1);  // BUG
  ptx::cp_async_wait_all();
  out[threadIdx.x] = stage[threadIdx.x];
}

__global__ void misuse_exit_with_pending_copies(const int* in, int*) {
  SMEM(int, stage, [kThreads]);
  ptx::cp_async<4>(&stage[threadIdx.x], in + threadIdx.x);  // BUG
  ptx::cp_async_commit();
}

__global__ void misuse_product_of_half_a_warp(const int*, int*) {
  float sums[4] = {};
  const unsigned a[4] = {}, b[2] = {};
  if (threadIdx.x % 32 < 16) ptx::mma_m16n8k8_tf32(sums, a, b);  // BUG
}

__global__ void sound_pipeline(const int* in, int* out) {
  SMEM(int, stages, [3][kThreads]);
  int sum = 0;
  ptx::cp_async<4>(&stages[0][threadIdx.x], in + threadIdx.x);
  ptx::cp_async_commit();
  for (int step = 0; step < 7; ++step) {
    ptx::cp_async<4>(&stages[(step + 1) % 3][threadIdx.x], in + (threadIdx.x + step) % kThreads);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    unsigned registers[1];
    ptx::ldmatrix(registers, &stages[step % 3][threadIdx.x % 16 * 4]);
    sum += int(registers[0]) + stages[step % 3][63 - threadIdx.x];
  }
  ptx::cp_async_wait_all();
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

// ---- running them -------------------------------------------------------------------------------

struct Buffers {
  int* in = reinterpret_cast<int*>(convnet::allocate(0, 64 * sizeof(int)));
  int* out = reinterpret_cast<int*>(convnet::allocate(0, 300 * sizeof(int)));
  Buffers() {
    for (int i = 0; i < 64; ++i) in[i] = i * i % 7;
  }
  ~Buffers() {
    convnet::release(0, reinterpret_cast<uintptr_t>(in));
    convnet::release(0, reinterpret_cast<uintptr_t>(out));
  }
};

template <class... More>
std::function<void()> kernel(const char* name, void (*function)(const int*, int*, More...), int blocks, More... more) {
  return [=] {
    Buffers buffers;
    simt::launch(name, simt::Memory::kDevice, function, blocks, kThreads, kThreads * sizeof(int), buffers.in, buffers.out, more...);
  };
}

void released_memory() {
  uintptr_t gone;
  {
    Buffers buffers;
    gone = reinterpret_cast<uintptr_t>(buffers.in);
  }
  Buffers buffers;
  // a caller's memory: nobody keeps a list of it
  simt::launch("released_memory", simt::Memory::kCaller, sound_no_barrier, 1, kThreads, 0, reinterpret_cast<const int*>(gone), buffers.out);
}

void rows_far_apart() {
  constexpr long pitch = 1l << 28, rows = 12, room = 1l << 32;  // elements; room for an index that has lost its upper bits
  const size_t bytes = (2 * room + rows * pitch) * sizeof(float);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no address space");
  float* first = static_cast<float*>(memory) + room;
  for (long row = 0; row < rows; ++row) first[row * pitch] = float(row);
  float out[rows];
  simt::launch("index_cut_to_32_bits", simt::Memory::kCaller, index_cut_to_32_bits, 1, unsigned(rows), 0, first, out, pitch);
  munmap(memory, bytes);
  for (long row = 0; row < rows; ++row) {
    if (out[row] != float(row)) throw std::runtime_error("row " + std::to_string(row) + " is wrong");
  }
}

#define KERNEL(name, ...) {#name, kernel(#name, name, __VA_ARGS__)}
const std::map<std::string, std::function<void()>> kernels = {
    KERNEL(shared_read_before_barrier, 1),
    KERNEL(shared_tile_overwritten_too_early, 1),
    KERNEL(shared_reduction_buffer_reused, 1),
    KERNEL(shared_double_buffer_of_one, 1),
    KERNEL(shared_warp_without_syncwarp, 1),
    KERNEL(shared_ordered_by_a_shuffle, 1),
    KERNEL(shared_dynamic_read_before_barrier, 1),
    KERNEL(shared_barrier_of_half_the_work, 1),
    KERNEL(shared_stage_refilled_too_early, 1),
    KERNEL(shared_copies_of_others_without_barrier, 1),
    KERNEL(shared_wait_for_one_group_too_few, 1),
    KERNEL(shared_matrix_loaded_before_it_is_there, 1),
    KERNEL(global_neighbour_in_block, 1),
    KERNEL(global_sum_without_atomics, 1),
    KERNEL(global_atomic_meets_plain_read, 1),
    KERNEL(blocks_count_without_atomics, 4),
    KERNEL(blocks_read_their_neighbour, 4),
    KERNEL(blocks_overlap_by_one, 4),
    KERNEL(blocks_expect_the_first_to_initialise, 4),
    KERNEL(bounds_shared_through_a_pointer, 1),
    KERNEL(bounds_shared_before_an_array, 1),
    KERNEL(bounds_row_of_a_shared_array, 1),
    KERNEL(bounds_dynamic_shared, 1),
    KERNEL(bounds_global_read, 1),
    KERNEL(bounds_global_write, 1),
    KERNEL(bounds_global_before, 1),
    KERNEL(bounds_misaligned_vector, 1),
    KERNEL(bounds_source_of_a_copy, 1),
    KERNEL(index_product_overflows, 1, 32769, 65536),
    {"bounds_released_memory", released_memory},
    {"index_cut_to_32_bits", rows_far_apart},
    KERNEL(misuse_divergent_barrier, 2),
    KERNEL(misuse_shuffle_of_half_a_warp, 2),
    KERNEL(misuse_two_functions_in_a_warp, 2),
    KERNEL(misuse_lane_outside_its_mask, 2),
    KERNEL(misuse_exit_with_pending_copies, 2),
    KERNEL(misuse_product_of_half_a_warp, 2),
    KERNEL(sound_reduction, 4),
    KERNEL(sound_double_buffer, 4),
    KERNEL(sound_warp_reduction, 4),
    KERNEL(sound_half_warps, 4),
    KERNEL(sound_atomics, 4),
    KERNEL(sound_early_exit, 4),
    KERNEL(sound_no_barrier, 4),
    KERNEL(sound_pipeline, 4),
};

}  // namespace

int main(int count, char** names) {
  for (int i = 1; i < count; ++i) {
    std::fprintf(stderr, "==== %s\n", names[i]);
    try {
      kernels.at(names[i])();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "threw %s\n", error.what());
    }
  }
  std::fprintf(stderr, "==== end\n");  // what a sanitizer says behind it is no report
}

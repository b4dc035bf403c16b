// Kernels that prove the simt runtime, some with a bug planted for it to find. Driven by
// test_simt.py through the C functions below: each returns "" or the text of the error.
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "simt/simt.h"
#include "text_of_error.h"

namespace {

// ---- sound kernels ------------------------------------------------------------------------------

// sums[block] = sum of the block's blockDim.x values, as a tree in shared memory.
__global__ void block_sum_kernel(const int* values, int* sums) {
  SMEM(int, partial, [1024]);
  const unsigned t = threadIdx.x;
  partial[t] = values[blockIdx.x * blockDim.x + t];
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) partial[t] += partial[t + half];
    __syncthreads();
  }
  if (t == 0) sums[blockIdx.x] = partial[0];
}

// reversed[i] = values[n - 1 - i], through dynamic shared memory. One block of n threads.
__global__ void reverse_kernel(const int* values, int* reversed) {
  DYN_SMEM(int, buffer);
  buffer[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  reversed[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}

// Rows of 32 results: what each lane got from each warp function.
__global__ void warp_functions_kernel(const int* values, int* results) {
  const unsigned all = 0xffffffffu;
  const int lane = threadIdx.x, v = values[lane];
  int row = 0;
  auto store = [&](int result) { results[row++ * 32 + lane] = result; };
  store(__shfl_sync(all, v, 5));
  store(__shfl_sync(all, v, 1, 8));
  store(__shfl_up_sync(all, v, 3));
  store(__shfl_up_sync(all, v, 3, 8));
  store(__shfl_down_sync(all, v, 3));
  store(__shfl_down_sync(all, v, 3, 8));
  store(__shfl_xor_sync(all, v, 17));
  store(__shfl_xor_sync(all, v, 9, 8));
  store(static_cast<int>(__ballot_sync(all, v % 3 == 0)));
  store(__any_sync(all, v == values[7]));
  store(__all_sync(all, v == values[7]));
}

// The two halves of a warp sum themselves, under masks of their own and a different number of
// times.
__global__ void half_warps_kernel(const int* values, int* sums) {
  const int lane = threadIdx.x;
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  int v = values[lane];
  if (lane < 16) {
    for (int offset = 8; offset > 0; offset /= 2) v += __shfl_xor_sync(mask, v, offset);
  } else {
    for (int source = 17; source < 32; ++source) {
      const int other = __shfl_sync(mask, v, source);
      if (lane == 16) v += other;
    }
  }
  __syncwarp();
  sums[lane] = v;
}

// Lane 31 takes no part: reading its value gives all ones.
__global__ void missing_source_kernel(int* results) {
  const int lane = threadIdx.x;
  if (lane < 31) results[lane] = __shfl_down_sync(0x7fffffffu, lane, 1);
}

// Barriers go on without threads that have exited; so do warp functions.
__global__ void early_exit_kernel(int* results) {
  const int t = threadIdx.x;
  if (t % 2 == 1) return;
  const int even_lanes = static_cast<int>(__ballot_sync(0xffffffffu, 1));
  const int live_threads = __syncthreads_count(1);
  results[t / 2] = even_lanes == 0x55555555 ? live_threads : -1;
}

__global__ void barrier_votes_kernel(int* results) {
  const int t = threadIdx.x;
  const int count = __syncthreads_count(t % 3 == 0);
  const int all = __syncthreads_and(t >= 0), not_all = __syncthreads_and(t > 0);
  const int any = __syncthreads_or(t == 77), none = __syncthreads_or(t == -1);
  if (t == 0) {
    const int votes[] = {count, all, not_all, any, none};
    std::memcpy(results, votes, sizeof votes);
  }
}

__global__ void histogram_kernel(const int* values, int* counts, int* largest, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  atomicAdd(&counts[values[i] % 16], 1);
  atomicMax(largest, values[i]);
}

// A ticket tells the order in which threads and blocks came.
__global__ void tickets_kernel(int* ticket, int* order) {
  order[atomicAdd(ticket, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// Arrays of equal names in two instantiations and two of one kernel are all different memory.
template <int kSize>
__global__ void static_arrays_kernel(int* distances) {
  SMEM(double, first, [kSize][3]);
  SMEM(char, second, [kSize]);
  distances[0] = static_cast<int>(sizeof first);
  distances[1] = static_cast<int>(second - reinterpret_cast<char*>(&first[0][0]));
  distances[2] = static_cast<int>(reinterpret_cast<uintptr_t>(&first[0][0]) % 16);
}

// As in CUDA, the unqualified names of mathematics keep float float.
static_assert(std::is_same_v<float, decltype(exp(0.0f))>);
static_assert(std::is_same_v<float, decltype(pow(1.0f, 2.0f))>);
static_assert(std::is_same_v<float, decltype(rsqrt(1.0f))>);
static_assert(std::is_same_v<float, decltype(max(1.0f, 2.0f))>);

// ---- planted bugs -------------------------------------------------------------------------------

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();  // first place
  } else {
    __syncthreads();  // second place
  }
}

__global__ void half_warp_shuffle_kernel(int* results) {
  if (threadIdx.x < 16) {
    results[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);  // shuffle of half a warp
  }
  __syncthreads();  // the rest waits here
}

__global__ void divergent_warp_kernel(int* results) {
  const int t = threadIdx.x;
  if (t < 16) {
    results[t] = __shfl_sync(0xffffffffu, t, 0);
  } else {
    results[t] = __any_sync(0xffffffffu, t);
  }
}

__global__ void outside_mask_kernel() { __syncwarp(0x0000ffffu); }

// Thread 0 of block 3 leaves shared memory unwritten, after blocks that wrote it.
__global__ void unwritten_kernel(float* results) {
  SMEM(float, fixed, [32]);
  DYN_SMEM(float, dynamic);
  if (blockIdx.x != 3 || threadIdx.x != 0) fixed[threadIdx.x] = dynamic[threadIdx.x] = 1.0f;
  __syncthreads();
  results[blockIdx.x * 32 + threadIdx.x] = fixed[threadIdx.x] + dynamic[threadIdx.x];
}

// Reads the neighbour's value without waiting for it.
__global__ void missing_barrier_kernel(const int* values, int* results) {
  SMEM(int, shared, [64]);
  const unsigned t = threadIdx.x;
  shared[t] = values[t];
  results[t] = shared[t ^ 1];
}

__global__ void large_static_kernel() {
  SMEM(char, first, [40 << 10]);
  SMEM(char, second, [9 << 10]);
  first[0] = second[0] = 0;
}

__global__ void large_total_kernel() {
  SMEM(char, fixed, [32 << 10]);
  fixed[0] = 0;
}

__global__ void empty_kernel() {}

__global__ void barriers_kernel(int count) {
  for (int i = 0; i < count; ++i) __syncthreads();
}

__global__ void shuffles_kernel(int count, int* results) {
  int v = static_cast<int>(threadIdx.x);
  for (int i = 0; i < count; ++i) v ^= __shfl_xor_sync(0xffffffffu, v, 1);
  results[threadIdx.x] = v;
}

}  // namespace

// ---- the C functions ----------------------------------------------------------------------------

#define API extern "C" __attribute__((visibility("default"))) const char*
#define LAUNCH(kernel, ...) \
  return text_of_error([&] { simt::launch(#kernel, simt::Memory::kCaller, kernel, __VA_ARGS__); })

API set_order(uint64_t order) {
  return text_of_error([&] { simt::set_options({.order = order}); });
}
API set_architecture(const char* name) {
  return text_of_error([&] { simt::set_options({.architecture = &simt::architecture(name)}); });
}
API get_order(uint64_t* order) {
  return text_of_error([&] { *order = simt::options().order; });
}

API block_sum(const int* values, int* sums, int blocks, int threads) {
  LAUNCH(block_sum_kernel, blocks, threads, 0, values, sums);
}
API reverse(const int* values, int* reversed, int n) {
  LAUNCH(reverse_kernel, 1, n, n * sizeof(int), values, reversed);
}
API warp_functions(const int* values, int* results) {
  LAUNCH(warp_functions_kernel, 1, 32, 0, values, results);
}
API half_warps(const int* values, int* sums) { LAUNCH(half_warps_kernel, 1, 32, 0, values, sums); }
API missing_source(int* results) { LAUNCH(missing_source_kernel, 1, 32, 0, results); }
API early_exit(int* results) { LAUNCH(early_exit_kernel, 1, 128, 0, results); }
API barrier_votes(int* results) { LAUNCH(barrier_votes_kernel, 1, dim3(10, 5, 2), 0, results); }
API histogram(const int* values, int* counts, int* largest, int count) {
  LAUNCH(histogram_kernel, (count + 63) / 64, 64, 0, values, counts, largest, count);
}
API tickets(int* ticket, int* order, int blocks, int threads) {
  LAUNCH(tickets_kernel, blocks, threads, 0, ticket, order);
}
API static_arrays(int* distances) {
  return text_of_error([&] {
    simt::launch("static_arrays_kernel<5>", simt::Memory::kCaller, static_arrays_kernel<5>, 1, 1, 0,
                 distances);
    simt::launch("static_arrays_kernel<7>", simt::Memory::kCaller, static_arrays_kernel<7>, 1, 1, 0,
                 distances + 3);
  });
}
API thread_indices(int* wrong) {
  *wrong = 0;
  LAUNCH(
      +[](int* wrong) {
        const dim3 b = blockDim;
        const unsigned i = threadIdx.x + b.x * (threadIdx.y + b.y * threadIdx.z);
        const bool ok = threadIdx.x < b.x && threadIdx.y < b.y && threadIdx.z < b.z &&
                        blockIdx.x < gridDim.x && blockIdx.y < gridDim.y &&
                        blockIdx.z < gridDim.z &&
                        static_cast<unsigned>(simt::lane()) == i % warpSize;
        const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        wrong[0] += !ok;
        wrong[1 + block * b.x * b.y * b.z + i] += 1;
      },
      dim3(3, 2, 4), dim3(5, 4, 3), 0, wrong);
}

API divergent_barrier() { LAUNCH(divergent_barrier_kernel, dim3(1, 2), 64, 0); }
API half_warp_shuffle(int* results) { LAUNCH(half_warp_shuffle_kernel, 1, 64, 0, results); }
API divergent_warp(int* results) { LAUNCH(divergent_warp_kernel, 1, 32, 0, results); }
API outside_mask() { LAUNCH(outside_mask_kernel, 1, 32, 0); }
API unwritten(float* results) { LAUNCH(unwritten_kernel, 8, 32, 32 * sizeof(float), results); }
API missing_barrier(const int* values, int* results) {
  LAUNCH(missing_barrier_kernel, 1, 64, 0, values, results);
}
API large_static() { LAUNCH(large_static_kernel, 1, 1, 0); }
API large_total(size_t dynamic) { LAUNCH(large_total_kernel, 1, 1, dynamic); }
API empty(unsigned gx, unsigned gy, unsigned bx, unsigned by, unsigned bz, size_t dynamic) {
  LAUNCH(empty_kernel, dim3(gx, gy), dim3(bx, by, bz), dynamic);
}
API launch_from_kernel() {
  LAUNCH(+[] { simt::launch("inner", simt::Memory::kCaller, empty_kernel, 1, 1, 0); }, 1, 1, 0);
}

// Several OS threads launch at a time, sound and failing kernels by turns.
API concurrent(const int* values, int* sums, int os_threads, int rounds, int* failures) {
  return text_of_error([&] {
    std::vector<std::thread> pool;
    for (int i = 0; i < os_threads; ++i) {
      pool.emplace_back([=] {
        for (int round = 0; round < rounds; ++round) {
          int* own = sums + 4 * i;
          if (block_sum(values, own, 4, 256)[0] != '\0') failures[i] += 1000;
          failures[i] += divergent_barrier()[0] != '\0';
        }
      });
    }
    for (std::thread& thread : pool) thread.join();
  });
}

// For measuring: see the module's docstring.
API barriers(int blocks, int threads, int count) {
  LAUNCH(barriers_kernel, blocks, threads, 0, count);
}
API shuffles(int threads, int count, int* results) {
  LAUNCH(shuffles_kernel, 1, threads, 0, count, results);
}

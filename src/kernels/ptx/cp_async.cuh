// cp.async (sm_80): copies from global to shared memory that go on while the thread does other things.
//
// A thread puts the copies that it has issued since its last cp_async_commit into a group, and waits until at most
// so many of its groups are on the way. Its own waiting shows it its own copies; a barrier after it shows them to
// the other threads. Until then what lies in the shared memory is undefined.
#pragma once
#include "../device.cuh"

namespace convnet::ptx {

#ifdef __CUDACC__

// Copies `bytes`, 4, 8 or 16: the first `source_bytes` of them from `global`, the rest is zero. Both addresses are
// multiples of `bytes`. Copies of 16 leave out the L1 cache (.cg), smaller ones cannot (.ca).
template <int bytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, int source_bytes = bytes) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const std::size_t from = __cvta_generic_to_global(global);
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(source_bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(bytes), "r"(source_bytes) : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most the `groups` youngest groups of this thread are on the way.
template <int groups>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

// Until none of this thread's copies is on the way, whether in a group or not.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

template <int bytes>
void cp_async(void* shared, const void* global, int source_bytes = bytes, simt::Site site = simt::Site::here()) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  simt::async_copy(shared, global, bytes, source_bytes, site);
}
inline void cp_async_commit() { simt::async_commit(); }
template <int groups>
void cp_async_wait() {
  simt::async_wait(groups);
}
inline void cp_async_wait_all() { simt::async_wait_all(); }

#endif

}  // namespace convnet::ptx

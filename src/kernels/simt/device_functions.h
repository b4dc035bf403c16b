// CUDA's device functions for the CPU: those that the kernels use, no more.
#pragma once

#include <math.h>  // unlike <cmath>: exp(float) and the like in the global namespace, as in CUDA

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "checkers.h"
#include "language.h"
#include "runtime.h"

// ---- barriers -----------------------------------------------------------------------------------

inline void __syncthreads(simt::Site site = simt::Site::here()) {
  simt::block_barrier(simt::BarrierKind::kSync, 0, site);
}
inline int __syncthreads_count(int predicate, simt::Site site = simt::Site::here()) {
  return simt::block_barrier(simt::BarrierKind::kCount, predicate, site);
}
inline int __syncthreads_and(int predicate, simt::Site site = simt::Site::here()) {
  return simt::block_barrier(simt::BarrierKind::kAnd, predicate, site);
}
inline int __syncthreads_or(int predicate, simt::Site site = simt::Site::here()) {
  return simt::block_barrier(simt::BarrierKind::kOr, predicate, site);
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, simt::Site site = simt::Site::here()) {
  simt::warp_collective(mask, "__syncwarp", nullptr, nullptr, nullptr, site);
}

// ---- warp functions -----------------------------------------------------------------------------

namespace simt {

template <class T>
T shuffle(uint32_t mask, const char* name, T value, int source, Site site) {
  static_assert(std::is_trivially_copyable_v<T>);
  struct Input {
    T value;
    int source;
  } input{value, source};
  T result;
  auto combine = [](uint32_t arrived, const void* const* in,
                    void* const* out) SIMT_NOT_CHECKED_FOR_RACES {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if (!(arrived >> lane & 1)) continue;
      const int source = static_cast<const Input*>(in[lane])->source;
      // The value of a lane that takes no part is undefined: all ones, NaN in a float.
      if (arrived >> source & 1) {
        std::memcpy(out[lane], &static_cast<const Input*>(in[source])->value, sizeof(T));
      } else {
        std::memset(out[lane], 0xff, sizeof(T));
      }
    }
  };
  warp_collective(mask, name, &input, &result, combine, site);
  return result;
}

inline int lane() { return static_cast<int>(current_thread->lane); }

}  // namespace simt

// `width` cuts the warp into segments. A source outside of the segment is the lane itself, but for
// xor, which reaches the segments before its own, as in the PTX manual (shfl.sync, clamp).
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = warpSize,
              simt::Site site = simt::Site::here()) {
  const int in_segment = (simt::lane() & -width) | (source & (width - 1));
  return simt::shuffle(mask, "__shfl_sync", value, in_segment, site);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = warpSize,
                 simt::Site site = simt::Site::here()) {
  const int lane = simt::lane(), source = lane - static_cast<int>(delta);
  const int first = lane & -width;
  return simt::shuffle(mask, "__shfl_up_sync", value, source < first ? lane : source, site);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = warpSize,
                   simt::Site site = simt::Site::here()) {
  const int lane = simt::lane(), source = lane + static_cast<int>(delta);
  const int last = lane | (width - 1);
  return simt::shuffle(mask, "__shfl_down_sync", value, source > last ? lane : source, site);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = warpSize,
                  simt::Site site = simt::Site::here()) {
  const int lane = simt::lane(), source = lane ^ (lane_mask & (warpSize - 1));
  const int last = lane | (width - 1);
  return simt::shuffle(mask, "__shfl_xor_sync", value, source > last ? lane : source, site);
}

namespace simt {

inline uint32_t ballot(uint32_t mask, const char* name, bool predicate, Site site) {
  uint32_t result = 0;
  auto combine = [](uint32_t arrived, const void* const* in, void* const* out)
                     SIMT_NOT_CHECKED_FOR_RACES {
                       uint32_t votes = 0;
                       for (int lane = 0; lane < kWarpSize; ++lane) {
                         if ((arrived >> lane & 1) && *static_cast<const bool*>(in[lane]))
                           votes |= 1u << lane;
                       }
                       for (int lane = 0; lane < kWarpSize; ++lane) {
                         if (arrived >> lane & 1) *static_cast<uint32_t*>(out[lane]) = votes;
                       }
                     };
  warp_collective(mask, name, &predicate, &result, combine, site);
  return result;
}

}  // namespace simt

inline uint32_t __ballot_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, "__ballot_sync", predicate != 0, site);
}
inline int __any_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, "__any_sync", predicate != 0, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return simt::ballot(mask, "__all_sync", predicate == 0, site) == 0;
}

// ---- atomics, fences ----------------------------------------------------------------------------
// Really atomic: kernels of the other device run on another OS thread.

namespace simt {

template <class T, class Update>
T atomic_update(T* address, Update update) {
  std::atomic_ref<T> target(*address);
  T old = target.load(std::memory_order_relaxed);
  while (!target.compare_exchange_weak(old, update(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace simt

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old & value); });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old ^ value); });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}

inline void __threadfence_block() {}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_system() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// ---- loads and stores with cache hints ----------------------------------------------------------

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}

// ---- bits, integers -----------------------------------------------------------------------------

inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline long long __double_as_longlong(double v) { return std::bit_cast<long long>(v); }
inline double __longlong_as_double(long long v) { return std::bit_cast<double>(v); }
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return std::countl_zero(static_cast<unsigned>(v)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}

// ---- maths --------------------------------------------------------------------------------------
// <math.h> has the rest (expf, fmaf, ...). noexcept because glibc declares some of these names so.

inline float __expf(float x) noexcept { return std::exp(x); }
inline float __logf(float x) noexcept { return std::log(x); }
inline float __log2f(float x) noexcept { return std::log2(x); }
inline float __powf(float x, float y) noexcept { return std::pow(x, y); }
inline float __sinf(float x) noexcept { return std::sin(x); }
inline float __cosf(float x) noexcept { return std::cos(x); }
inline float __fdividef(float x, float y) noexcept { return x / y; }
inline float __frcp_rn(float x) noexcept { return 1.0f / x; }
inline float __fmaf_rn(float x, float y, float z) noexcept { return std::fma(x, y, z); }
inline float __saturatef(float x) noexcept { return x > 0.0f ? std::fmin(x, 1.0f) : 0.0f; }
inline float rsqrtf(float x) noexcept { return 1.0f / std::sqrt(x); }
inline float rsqrt(float x) noexcept { return rsqrtf(x); }
inline double rsqrt(double x) noexcept { return 1.0 / std::sqrt(x); }

// On floating point these are fmin and fmax: of a number and a NaN, the number.
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
  }
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
  }
}

// The CUDA language as far as a C++ compiler lacks it: keywords, vector types, built-in variables.
#pragma once

#include "runtime.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// __restrict__ is a keyword of g++ and clang++. __noinline__ must not be defined: libstdc++ spells
// an attribute so.

#define threadIdx (::simt::thread_idx())
#define blockIdx (::simt::grid_position().block_idx)
#define blockDim (::simt::grid_position().block_dim)
#define gridDim (::simt::grid_position().grid_dim)
inline constexpr int warpSize = ::simt::kWarpSize;

// SMEM(float, tile, [16][17]): a static shared array.
#define SMEM(T, name, dims)                                                              \
  auto& name = *static_cast<std::type_identity_t<T dims>*>(::simt::static_shared_memory( \
      [] {                                                                               \
        static char key; /* one address per array and template */                        \
        return static_cast<const void*>(&key);                                           \
      }(),                                                                               \
      sizeof(T dims), alignof(T), #name))

// DYN_SMEM(float, buffer): the shared memory asked for by the launch, aligned to 1024 bytes.
#define DYN_SMEM(T, name) T* name = static_cast<T*>(::simt::dynamic_shared_memory())

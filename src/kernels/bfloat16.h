// Numbers of activities that take half the memory: what device code and host share.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

namespace convnet {

// The upper half of a float32. It is stored and loaded; computing is done in float32.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  // The nearest, ties to even; NaN is 0x7FFF.
  HOST_DEVICE bfloat16(float value) {
#ifdef __CUDA_ARCH__
    bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));  // one instruction from sm_80 on
#else
    std::uint32_t word;
    memcpy(&word, &value, sizeof word);
    bits = (word & 0x7FFFFFFF) > 0x7F800000 ? 0x7FFF : std::uint16_t((word + 0x7FFF + (word >> 16 & 1)) >> 16);
#endif
  }
  HOST_DEVICE operator float() const {
    const std::uint32_t word = std::uint32_t(bits) << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
  }
};

// What numbers that are stored as T are computed in.
template <class T>
using Computed = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

}  // namespace convnet

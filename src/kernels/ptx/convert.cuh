// cvt (sm_80): float32 to the types of operands of mma.
#pragma once
#include "../device.cuh"

namespace convnet::ptx {

// cvt.rna: the nearest tf32, 10 bits of fraction, ties away from zero, as the bits of a float32 whose low 13 are zero.
// Of a NaN the low 13 bits are cleared and no more, so one that has no others becomes infinite: for sm_80, 90 and 100
// the instruction is these very operations (ptxas 13.0).
__device__ __forceinline__ unsigned to_tf32(float value) {
#ifdef __CUDACC__
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  const unsigned bits = __float_as_uint(value);
  const bool finite = (bits & 0x7FFFFFFF) < 0x7F800000;
  return (finite ? bits + 0x1000 : bits) & 0xFFFFE000;
#endif
}

// cvt.rn: the nearest bfloat16 of two values, ties to even; NaN is 0x7FFF.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef __CUDACC__
  unsigned bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  const auto rounded = [](float value) {
    const unsigned bits = __float_as_uint(value);
    return (bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FFFu : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
#endif
}

}  // namespace convnet::ptx

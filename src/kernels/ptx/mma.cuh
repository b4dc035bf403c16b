// mma.sync (sm_80): sums (16, 8) += a (16, depth) * b (depth, 8), the matrices spread over the registers of a warp.
//
// With lane = 4*g + t and e elements in a register (tf32: 1, bf16: 2, the first in the low half), element i of
// register r is
//   of a:    (g + 8*(r % 2), e*t + i + 4*e*(r / 2))
//   of b:    (e*t + i + 4*e*r, g)
//   of sums: (g + 8*(r / 2), 2*t + r % 2)
// Products are exact and sums have at least float32's precision; their order and rounding are the machine's. Of a tf32
// operand the low 13 bits are not looked at: it must come from to_tf32, or it is truncated, which is biased.
// All 32 lanes call it at one place.
#pragma once
#include "../device.cuh"

namespace convnet::ptx {

#ifdef __CUDACC__

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else

inline void mma_m16n8k8_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], simt::Site site = simt::Site::here()) {
  simt::multiply_tf32(sums, a, b, site);
}
inline void mma_m16n8k16_bf16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], simt::Site site = simt::Site::here()) {
  simt::multiply_bf16(sums, a, b, site);
}

#endif

}  // namespace convnet::ptx

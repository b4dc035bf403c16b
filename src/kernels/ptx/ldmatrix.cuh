// ldmatrix (sm_75): 8x8 matrices of 16-bit elements from shared memory to the registers of a warp, as mma takes them.
//
// Lane 8*j + i gives the address of row i of matrix j, 16 bytes at a multiple of 16; addresses of lanes beyond the
// last matrix are not used. Lane 4*g + t gets of matrix j, in registers[j], the elements (g, 2t) and (g, 2t + 1), the
// first in the low half; transposed, (2t, g) and (2t + 1, g). A 32-bit element is two neighbours: not transposed, the
// lane gets element (g, t) of a matrix of 8x4.
// All 32 lanes call it at one place. It does not wait for what other lanes have written.
#pragma once
#include "../device.cuh"

namespace convnet::ptx {

#ifdef __CUDACC__

template <int matrices>
__device__ __forceinline__ void ldmatrix(unsigned (&registers)[matrices], const void* row) {
  static_assert(matrices == 1 || matrices == 2 || matrices == 4);
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (matrices == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(from) : "memory");
  else if constexpr (matrices == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3]) : "r"(from) : "memory");
}

template <int matrices>
__device__ __forceinline__ void ldmatrix_transposed(unsigned (&registers)[matrices], const void* row) {
  static_assert(matrices == 1 || matrices == 2 || matrices == 4);
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (matrices == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(from) : "memory");
  else if constexpr (matrices == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3]) : "r"(from) : "memory");
}

#else

template <int matrices>
void ldmatrix(unsigned (&registers)[matrices], const void* row, simt::Site site = simt::Site::here()) {
  static_assert(matrices == 1 || matrices == 2 || matrices == 4);
  simt::load_matrices(registers, matrices, false, row, site);
}
template <int matrices>
void ldmatrix_transposed(unsigned (&registers)[matrices], const void* row, simt::Site site = simt::Site::here()) {
  static_assert(matrices == 1 || matrices == 2 || matrices == 4);
  simt::load_matrices(registers, matrices, true, row, site);
}

#endif

}  // namespace convnet::ptx

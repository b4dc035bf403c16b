// ldmatrix and mma.sync: see ptx/ for where the elements of a matrix are in the registers of a warp.
#include <bit>
#include <cstdint>
#include <cstring>

#include "block.h"
#include "checkers.h"
#include "instructions.h"

namespace simt {

namespace {

// ---- ldmatrix -----------------------------------------------------------------------------------

struct MatrixRow {
  uint16_t elements[8];
};

template <int matrices, bool transposed>
void deal(uint32_t, const void* const* in, void* const* out) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    unsigned* registers = static_cast<unsigned*>(out[lane]);
    for (int j = 0; j < matrices; ++j) {
      const auto element = [&](int row, int column) -> unsigned {
        return static_cast<const MatrixRow*>(in[8 * j + row])->elements[column];
      };
      registers[j] = transposed ? element(2 * t, g) | element(2 * t + 1, g) << 16
                                : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
    }
  }
}

// ---- mma ----------------------------------------------------------------------------------------

struct Operands {
  unsigned a[4], b[2];
  float sums[4];
};

float tf32_value(unsigned bits, int) { return std::bit_cast<float>(bits & 0xffffe000u); }
float bf16_value(unsigned bits, int element) {
  return std::bit_cast<float>(element == 0 ? bits << 16 : bits & 0xffff0000u);
}

// Depth 8 with one element in a register, 16 with two.
template <int depth, float (*value)(unsigned bits, int element)>
void multiply(uint32_t, const void* const* in, void* const* out) {
  constexpr int elements = depth / 8;
  float a[16][depth], b[depth][8], sums[16][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const Operands& operands = *static_cast<const Operands*>(in[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < elements; ++e) {
      const int column = elements * t + e;
      for (int r = 0; r < 4; ++r) {
        a[g + 8 * (r % 2)][column + 4 * elements * (r / 2)] = value(operands.a[r], e);
      }
      for (int r = 0; r < 2; ++r) b[column + 4 * elements * r][g] = value(operands.b[r], e);
    }
    for (int r = 0; r < 4; ++r) sums[g + 8 * (r / 2)][2 * t + r % 2] = operands.sums[r];
  }
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < depth; ++k) {
      for (int n = 0; n < 8; ++n) sums[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    float* result = static_cast<float*>(out[lane]);
    for (int r = 0; r < 4; ++r) result[r] = sums[g + 8 * (r / 2)][2 * t + r % 2];
  }
}

void meet(const char* name, float* sums, const unsigned* a, const unsigned* b, Combine combine,
          Site site) {
  const checkers::Quiet quiet;
  Operands operands;
  std::memcpy(operands.a, a, sizeof operands.a);
  std::memcpy(operands.b, b, sizeof operands.b);
  std::memcpy(operands.sums, sums, sizeof operands.sums);
  current_thread->block->aligned_collective(name, &operands, sums, combine, site);
}

}  // namespace

void load_matrices(unsigned* registers, int matrices, bool transposed, const void* row, Site site) {
  struct Kind {
    const char* name;
    Combine combine;
  };
  constexpr Kind kinds[2][3] = {
      {{"ldmatrix.x1", deal<1, false>}, {"ldmatrix.x2", deal<2, false>}, {"ldmatrix.x4", deal<4, false>}},
      {{"ldmatrix.x1.trans", deal<1, true>}, {"ldmatrix.x2.trans", deal<2, true>}, {"ldmatrix.x4.trans", deal<4, true>}}};
  const Kind& kind = kinds[transposed][matrices / 2];
  Block& block = *current_thread->block;
  const checkers::Quiet quiet;
  MatrixRow own{};
  if (static_cast<int>(current_thread->lane) < 8 * matrices) {
    block.check_shared(row, sizeof own, sizeof own, kind.name, site);
    {
      const checkers::CalledFrom kernel(__builtin_return_address(0));
      const checkers::Loud loud;
      checkers::reads(row, sizeof own);
    }
    std::memcpy(&own, row, sizeof own);
  }
  block.aligned_collective(kind.name, &own, registers, kind.combine, site);
}

void multiply_tf32(float* sums, const unsigned* a, const unsigned* b, Site site) {
  meet("mma.m16n8k8.tf32", sums, a, b, multiply<8, tf32_value>, site);
}

void multiply_bf16(float* sums, const unsigned* a, const unsigned* b, Site site) {
  meet("mma.m16n8k16.bf16", sums, a, b, multiply<16, bf16_value>, site);
}

}  // namespace simt

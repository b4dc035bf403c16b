// Biases: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet {

// How many rows of acts one bias is for: the pixels of a map, or one. Acts may have any rank.
inline std::int64_t rows_per_bias(const char* op, const Shape& biases, const Shape& acts) {
  check_rank(op, "biases", biases, 1);
  const std::int64_t channels = acts.rank ? acts[0] : 0, rows = acts.rows();
  if (acts.rank < 2 || (biases[0] != channels && biases[0] != rows))
    fail_check(op, "biases have shape " + to_string(biases) + " and acts " + to_string(acts) + ", expected a bias per channel or per row");
  return rows ? rows / biases[0] : 0;
}

}  // namespace convnet

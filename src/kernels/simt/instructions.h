// Instructions that the functions of ptx/ stand for, as a warp and a block of the simt runtime do them. Their bodies are
// in .cpp files, apart from the kernels: a race build makes every access of a kernel known, and these must make known
// those of the instruction and no others.
//
// Written from the PTX manual and not yet compared with a GPU: tests/ptx/conformance.py does it where there is one.
#pragma once

#include <cstddef>

#include "runtime.h"

namespace simt {

// cp.async, its groups and its waits, as ptx/cp_async.cuh has them. From its issue a copy is pending until the thread
// waits for it: `options().async` says which of the two it lands at. A thread that exits with pending copies fails.
void async_copy(void* shared, const void* global, unsigned bytes, int source_bytes, Site site);
void async_commit();
void async_wait(std::size_t groups_left);
void async_wait_all();

// ldmatrix. Each lane reads its row when it arrives, and not when the last one does: what another lane writes without
// a barrier may be missing.
void load_matrices(unsigned* registers, int matrices, bool transposed, const void* row, Site site);

// mma.sync: sums are added to in the order of the depth, in float32.
void multiply_tf32(float* sums, const unsigned* a, const unsigned* b, Site site);
void multiply_bf16(float* sums, const unsigned* a, const unsigned* b, Site site);

}  // namespace simt

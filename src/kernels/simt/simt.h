// CUDA threads on the CPU. Included by device.cuh when a plain C++ compiler compiles the kernels;
// nvcc never sees this folder.
//
// Every CUDA thread is a fiber, and a block runs on the OS thread that launched it, one block after
// the other. A thread runs as a plain call until it first waits (a barrier, a warp function); only
// then does the next thread get a stack of its own. It is for proof, not for speed: it reports what
// is undefined on a GPU (divergent barriers, missing lanes, shared memory read before it is
// written) with the source line, and runs the threads in any order one asks for.
//
//   language.h          keywords, dim3, float4, threadIdx ...
//   runtime.h           the running thread, shared memory, launch, options
//   device_functions.h  barriers, warp functions, atomics, loads, bits, maths
//   block.{h,cpp}       one block: its threads, scheduler, barrier, shared memory
//   fiber.{h,cpp}       stacks and the switch between them
//   launch.cpp          launch limits, the grid, options
//   instructions.h      what ../ptx/ stands for: asynchronous copies (async_copy.{h,cpp}), matrices (matrix.cpp)
//
// Left out on purpose: __shared__ (use SMEM and DYN_SMEM: they are counted and start as NaN),
// __activemask (its value is not defined by the program). Threads that spin on a flag hang here: a
// thread gives way only where it waits. Kernels hold no objects with destructors, since a failed
// block is dropped, not unwound.
#pragma once

#include "device_functions.h"
#include "instructions.h"
#include "language.h"
#include "runtime.h"

// The memory of simt's devices: what is allocated is known, so that pointers into nowhere are
// refused at the launch.
#pragma once

#include <cstddef>
#include <string>

#include "arguments.h"

namespace simt {

// "" if all of it lies in one allocation; else what is wrong with it. Null is fine: kernels test
// for it.
std::string problem_of_device_memory(const Reach& reach);

// The same for memory of a caller, of which only the operating system knows: "" if it is mapped at
// both ends.
std::string problem_of_callers_memory(const Reach& reach);

}  // namespace simt

// Bugs for compute-sanitizer to find, before its silence about our kernels is worth anything: `planted_bugs KERNEL`.
#include <cstdio>
#include <cstring>
#include "device.cuh"

namespace convnet {

constexpr int count = 64;  // floats of each buffer, and threads of the block

// memcheck: the last thread writes behind the end.
__global__ void out_of_bounds_kernel(const float*, float* values) { values[threadIdx.x + 1] = 1; }

// racecheck: no barrier between writing the line and reading another thread's part of it.
__global__ void race_kernel(const float*, float* values) {
  SMEM(float, line, [count]);
  line[threadIdx.x] = float(threadIdx.x);
  values[threadIdx.x] = line[count - 1 - threadIdx.x];
}

// initcheck: nobody has written what it reads.
__global__ void uninitialised_kernel(const float* unwritten, float* values) { values[threadIdx.x] = unwritten[threadIdx.x]; }

// synccheck: a barrier that half of a warp reaches.
__global__ void divergent_barrier_kernel(const float*, float* values) {
  if (threadIdx.x % 32 < 16) __syncthreads();
  values[threadIdx.x] = 1;
}

// Does right what the others do wrong.
__global__ void sound_kernel(const float*, float* values) {
  SMEM(float, line, [count]);
  line[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  values[threadIdx.x] = line[count - 1 - threadIdx.x];
}

template <auto kernel>
void run() {
  float *unwritten, *values;
  CUDA_CHECK(cudaMalloc(&unwritten, count * sizeof(float)));
  CUDA_CHECK(cudaMalloc(&values, count * sizeof(float)));
  launch<kernel>({dim3(1), dim3(count)}, Stream{}, unwritten, values);
  CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace convnet

int main(int arguments, char** argument) {
  using namespace convnet;
  const struct {
    const char* name;
    void (*run)();
  } kernels[] = {{"out_of_bounds_kernel", run<out_of_bounds_kernel>}, {"race_kernel", run<race_kernel>},
                 {"uninitialised_kernel", run<uninitialised_kernel>}, {"divergent_barrier_kernel", run<divergent_barrier_kernel>},
                 {"sound_kernel", run<sound_kernel>}};
  for (const auto& kernel : kernels) {
    if (arguments != 2 || std::strcmp(argument[1], kernel.name) != 0) continue;
    kernel.run();
    std::printf("%s ran\n", kernel.name);
    return 0;
  }
  std::fprintf(stderr, "planted_bugs: expected the name of a kernel\n");
  return 2;
}

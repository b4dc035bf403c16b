// Kernels that a static gate must catch, one fault each, and one without: tests/test_sass.py compiles them.
#include "device.cuh"

namespace convnet {

constexpr int many = 100;  // values that are needed at once

__device__ inline void turn_around(float* values) {
  float held[many];
#pragma unroll
  for (int i = 0; i < many; ++i) held[i] = values[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < many; ++i) values[i * 1024 + threadIdx.x] = held[many - 1 - i];
}

// 1024 threads have 64 registers each.
__global__ void __launch_bounds__(1024) spilling_kernel(float* values) { turn_around(values); }

// Enough registers for all, but then not for 1024 threads, and it does not say that it is launched with fewer.
__global__ void greedy_kernel(float* values) { turn_around(values); }

__global__ void __launch_bounds__(128) indexing_kernel(float* values, const int* order) {
  float held[16];
  for (int i = 0; i < 16; ++i) held[i] = values[i];
  for (int i = 0; i < 16; ++i) values[i] = held[order[i]];
}

__global__ void __launch_bounds__(128) sound_kernel(float4* values) {
  float4 value = values[threadIdx.x];
  value.x = value.x * value.y + value.z;
  values[threadIdx.x] = value;
}

// By its name it fetches, keeps and stores quads. It does neither, nor is its product unrolled.
template <int M, int N, int ThreadM, int ThreadN>
struct Tile {};
template <class T, class Tile, bool Vector>
__global__ void __launch_bounds__(128) conv_forward_kernel(const T* a, const T* b, T* acts, int count) {
  T sum = 0;
  for (int k = 0; k < count; ++k) sum += a[k * 128 + threadIdx.x] * b[k];
  acts[threadIdx.x] = sum;
}
template __global__ void conv_forward_kernel<float, Tile<64, 128, 8, 8>, true>(const float*, const float*, float*, int);

}  // namespace convnet

// Biases: device code.
#pragma once
#include "device.cuh"

namespace convnet {

// Threads: x = image, y = row of acts.
template <class T>
__global__ void bias_forward_kernel(const Computed<T>* biases, Rows<T> acts, std::int64_t rows_per_bias) {
  const Place place = this_place();
  if (place.row >= acts.rows || place.n >= acts.images) return;
  acts.store(&acts.row(place.row)[place.n], biases[place.row / rows_per_bias]);
}

// Block: a bias, (32, up to 32) threads, a power of two. Threads: x = images, y = rows of the bias, in strides;
// then a tree in shared memory. So the order of the sum depends on the shapes alone.
template <class T>
__global__ void bias_backward_kernel(Rows<const T> acts_grad, Rows<Computed<T>> biases_grad, std::int64_t rows_per_bias) {
  SMEM(Computed<T>, sums, [1024]);
  const std::int64_t first = blockIdx.x * rows_per_bias;
  Computed<T> sum = 0;
  for (std::int64_t r = threadIdx.y; r < rows_per_bias; r += blockDim.y) {
    const T* row = acts_grad.row(first + r);
    for (int n = int(threadIdx.x); n < acts_grad.images; n += 32) sum += row[n];
  }

  const int thread = int(threadIdx.y * 32 + threadIdx.x);
  sums[thread] = sum;
  for (int half = int(blockDim.y) * 16; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) sums[thread] += sums[thread + half];
  }
  if (thread == 0) biases_grad.store(&biases_grad.row(0)[blockIdx.x], sums[0]);
}

}  // namespace convnet

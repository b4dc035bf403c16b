// Biases: device code.
#pragma once
#include "tile.cuh"

namespace convnet {

// Threads: x = image, y = row of acts.
template <class T>
__global__ void bias_forward_kernel(const Computed<T>* biases, Rows<T> acts, std::int64_t rows_per_bias) {
  const Place place = this_place();
  if (place.row >= acts.rows || place.n >= acts.images) return;
  acts.store(&acts.row(place.row)[place.n], biases[place.row / rows_per_bias]);
}

constexpr int bias_threads = 256, bias_ahead = 4;  // of a block at most; pieces that a thread has on the way, 64 bytes

// Blocks: x = bias, y = part of its rows. Threads: x = piece of images, y = rows of the part, in strides; both are powers of two.
// Then a tree in shared memory. So the order of the sum depends on the shapes alone.
template <class T, bool Vector>
__global__ void __launch_bounds__(bias_threads, 1) bias_backward_kernel(Rows<const T> acts_grad, Rows<Computed<T>> sums, std::int64_t rows_per_bias) {
  SMEM(Computed<T>, partial, [bias_threads]);
  const std::int64_t first = blockIdx.x * rows_per_bias + rows_per_bias * blockIdx.y / gridDim.y;
  const std::int64_t last = blockIdx.x * rows_per_bias + rows_per_bias * (blockIdx.y + 1) / gridDim.y;
  Computed<T> sum = 0;
  for (int n = int(threadIdx.x) * piece<T>; n < acts_grad.images; n += int(blockDim.x) * piece<T>)
    for (std::int64_t row = first + threadIdx.y; row < last; row += bias_ahead * blockDim.y) {
      Piece<T> pieces[bias_ahead];
#pragma unroll
      for (int j = 0; j < bias_ahead; ++j) {
        const std::int64_t at = row + j * int(blockDim.y);
        pieces[j] = load_piece<Vector, true>(at < last, acts_grad.row(at) + n, acts_grad.images - n);
      }
#pragma unroll
      for (int j = 0; j < bias_ahead; ++j)
#pragma unroll
        for (int e = 0; e < piece<T>; ++e) sum += pieces[j].at[e];
    }

  const int thread = int(threadIdx.y * blockDim.x + threadIdx.x);
  partial[thread] = sum;
  for (int half = int(blockDim.x * blockDim.y) / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) partial[thread] += partial[thread + half];
  }
  if (thread == 0) sums.store(&sums.row(blockIdx.y)[blockIdx.x], partial[0]);
}

}  // namespace convnet

// Costs that are sums over elements: device code.
#pragma once
#include "device.cuh"
#include "element_cost.h"

namespace convnet {

// The sum of all 1024 threads' values, for thread 0: a tree in shared memory.
__device__ inline double over_block(double (&values)[1024], double value) {
  const int thread = int(threadIdx.y * 32 + threadIdx.x);
  values[thread] = value;
  for (int half = 512; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) values[thread] += values[thread + half];
  }
  const double sum = thread == 0 ? values[0] : 0;  // the others would read what it is still adding to
  __syncthreads();
  return sum;
}

// This thread's share of the terms of all elements: x = images, y = rows, in strides of 32. `at_once` of an image's terms
// are in work together: 1024 threads have 64 registers each, which is enough for one with a logarithm.
template <int at_once = 4, class Term>
__device__ double share_of(const Term& term, std::int64_t rows, int images) {
  double sum = 0;
  for (std::int64_t r = threadIdx.y; r < rows; r += 32)
#pragma unroll at_once
    for (int n = int(threadIdx.x); n < images; n += 32) sum += term(r, n);
  return sum;
}

// One block of (32, 32) threads, so that the order of the sum depends on the shapes alone.
template <class Term>
__global__ void __launch_bounds__(1024) sum_terms_kernel(Term term, std::int64_t rows, int images, Rows<double> costs) {
  SMEM(double, sums, [1024]);
  const double sum = over_block(sums, share_of(term, rows, images));
  if (threadIdx.x == 0 && threadIdx.y == 0) costs.store(costs.row(0), sum);
}

// Threads: x = image, y = row.
template <class T, class Slope>
__global__ void slopes_kernel(Slope slope, Rows<T> inputs_grad) {
  const auto [row, n] = this_place();
  if (row >= inputs_grad.rows || n >= inputs_grad.images) return;
  inputs_grad.store(&inputs_grad.row(row)[n], slope(row, n));
}

// Blocks of (32, 32) threads: x = image, y = lane, which takes the rows y, y + 32, y + 64, ...
template <class T>
__global__ void __launch_bounds__(1024) gsum2_backward_gates_kernel(Rows<const T> inputs, Rows<T> gates_grad, double coeff) {
  SMEM(double, sums, [32][32]);
  const int n = int(blockIdx.x * 32 + threadIdx.x);
  const std::int64_t rows = n < inputs.images ? inputs.rows : 0;
  const Sum2Term<T> term{inputs};
  double sum = 0;
  for (std::int64_t r = threadIdx.y; r < rows; r += 32) sum += term(r, n);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || n >= inputs.images) return;
  for (int lane = 1; lane < 32; ++lane) sum += sums[lane][threadIdx.x];
  gates_grad.store(&gates_grad.row(0)[n], T(coeff * sum));
}

// One block of (32, 32) threads. The images are taken 32 at a time: x = image, y = lane of the rows. What the likeliest
// rows of an image have for targets is put together by its thread in lane 0.
template <class T>
__global__ void __launch_bounds__(1024, 1) bce_forward_kernel(Rows<const T> targets, Rows<const T> probs, Rows<double> costs, double positive_weight) {
  SMEM(double, sums, [1024]);
  SMEM(T, maxima, [32][32]);
  SMEM(double, hits_of, [32][32]);
  SMEM(int, tied_of, [32][32]);
  const int lane = int(threadIdx.y), column = int(threadIdx.x);

  double missed = 0;
  for (int first = 0; first < probs.images; first += 32) {
    const int n = first + column;
    const std::int64_t rows = n < probs.images ? probs.rows : 0;
    T maximum = T(-INFINITY);
    for (std::int64_t r = lane; r < rows; r += 32) maximum = max(maximum, probs.row(r)[n]);
    maxima[lane][column] = maximum;
    __syncthreads();

    for (int i = 0; i < 32; ++i) maximum = max(maximum, maxima[i][column]);
    double hits = 0;
    int tied = 0;
    for (std::int64_t r = lane; r < rows; r += 32) {
      const bool likeliest = probs.row(r)[n] == maximum;
      hits += likeliest ? double(targets.row(r)[n]) : 0;
      tied += likeliest;
    }
    hits_of[lane][column] = hits;
    tied_of[lane][column] = tied;
    __syncthreads();

    if (lane == 0 && n < probs.images) {
      for (int i = 1; i < 32; ++i) {
        hits += hits_of[i][column];
        tied += tied_of[i][column];
      }
      missed += 1 - hits / tied;
    }
  }

  const double entropy = over_block(sums, share_of<1>(BceTerm<T>{targets, probs, positive_weight}, probs.rows, probs.images));
  const double wrong = over_block(sums, share_of(WrongTerm<T>{targets, probs}, probs.rows, probs.images));
  missed = over_block(sums, missed);
  if (lane || column) return;
  costs.store(&costs.row(0)[0], entropy);
  costs.store(&costs.row(0)[1], wrong / double(probs.rows));
  costs.store(&costs.row(0)[2], missed);
}

}  // namespace convnet

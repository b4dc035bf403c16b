// The floating-point peak of this instruction set: as many independent multiply-adds as hide the latency.
#include "../runtime.h"
#include "parallel.h"

namespace convnet {

namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
constexpr int chains = 12;

template <class T>
void run_loop(T seed, std::int64_t rounds) {
  typedef T Vector __attribute__((vector_size(vector_bytes)));
  Vector sums[chains];
  for (int j = 0; j < chains; ++j) sums[j] = Vector{} + seed * j;  // different, or the compiler makes one chain of all
  const Vector factor = Vector{} + seed, term = Vector{} + seed;
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < chains; ++j) sums[j] = sums[j] * factor + term;
  }
  for (const Vector& sum : sums) {
    [[maybe_unused]] const volatile Vector used = sum;  // so that nothing is left out
  }
}

}  // namespace

double run_multiply_adds(Stream stream, Dtype dtype) {
  constexpr std::int64_t rounds = 2'000'000;  // 3.5 ms
  const int threads = thread_count(stream);
  parallel_for(stream, threads, [&](std::int64_t, int) {
    dtype == Dtype::float64 ? run_loop<double>(0.999, rounds) : run_loop<float>(0.999f, rounds);
  });
  const std::int64_t lanes = vector_bytes / (dtype == Dtype::float64 ? sizeof(double) : sizeof(float));
  return 2.0 * chains * lanes * rounds * threads;
}

}  // namespace convnet

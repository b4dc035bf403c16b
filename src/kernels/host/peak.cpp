// The floating-point peak of this instruction set, measured: as many independent multiply-adds as hide the latency.
#include <algorithm>
#include <chrono>
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

template <class T>
double flops_of_one_loop(T seed, std::int64_t rounds) {
  typedef T Vector __attribute__((vector_size(vector_bytes)));
  constexpr int chains = 12;
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
  return 2.0 * chains * (vector_bytes / sizeof(T)) * rounds;
}

template <class T>
double best_of_many(Stream stream) {
  constexpr std::int64_t rounds = 2'000'000;
  double best = 0;
  for (int i = 0; i < 60; ++i) {  // a fifth of a second: somebody else may have the core for a while
    const auto start = std::chrono::steady_clock::now();
    double flops = 0;
    parallel_for(stream, thread_count(stream), [&](std::int64_t task, int) {
      const double done = flops_of_one_loop<T>(T(0.999), rounds);
      if (task == 0) flops = done * thread_count(stream);
    });
    best = std::max(best, flops / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

double measure_peak_flops(Stream stream, Dtype dtype) {
  return dtype == Dtype::float64 ? best_of_many<double>(stream) : best_of_many<float>(stream);
}

}  // namespace convnet

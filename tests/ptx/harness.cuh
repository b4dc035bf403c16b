// What the kernels of this folder share: they are compiled by nvcc for the GPU and by a C++ compiler for simt, and are
// driven through C functions that take a caller's arrays and return "" or the text of the error.
#pragma once
#include <algorithm>
#include <new>
#include <string>
#include "device.cuh"
#include "../simt/text_of_error.h"

// Memory of the device with a copy of the caller's in it.
template <class T>
class Copied {
 public:
  Copied(const T* values, std::size_t count) : count_(count) {
#ifdef __CUDACC__
    CUDA_CHECK(cudaMalloc(&memory_, count * sizeof(T)));
    CUDA_CHECK(cudaMemcpy(memory_, values, count * sizeof(T), cudaMemcpyHostToDevice));
#else
    // To the byte as large as it must be, so that AddressSanitizer sees what goes beyond, and aligned as cudaMalloc does.
    memory_ = static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(256)));
    std::copy_n(values, count, memory_);
#endif
  }
  Copied(const Copied&) = delete;
  ~Copied() {
#ifdef __CUDACC__
    cudaFree(memory_);
#else
    ::operator delete(memory_, std::align_val_t(256));
#endif
  }

  T* get() const { return memory_; }

  void bring_back(T* values) const {
#ifdef __CUDACC__
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaMemcpy(values, memory_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
#else
    std::copy_n(memory_, count_, values);
#endif
  }

 private:
  T* memory_ = nullptr;
  std::size_t count_;
};

#define API extern "C" __attribute__((visibility("default"))) const char*

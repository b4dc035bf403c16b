// What device code and launchers share: the only header a kernel file includes. Under nvcc it is CUDA;
// under a C++ compiler the same source runs on the CPU, over simt/.
#pragma once
#include <utility>
#include "tensor.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>

// Shared memory: SMEM(float, tile, [16][17]); and, its size given at launch, DYN_SMEM(float, buffer);
#define SMEM(T, name, dims) __shared__ T name dims
#define DYN_SMEM(T, name)                                             \
  extern __shared__ __align__(1024) unsigned char convnet_dyn_smem[]; \
  T* name = reinterpret_cast<T*>(convnet_dyn_smem)

#define CUDA_CHECK(call)                                                                      \
  do {                                                                                        \
    const cudaError_t cuda_status = (call);                                                   \
    if (cuda_status != cudaSuccess)                                                           \
      throw std::runtime_error(std::string(#call) + ": " + cudaGetErrorString(cuda_status));  \
  } while (0)
#else
#include "simt/simt.h"
#endif

namespace convnet {

template <class Int>
HOST_DEVICE constexpr Int ceil_div(Int a, Int b) { return (a + b - 1) / b; }
template <class T>
HOST_DEVICE constexpr T square(T v) { return v * v; }

struct Grid {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
};

#ifndef __CUDACC__
// What simt's launch finds in an argument: from the first element of a tensor to the last, without padding.
template <class T>
simt::Reach reach_of(const T* data, std::int64_t rows, int images, std::int64_t pitch) {
  if (rows <= 0 || images <= 0) return {};
  return {data, std::size_t((rows - 1) * pitch + images) * sizeof(T)};
}
template <class T>
simt::Reach reach_of(const Images<T>& t) { return reach_of(t.data, t.rows(), t.images, t.pitch); }
template <class T>
simt::Reach reach_of(const Rows<T>& t) { return reach_of(t.data, t.rows, t.images, t.pitch); }
#endif

// Runs a kernel: launch<kernel>(grid, stream, its arguments...). The only place in the library that does.
template <auto kernel, class... Args>
void launch(Grid grid, Stream stream, Args&&... args) {
  if (!grid.blocks.x || !grid.blocks.y || !grid.blocks.z) return;  // a tensor without elements
#ifdef __CUDACC__
  CUDA_CHECK(cudaSetDevice(stream.device));
  if (grid.shared_bytes > 48 << 10)
    CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared_bytes)));
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = reinterpret_cast<cudaStream_t>(stream.handle);
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
#else
  const auto memory = stream.handle ? simt::Memory::kDevice : simt::Memory::kCaller;  // the default queue runs on arrays of a caller
  simt::launch(simt::kernel_name<kernel>(), memory, kernel, grid.blocks, grid.threads, grid.shared_bytes, std::forward<Args>(args)...);
#endif
}

// Whether the device has mma.sync and cp.async: from sm_80 on.
inline bool has_tensor_cores([[maybe_unused]] Stream stream) {
#ifdef __CUDACC__
  int major = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, stream.device));
  return major >= 8;
#else
  return true;
#endif
}

// Threads of element-wise kernels: x = 32 images, y = 8 rows; blocks: x = rows (there may be more than
// 65535), y = images.
constexpr int rows_threads = 256;  // for __launch_bounds__: without them a kernel must do with the registers of 1024
inline Grid rows_grid(std::int64_t rows, int images) {
  return {dim3(unsigned(ceil_div<std::int64_t>(rows, 8)), unsigned(ceil_div(images, 32))), dim3(32, 8)};
}

struct Place {
  std::int64_t row;
  int n;
};
__device__ inline Place this_place() {
  return {std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y, int(blockIdx.y * blockDim.x + threadIdx.x)};
}

// In a block of (32, lanes) threads, all lanes' values of this thread's column folded into one, in the order of the
// lanes, for every lane: each reads all of them itself, which costs one barrier where a tree would need five.
// values: shared memory that no thread still reads.
template <class T, int lanes, class Fold>
__device__ T over_lanes(T (&values)[lanes][32], T value, Fold fold) {
  values[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  T result = values[0][threadIdx.x];
  for (int lane = 1; lane < lanes; ++lane) result = fold(result, values[lane][threadIdx.x]);
  return result;
}

// A channel, a pixel and an image, from the same grid over the rows of (channels, height, width, images).
struct Element {
  int c, y, x, n;
};
template <class T>
__device__ Element element_at(const Images<T>& tensor, Place place) {
  const int pixels = tensor.height * tensor.width;
  const int c = int(place.row / pixels), pixel = int(place.row % pixels);
  return {c, pixel / tensor.width, pixel % tensor.width, place.n};
}

}  // namespace convnet

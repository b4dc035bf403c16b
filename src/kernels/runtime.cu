// The runtime of cuda: memory, streams and events are CUDA's own.
#include "runtime.h"
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <type_traits>
#include "device.cuh"

namespace convnet {

namespace {

cudaStream_t stream_of(Stream stream) { return reinterpret_cast<cudaStream_t>(stream.handle); }
cudaEvent_t event_of(std::uintptr_t event) { return reinterpret_cast<cudaEvent_t>(event); }

void use(int device) { CUDA_CHECK(cudaSetDevice(device)); }

// An allocation that failed is forgotten by CUDA, and the caller may try a smaller one.
void check_allocation(cudaError_t allocated) {
  if (allocated == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw std::bad_alloc();
  }
  CUDA_CHECK(allocated);
}

// Two pieces of pinned memory a queue, through which pageable memory is copied: while the GPU moves one, the
// CPU fills or empties the other.
class Staging {
 public:
  static constexpr std::int64_t piece = std::int64_t(4) << 20;

  void upload(cudaStream_t stream, char* destination, const char* source, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    for (std::int64_t start = 0; start < bytes; start += piece) {
      Slot& slot = next();
      const auto size = std::size_t(std::min(piece, bytes - start));
      CUDA_CHECK(cudaEventSynchronize(slot.moved));
      std::memcpy(slot.memory, source + start, size);
      CUDA_CHECK(cudaMemcpyAsync(destination + start, slot.memory, size, cudaMemcpyHostToDevice, stream));
      CUDA_CHECK(cudaEventRecord(slot.moved, stream));
    }
  }

  void download(cudaStream_t stream, char* destination, const char* source, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    Slot* filling = nullptr;
    std::int64_t filling_start = 0;
    const auto empty = [&] {
      CUDA_CHECK(cudaEventSynchronize(filling->moved));
      std::memcpy(destination + filling_start, filling->memory, std::size_t(std::min(piece, bytes - filling_start)));
    };
    for (std::int64_t start = 0; start < bytes; start += piece) {
      // An upload that still reads this slot comes before in the same queue.
      Slot& slot = next();
      CUDA_CHECK(cudaMemcpyAsync(slot.memory, source + start, std::size_t(std::min(piece, bytes - start)), cudaMemcpyDeviceToHost, stream));
      CUDA_CHECK(cudaEventRecord(slot.moved, stream));
      if (filling) empty();
      filling = &slot;
      filling_start = start;
    }
    if (filling) empty();
  }

 private:
  struct Slot {
    void* memory = nullptr;
    cudaEvent_t moved = nullptr;  // out of the memory, or into it

    Slot() {
      CUDA_CHECK(cudaEventCreateWithFlags(&moved, cudaEventDisableTiming));
      check_allocation(cudaHostAlloc(&memory, std::size_t(piece), cudaHostAllocDefault));
    }
    Slot(const Slot&) = delete;
    ~Slot() {
      cudaFreeHost(memory);
      cudaEventDestroy(moved);
    }
  };

  Slot& next() {
    turn_ = !turn_;
    return slots_[turn_];
  }

  Slot slots_[2];
  bool turn_ = false;
  std::mutex mutex_;
};

// The stagings of the queues that have uploaded or downloaded something.
struct Stagings {
  std::mutex mutex;
  std::map<std::pair<int, std::uintptr_t>, std::shared_ptr<Staging>> of;
};

// Never destroyed: at the end of the process CUDA is gone before it.
Stagings& stagings() {
  static Stagings& all = *new Stagings;
  return all;
}

std::shared_ptr<Staging> staging_of(Stream stream) {
  const std::lock_guard lock(stagings().mutex);
  auto& staging = stagings().of[{stream.device, stream.handle}];
  if (!staging) staging = std::make_shared<Staging>();
  return staging;
}

// Lets `device` reach the memory of `other` directly, where the machine can; once for each pair.
void enable_peer_access(int device, int other) {
  static std::mutex mutex;
  static std::set<std::pair<int, int>> asked;
  const std::lock_guard lock(mutex);
  if (!asked.insert({device, other}).second) return;
  int possible = 0;
  CUDA_CHECK(cudaDeviceCanAccessPeer(&possible, device, other));
  if (!possible) return;
  use(device);
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(other, 0);
  // Too many peers, or somebody else in this process was first: the copies work all the same.
  if (enabled == cudaErrorPeerAccessAlreadyEnabled || enabled == cudaErrorTooManyPeers) cudaGetLastError();
  else CUDA_CHECK(enabled);
}

// Its streams begin when the first is ready, and the first goes on when all are done: so in the graph, and around its launch.
struct Graph {
  std::vector<Stream> streams;
  std::vector<std::uintptr_t> events;  // one for each stream
  cudaGraphExec_t exec = nullptr;

  explicit Graph(const std::vector<Stream>& of) : streams(of) {
    for (const Stream stream : streams) events.push_back(event_create(stream.device));
  }
  Graph(const Graph&) = delete;
  ~Graph() {
    if (exec) cudaGraphExecDestroy(exec);
    for (const std::uintptr_t event : events) event_destroy(event);
  }

  void fork() const {
    event_record(streams[0], events[0]);
    for (std::size_t i = 1; i < streams.size(); ++i) event_wait(streams[i], events[0]);
  }
  void join() const {
    for (std::size_t i = 1; i < streams.size(); ++i) {
      event_record(streams[i], events[i]);
      event_wait(streams[0], events[i]);
    }
  }
};

// Seconds that a stream takes for what `body` queues: the best of five.
template <class Body>
double best_seconds(Stream stream, Body body) {
  const std::uintptr_t first = event_create(stream.device), last = event_create(stream.device);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    event_record(stream, first);
    body();
    event_record(stream, last);
    stream_synchronize(stream);
    const double seconds = event_seconds(first, last);
    best = i ? std::min(best, seconds) : seconds;
  }
  event_destroy(first);
  event_destroy(last);
  return best;
}

constexpr int peak_chains = 16, peak_threads = 256;

// Multiply-adds in as many independent chains as hide their latency. `result` is there so that they are not left out.
template <class T>
__global__ void __launch_bounds__(peak_threads) peak_kernel(T* result, T factor, T term, int rounds) {
  T sums[peak_chains];
#pragma unroll
  for (int i = 0; i < peak_chains; ++i) sums[i] = T(int(threadIdx.x) + i);
#pragma unroll 8
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < peak_chains; ++i) sums[i] = sums[i] * factor + term;
  }
  T sum = 0;
#pragma unroll
  for (int i = 0; i < peak_chains; ++i) sum += sums[i];
  if (sum == T(-1)) *result = sum;  // never: all terms are positive
}

template <class T>
double run_peak_kernel(Stream stream) {
  int processors = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, stream.device));
  const int rounds = sizeof(T) == 8 ? 1 << 12 : 1 << 15;  // milliseconds, on small cards with few float64 units too
  const int blocks = processors * 8;
  launch<peak_kernel<T>>({dim3(unsigned(blocks)), dim3(peak_threads)}, stream, static_cast<T*>(nullptr), T(0.5), T(1), rounds);
  stream_synchronize(stream);
  return 2.0 * peak_chains * rounds * blocks * peak_threads;
}

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count;
  cudaGetLastError();
  if (status == cudaErrorNoDevice || status == cudaErrorStubLibrary) return 0;
  // A driver that is too old and none at all are one error: only the version tells them apart.
  int driver = 0, runtime = 0;
  if (status == cudaErrorInsufficientDriver) {
    cudaDriverGetVersion(&driver);
    if (!driver) return 0;
    cudaRuntimeGetVersion(&runtime);
    const auto name = [](int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); };
    throw std::runtime_error("the NVIDIA driver is for CUDA up to " + name(driver) + " and this build is for " + name(runtime) + "; a newer driver mends it");
  }
  throw std::runtime_error(std::string("CUDA finds no way to use the GPU: ") + cudaGetErrorString(status));
}

std::string device_name(int device) {
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return std::string(properties.name) + ", sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
}

std::int64_t free_memory(int device) {
  use(device);
  std::size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return std::int64_t(free);
}
std::int64_t total_memory(int device) {
  use(device);
  std::size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return std::int64_t(total);
}

std::uintptr_t allocate(int device, std::int64_t bytes) {
  use(device);
  void* ptr = nullptr;
  check_allocation(cudaMalloc(&ptr, std::size_t(std::max<std::int64_t>(bytes, 1))));
  // The queues do not wait for the default one, which fills the memory.
  CUDA_CHECK(cudaMemset(ptr, 0, std::size_t(bytes)));
  CUDA_CHECK(cudaStreamSynchronize(nullptr));
  return reinterpret_cast<std::uintptr_t>(ptr);
}

// What gives back reports nothing: a failure of the queue has its place in stream_synchronize, and after
// one every call fails.
void release(int device, std::uintptr_t ptr) {
  cudaSetDevice(device);
  cudaFree(reinterpret_cast<void*>(ptr));
}

Stream stream_create(int device, int) {
  use(device);
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return {device, reinterpret_cast<std::uintptr_t>(stream)};
}
void stream_destroy(Stream stream) {
  cudaSetDevice(stream.device);
  cudaStreamSynchronize(stream_of(stream));  // its staging may be in use, and so may memory released next
  {
    const std::lock_guard lock(stagings().mutex);
    stagings().of.erase({stream.device, stream.handle});
  }
  cudaStreamDestroy(stream_of(stream));
}
void stream_synchronize(Stream stream) {
  use(stream.device);
  CUDA_CHECK(cudaStreamSynchronize(stream_of(stream)));
}

std::uintptr_t event_create(int device) {
  use(device);
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreate(&event));
  return reinterpret_cast<std::uintptr_t>(event);
}
void event_destroy(std::uintptr_t event) { cudaEventDestroy(event_of(event)); }

void event_record(Stream stream, std::uintptr_t event) {
  use(stream.device);
  CUDA_CHECK(cudaEventRecord(event_of(event), stream_of(stream)));
}

// On the default queue it is the caller who waits.
void event_wait(Stream stream, std::uintptr_t event) {
  use(stream.device);
  if (stream.handle) CUDA_CHECK(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
  else CUDA_CHECK(cudaEventSynchronize(event_of(event)));
}

double event_seconds(std::uintptr_t first, std::uintptr_t last) {
  float milliseconds = 0;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, event_of(first), event_of(last)));
  return milliseconds / 1e3;
}

void copy_bytes(Stream stream, std::uintptr_t destination, int destination_device, std::uintptr_t source, int source_device, std::int64_t bytes) {
  void* const to = reinterpret_cast<void*>(destination);
  const void* const from = reinterpret_cast<const void*>(source);
  if (destination_device == source_device) {
    use(stream.device);
    CUDA_CHECK(cudaMemcpyAsync(to, from, std::size_t(bytes), cudaMemcpyDeviceToDevice, stream_of(stream)));
    return;
  }
  enable_peer_access(destination_device, source_device);
  enable_peer_access(source_device, destination_device);
  use(stream.device);
  // The addresses tell the GPUs, and the driver takes it through pinned memory of its own between those that cannot reach
  // each other. cudaMemcpyPeerAsync would be the same, but cannot be captured.
  CUDA_CHECK(cudaMemcpyAsync(to, from, std::size_t(bytes), cudaMemcpyDefault, stream_of(stream)));
}

void upload(Stream stream, std::uintptr_t destination, const void* source, std::int64_t bytes) {
  use(stream.device);
  staging_of(stream)->upload(stream_of(stream), reinterpret_cast<char*>(destination), static_cast<const char*>(source), bytes);
}

void download(Stream stream, void* destination, std::uintptr_t source, std::int64_t bytes) {
  use(stream.device);
  staging_of(stream)->download(stream_of(stream), static_cast<char*>(destination), reinterpret_cast<const char*>(source), bytes);
}

void submit(Stream, std::function<void()> op) { op(); }

std::uintptr_t graph_capture(const std::vector<Stream>& streams, const std::function<void()>& body) {
  auto graph = std::make_unique<Graph>(streams);
  const Stream first = streams.at(0);
  use(first.device);
  CUDA_CHECK(cudaStreamBeginCapture(stream_of(first), cudaStreamCaptureModeThreadLocal));
  cudaGraph_t captured = nullptr;
  try {
    graph->fork();
    body();
    graph->join();
  } catch (...) {
    cudaStreamEndCapture(stream_of(first), &captured);
    if (captured) cudaGraphDestroy(captured);
    cudaGetLastError();
    throw;
  }
  CUDA_CHECK(cudaStreamEndCapture(stream_of(first), &captured));
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, cudaError_t (*)(cudaGraph_t)> owned(captured, cudaGraphDestroy);
  CUDA_CHECK(cudaGraphInstantiateWithFlags(&graph->exec, captured, 0));
  return reinterpret_cast<std::uintptr_t>(graph.release());
}

void graph_launch(std::uintptr_t handle) {
  const Graph& graph = *reinterpret_cast<const Graph*>(handle);
  graph.join();
  use(graph.streams[0].device);
  CUDA_CHECK(cudaGraphLaunch(graph.exec, stream_of(graph.streams[0])));
  graph.fork();
}

void graph_destroy(std::uintptr_t graph) { delete reinterpret_cast<Graph*>(graph); }

double run_multiply_adds(Stream stream, Dtype dtype) {
  return dtype == Dtype::float64 ? run_peak_kernel<double>(stream) : run_peak_kernel<float>(stream);
}

double measure_bandwidth(Stream stream) {
  constexpr std::int64_t bytes = std::int64_t(512) << 20;  // larger than any cache
  const std::uintptr_t memory = allocate(stream.device, 2 * bytes);
  const double seconds = best_seconds(stream, [&] { copy_bytes(stream, memory + bytes, stream.device, memory, stream.device, bytes); });
  release(stream.device, memory);
  return 2 * bytes / seconds;
}

}  // namespace convnet

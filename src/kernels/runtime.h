// A backend's runtime: memory, queues, events and copies. cuda: runtime.cu; host and simt: host/runtime.cpp.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>
#include "tensor.h"

namespace convnet {

// How many devices there are; 0: as many as one likes. Throws std::runtime_error where there is a GPU
// but no way to use it.
int device_count();
std::string device_name(int device);
// Memory in bytes: free and total.
std::int64_t free_memory(int device);
std::int64_t total_memory(int device);

// Memory of a device, 64-byte aligned (2 MiB on the host), all bytes 0. Throws std::bad_alloc.
std::uintptr_t allocate(int device, std::int64_t bytes);
void release(int device, std::uintptr_t ptr);

// A queue of a device, run in order; on the CPU a worker thread with `threads` cores of its own.
Stream stream_create(int device, int threads);
void stream_destroy(Stream);
// Waits until the queue is empty; throws what the first failed op of the queue threw.
void stream_synchronize(Stream);

// An event marks a place in a queue; another queue, or the caller, can wait until it is passed.
std::uintptr_t event_create(int device);
void event_destroy(std::uintptr_t event);
void event_record(Stream, std::uintptr_t event);
void event_wait(Stream, std::uintptr_t event);
// Seconds between two events that have passed.
double event_seconds(std::uintptr_t first, std::uintptr_t last);

// Copies that the queue makes when it gets there; `upload` and `download` return when the caller's memory
// may be used again.
void copy_bytes(Stream, std::uintptr_t destination, int destination_device, std::uintptr_t source, int source_device, std::int64_t bytes);
void upload(Stream, std::uintptr_t destination, const void* source, std::int64_t bytes);
void download(Stream, void* destination, std::uintptr_t source, std::int64_t bytes);

// Puts an op into the queue; at once on the default one. Kernels are queued by CUDA itself.
void submit(Stream, std::function<void()> op);

// What `body` puts into these queues, recorded instead of run, to be run any number of times: ops, copies, and events, which
// order the graph's own queues alone and on every launch. The queues are the caller's alone meanwhile, and he may wait for none
// of them, nor upload or download; what `body` throws ends the capture. A launch comes behind what is in the queues.
std::uintptr_t graph_capture(const std::vector<Stream>& streams, const std::function<void()>& body);
void graph_launch(std::uintptr_t graph);
void graph_destroy(std::uintptr_t graph);

// A function of a library that the caller has loaded, a layer of his own: see own/layer.cu.
using OwnFunction = void (*)(Stream, const Out* tensors, const double* numbers);

// Runs independent multiply-adds in registers for some milliseconds, to the end; returns how many operations these were,
// two each. By the time it takes, that is the peak that shares are taken of.
double run_multiply_adds(Stream, Dtype dtype);
// Bytes a second of a large copy, read and written.
double measure_bandwidth(Stream);

}  // namespace convnet

// What kernels and launchers see of the runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "arguments.h"
#include "vector_types.h"

namespace simt {

inline constexpr int kWarpSize = 32;

// ---- the running thread -------------------------------------------------------------------------

// A place in the source. As a default argument, Site::here() is the place of the call.
struct Site {
  const char* file = "?";
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

class Block;
class Fiber;

struct Thread {
  uint3 thread_idx{};
  unsigned warp = 0, lane = 0;
  Block* block = nullptr;
  Fiber* fiber = nullptr;          // none before the thread first runs and after it has ended
  const char* waits_in = nullptr;  // what it last waited in, for the report of a deadlock
  Site waits_at;
};

struct GridPosition {
  uint3 block_idx{};
  dim3 block_dim, grid_dim;
};

// Initial-exec: one instruction to reach, in a dlopened Python extension too. The fibers of a block
// never leave their OS thread.
#define SIMT_TLS constinit thread_local __attribute__((tls_model("initial-exec")))
extern SIMT_TLS Thread* current_thread;  // null on the host
extern SIMT_TLS GridPosition current_position;

inline const uint3& thread_idx() { return current_thread->thread_idx; }
inline const GridPosition& grid_position() { return current_position; }

// ---- shared memory ------------------------------------------------------------------------------

// `key` tells the arrays of a kernel apart; the first thread to ask in a block gets it filled with
// 0xFF bytes (NaN).
void* static_shared_memory(const void* key, size_t bytes, size_t alignment, const char* name,
                           Site site = Site::here());
void* dynamic_shared_memory();

// ---- meeting places -----------------------------------------------------------------------------

enum class BarrierKind { kSync, kCount, kAnd, kOr };
int block_barrier(BarrierKind kind, int predicate, Site site);

// The lanes of `mask` meet; the last one runs `combine` for all and everyone goes on. `in` and
// `out` stay where they are, on the stacks of the waiting lanes: in[lane], out[lane] for the lanes
// in `arrived`, which are those of the mask that have not exited.
using Combine = void (*)(uint32_t arrived, const void* const* in, void* const* out);
void warp_collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                     Site site);

// ---- launch -------------------------------------------------------------------------------------

// What a launch may ask for. Registers are not known here.
struct Architecture {
  const char* name;
  size_t max_smem;  // bytes of a block, static and dynamic
};

// When an asynchronous copy lands: as late as it may, when its thread waits for it, or as early,
// when it is issued.
enum class AsyncLanding { kLate, kEarly };

struct Options {
  // The order of threads between two waits, and of the blocks. 0: forward, 1: reverse, n: random
  // with seed n. Starts as the environment's SIMT_ORDER. A correct kernel gives the same bits in
  // all.
  uint64_t order = 0;
  // Whose limits hold; null: those of SIMT_ARCH in the environment, or else of sm_90.
  const Architecture* architecture = nullptr;
  // Starts as the environment's SIMT_ASYNC, "late" or "early". A correct kernel gives the same bits
  // in both.
  AsyncLanding async = AsyncLanding::kLate;
};
Options options();
void set_options(const Options& options);
const Architecture& architecture(const char* name);  // "sm_75" to "sm_120"

// Whose memory a kernel works on: the device's, of which every allocation is known, or a caller's.
enum class Memory { kDevice, kCaller };

struct Launch {
  const char* name;  // of the kernel, for messages
  Memory memory;
  dim3 grid, block;
  size_t dynamic_smem;
  void (*run_thread)(void* call);
  void* call;
  const Reach* reaches;  // of the arguments
  size_t reach_count;
  alignas(8) mutable char began = 0, ended = 0;  // tokens: see checkers.h
};
void run_grid(const Launch& launch);

// kernel<<<grid, block, dynamic_smem>>>(args...), done when it returns. Errors, those of the launch
// and those inside the kernel, are std::runtime_error. Several OS threads may launch at a time.
template <class... Parameters, class... Args>
void launch(const char* name, Memory memory, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            size_t dynamic_smem, Args&&... args) {
  static_assert(sizeof...(Parameters) == sizeof...(Args),
                "kernel launched with the wrong number of arguments");
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> args;
  } call{kernel, {static_cast<Parameters>(std::forward<Args>(args))...}};
  static_assert(sizeof(call.args) <= 32764, "CUDA passes at most 32764 bytes of arguments");
  auto run_thread = [](void* p) {
    Call& call = *static_cast<Call*>(p);
    std::apply(call.kernel, call.args);
  };
  std::vector<Reach> reaches;
  auto note = [&](const Reach& reach) { reaches.push_back(reach); };
  std::apply(
      [&](const auto&... arg) {
        [[maybe_unused]] int i = 0;
        (for_reaches(arg, i++, note), ...);
      },
      call.args);
  run_grid(
      {name, memory, grid, block, dynamic_smem, run_thread, &call, reaches.data(), reaches.size()});
}

// "conv_forward_kernel<float, Tile<64, 128, 8, 8>, true>" of the __PRETTY_FUNCTION__ below.
std::string kernel_name_in(const char* pretty_function);
template <auto kernel>
const char* kernel_name() {
  static const std::string name = kernel_name_in(__PRETTY_FUNCTION__);
  return name.c_str();
}

}  // namespace simt

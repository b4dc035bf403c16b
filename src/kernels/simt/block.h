// One block in execution. Each OS thread that launches has one Block, which runs the blocks of its
// launches one after the other and keeps fibers and shared memory between them.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "runtime.h"

namespace simt {

// Limits of sm_90, which are those of sm_80 but for the 227 KiB (163 there).
inline constexpr unsigned kMaxBlockThreads = 1024;
inline constexpr size_t kMaxStaticSmem = 48 << 10;
inline constexpr size_t kMaxSmem = 227 << 10;

class Block {
 public:
  static Block& of_this_os_thread();

  // Runs one block to its end. Throws what a thread of it threw, with the place in front.
  void run(const Launch& launch, uint3 block_idx, uint64_t order, uint64_t seed);

  // For the running thread.
  int barrier(BarrierKind kind, int predicate, Site site);
  void collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                  Site site);
  void* static_smem(const void* key, size_t bytes, size_t alignment, const char* name, Site site);
  void* dynamic_smem() const { return smem_.get(); }

 private:
  // Lanes of one mask that wait for each other in a warp function.
  struct Collective {
    uint32_t mask = 0;
    uint32_t arrived = 0;
    const char* name = nullptr;
    Site site;
    Combine combine = nullptr;
    const void* in[kWarpSize];
    void* out[kWarpSize];
  };
  struct Warp {
    uint32_t exists = 0;  // lanes of the block: all 32 but for the last warp
    uint32_t alive = 0;   // lanes that have not exited
    uint32_t ready = 0;   // lanes that can run, or go on
    std::vector<Collective> collectives;
  };
  struct Barrier {
    unsigned arrived = 0;
    BarrierKind kind = BarrierKind::kSync;
    Site site;
    const Thread* first = nullptr;
    int accumulated = 0;
    int result = 0;
  };
  struct StaticArray {
    const void* key;
    void* address;
  };
  struct FreeDeleter {
    void operator()(char* p) const { std::free(p); }
  };

  void lay_out_threads(dim3 block_dim);
  void start(const Launch& launch, uint3 block_idx, uint64_t order, uint64_t seed);

  void make_ready(unsigned warp, uint32_t lanes);
  Thread* next_thread();
  unsigned choose(uint32_t candidates);
  void wait(const char* what, Site site);
  void switch_to(Fiber& fiber);
  void switch_to(Thread& thread);

  [[noreturn]] static void fiber_entry(void* block);
  void run_threads_on_this_fiber();
  Thread* run_thread_and_pick_next();
  void end_thread();
  void release_barrier();
  void complete(unsigned warp, Collective& collective);

  [[noreturn]] void fail_deadlock() const;
  void drop_failed_threads();

  const Launch* launch_ = nullptr;
  dim3 laid_out_;  // the block_dim that threads_ is filled for
  unsigned thread_count_ = 0;
  unsigned alive_count_ = 0;
  std::vector<Thread> threads_;  // by linear index
  std::vector<Warp> warps_;
  uint32_t ready_warps_ = 0;  // bit w: warps_[w].ready is not zero
  unsigned warp_ = 0;         // of the thread that ran last
  uint64_t order_ = 0;
  uint64_t random_ = 0;
  Barrier barrier_;

  Fiber host_;
  Fiber* running_ = &host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  std::string error_;

  std::unique_ptr<char, FreeDeleter> smem_;  // dynamic, then static
  size_t smem_used_ = 0;
  size_t static_smem_used_ = 0;
  std::vector<StaticArray> static_arrays_;
};

std::string to_string(uint3 v);

}  // namespace simt

// One block in execution. Each OS thread that launches has one Block, which runs the blocks of its
// launches one after the other and keeps fibers and shared memory between them.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "async_copy.h"
#include "fiber.h"
#include "runtime.h"

namespace simt {

// Limits of every architecture; the shared memory of a block in all is Architecture's.
inline constexpr unsigned kMaxBlockThreads = 1024;
inline constexpr size_t kMaxStaticSmem = 48 << 10;

class Block {
 public:
  static Block& of_this_os_thread();

  // Runs one block to its end. Throws what a thread of it threw, with the place in front.
  void run(const Launch& launch, uint3 block_idx, uint64_t order, uint64_t seed);

  // For the running thread.
  int barrier(BarrierKind kind, int predicate, Site site);
  void collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                  Site site);
  // An instruction that is .aligned: all 32 lanes of the warp come, to the same place.
  void aligned_collective(const char* name, const void* in, void* out, Combine combine, Site site);
  void* static_smem(const void* key, size_t bytes, size_t alignment, const char* name, Site site);
  void* dynamic_smem() const { return smem_.get() + kSmemFront; }
  // Fails unless the bytes are in one array of this block's shared memory, at a multiple of
  // `alignment`.
  void check_shared(const void* address, size_t bytes, size_t alignment, const char* name,
                    Site site) const;
  bool is_shared(const void* address, size_t bytes) const;
  AsyncCopies& async_copies();
  AsyncLanding async_landing() const { return async_landing_; }

 private:
  // Lanes of one mask that wait for each other in a warp function.
  struct Collective {
    uint32_t mask = 0;
    uint32_t arrived = 0;
    const char* name = nullptr;
    Site site;
    Combine combine = nullptr;
    bool aligned = false;
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
    unsigned generation = 0;
    BarrierKind kind = BarrierKind::kSync;
    Site site;
    const Thread* first = nullptr;
    int accumulated = 0;
    int result = 0;
  };
  struct StaticArray {
    const void* key;
    void* address;
    size_t bytes;
  };
  struct FreeDeleter {
    void operator()(char* p) const { std::free(p); }
  };

  // Bytes that nobody may touch before, between and after the arrays of shared memory.
  static constexpr size_t kRedzone = SIMT_ASAN ? 256 : 0;
  static constexpr size_t kSmemFront = SIMT_ASAN ? 1024 : 0;  // keeps what follows aligned

  // A place to wait for others: its address is what ThreadSanitizer knows it by.
  struct alignas(8) Token {
    char byte;
  };

  void lay_out_threads(dim3 block_dim);
  void lay_out_smem(size_t dynamic);
  void give_identities();
  void start(const Launch& launch, uint3 block_idx, uint64_t order, uint64_t seed);

  void meet(uint32_t mask, bool aligned, const char* name, const void* in, void* out,
            Combine combine, Site site);
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
  Fiber& take_fiber();
  // Null but in the race build.
  Token* token(size_t index) { return tokens_ ? &tokens_[index] : nullptr; }
  Token* barrier_token() { return token(barrier_.generation & 1); }
  Token* arrival_token(const Thread& thread) {
    return token(2 + 2 * size_t(&thread - threads_.data()));
  }
  Token* wake_token(const Thread& thread) {
    return token(3 + 2 * size_t(&thread - threads_.data()));
  }

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
  std::deque<Fiber*> idle_fibers_;
  std::string error_;

  Identity host_identity_;
  std::vector<std::unique_ptr<Identity>>
      identities_;  // of fibers_, or of blocks: see give_identities
  size_t blocks_started_ = 0;

  std::unique_ptr<char, FreeDeleter> smem_;  // dynamic, then static
  size_t smem_bytes_ = 0;                    // of smem_
  size_t smem_end_ = 0;                      // where the next array can be
  size_t smem_used_ = 0;                     // on a GPU, without what kRedzone adds
  size_t static_smem_used_ = 0;
  std::vector<StaticArray> static_arrays_;
  std::unique_ptr<Token[]> tokens_;  // of the barrier, two; of each thread, two
  AsyncLanding async_landing_ = AsyncLanding::kLate;
  std::vector<AsyncCopies>
      async_copies_;  // by linear index, from a block's first asynchronous copy on
};

std::string to_string(uint3 v);
std::string to_string(Site site);

}  // namespace simt

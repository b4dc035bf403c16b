#include "block.h"

#include <memory>
#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace simt {

SIMT_TLS Thread* current_thread = nullptr;
SIMT_TLS GridPosition current_position;

// ---- errors -------------------------------------------------------------------------------------

namespace {

std::string to_string(Site site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

const char* barrier_name(BarrierKind kind) {
  switch (kind) {
    case BarrierKind::kSync:
      return "__syncthreads";
    case BarrierKind::kCount:
      return "__syncthreads_count";
    case BarrierKind::kAnd:
      return "__syncthreads_and";
    case BarrierKind::kOr:
      return "__syncthreads_or";
  }
  return "?";
}

bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool same_place(Site a, Site b) { return a.line == b.line && same_text(a.file, b.file); }

}  // namespace

std::string to_string(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

// All that is alive waits, and nobody is left to wake anybody.
void Block::fail_deadlock() const {
  struct Place {
    const Thread* first;
    unsigned count;
  };
  std::vector<Place> places;
  for (const Thread& thread : threads_) {
    if (!(warps_[thread.warp].alive >> thread.lane & 1)) continue;
    auto same = std::find_if(places.begin(), places.end(), [&](const Place& place) {
      return same_text(place.first->waits_in, thread.waits_in) &&
             same_place(place.first->waits_at, thread.waits_at);
    });
    if (same == places.end()) {
      places.push_back({&thread, 1});
    } else {
      ++same->count;
    }
  }
  std::string message = "deadlock: every thread that has not exited waits";
  const char* separator = ": ";
  for (const Place& place : places) {
    message += separator + std::to_string(place.count) + " in " + place.first->waits_in + " at " +
               to_string(place.first->waits_at) + " (first " + to_string(place.first->thread_idx) +
               ")";
    separator = ", ";
  }
  fail(message + "; " + std::to_string(thread_count_ - alive_count_) + " have exited");
}

// After an error: fibers hold half-run kernels.
void Block::drop_failed_threads() {
  idle_fibers_.clear();
  for (auto& fiber : fibers_) {
    fiber->rewind();
    idle_fibers_.push_back(fiber.get());
  }
  for (Thread& thread : threads_) thread.fiber = nullptr;
}

// ---- scheduler ----------------------------------------------------------------------------------
// Threads that can run are bits: 32 warps of 32 lanes at most. A thread that waits has no bit, and
// the one that ends its wait sets it; no bit left means the block has ended or is deadlocked.
//
// After a wait inside a warp the warp goes on for as long as it can, so warps drift as far apart as
// the program lets them. That shows missing barriers, and keeps the working set small.

void Block::make_ready(unsigned warp, uint32_t lanes) {
  if (lanes == 0) return;
  warps_[warp].ready |= lanes;
  ready_warps_ |= 1u << warp;
}

// One of the set bits, as the order has it.
unsigned Block::choose(uint32_t candidates) {
  if (order_ == 0) return std::countr_zero(candidates);
  if (order_ == 1) return 31 - std::countl_zero(candidates);
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  unsigned skip = static_cast<unsigned>(random_ >> 32) % std::popcount(candidates);
  for (; skip > 0; --skip) candidates &= candidates - 1;
  return std::countr_zero(candidates);
}

// Takes the thread that runs next; null if none can.
Thread* Block::next_thread() {
  if (ready_warps_ == 0) return nullptr;
  if (!(ready_warps_ >> warp_ & 1)) warp_ = choose(ready_warps_);
  Warp& warp = warps_[warp_];
  const unsigned lane = choose(warp.ready);
  warp.ready &= ~(1u << lane);
  if (warp.ready == 0) ready_warps_ &= ~(1u << warp_);
  return &threads_[warp_ * kWarpSize + lane];
}

void Block::switch_to(Fiber& fiber) {
  Fiber& from = *running_;
  running_ = &fiber;
  Fiber::switch_fibers(from, fiber);
}

void Block::switch_to(Thread& thread) {
  if (thread.fiber == nullptr) {  // runs for the first time
    if (idle_fibers_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(fibers_.size(), fiber_entry, this));
      idle_fibers_.push_back(fibers_.back().get());
    }
    thread.fiber = idle_fibers_.back();
    idle_fibers_.pop_back();
  }
  current_thread = &thread;
  switch_to(*thread.fiber);
}

// Gives way until another thread makes the running one ready, and it is its turn.
void Block::wait(const char* what, Site site) {
  Thread* self = current_thread;
  self->waits_in = what;
  self->waits_at = site;
  Thread* next = next_thread();
  if (next == nullptr) fail_deadlock();
  if (next != self) switch_to(*next);
}

void Block::fiber_entry(void* block) {
  for (;;) static_cast<Block*>(block)->run_threads_on_this_fiber();
}

// Threads that end without having waited follow each other on one fiber, as plain calls.
void Block::run_threads_on_this_fiber() {
  Thread* next = run_thread_and_pick_next();
  while (next != nullptr && next->fiber == nullptr) {
    next->fiber = running_;
    current_thread = next;
    next = run_thread_and_pick_next();
  }
  idle_fibers_.push_back(running_);
  if (next != nullptr) {
    switch_to(*next);
  } else {
    switch_to(host_);
  }
}

// Null at the end of the block, be it good or by an error. The switch away must not happen inside a
// handler: the list of exceptions being handled belongs to the OS thread.
Thread* Block::run_thread_and_pick_next() {
  try {
    launch_->run_thread(launch_->call);
    end_thread();
    Thread* next = next_thread();
    if (next == nullptr && alive_count_ > 0) fail_deadlock();
    return next;
  } catch (const std::exception& error) {
    error_ = "block " + to_string(current_position.block_idx) + ", thread " +
             to_string(current_thread->thread_idx) + ": " + error.what();
    return nullptr;
  }
}

void Block::end_thread() {
  Thread& self = *current_thread;
  self.fiber = nullptr;
  --alive_count_;
  Warp& warp = warps_[self.warp];
  warp.alive &= ~(1u << self.lane);
  // Others may have waited for this thread only.
  for (Collective& collective : warp.collectives) {
    if (collective.arrived != 0) complete(self.warp, collective);
  }
  if (barrier_.arrived != 0 && barrier_.arrived == alive_count_) release_barrier();
}

// ---- barrier and warp functions -----------------------------------------------------------------

// Barriers are told apart by file and line: two calls of a helper that holds one look the same.
int Block::barrier(BarrierKind kind, int predicate, Site site) {
  Barrier& barrier = barrier_;
  if (barrier.arrived == 0) {
    barrier.kind = kind;
    barrier.site = site;
    barrier.first = current_thread;
    barrier.accumulated = kind == BarrierKind::kAnd;
  } else if (barrier.kind != kind || !same_place(barrier.site, site)) {
    fail(std::string("divergent barrier: this thread is in ") + barrier_name(kind) + " at " +
         to_string(site) + ", thread " + to_string(barrier.first->thread_idx) + " in " +
         barrier_name(barrier.kind) + " at " + to_string(barrier.site));
  }
  const int vote = predicate != 0;
  switch (kind) {
    case BarrierKind::kSync:
      break;
    case BarrierKind::kCount:
      barrier.accumulated += vote;
      break;
    case BarrierKind::kAnd:
      barrier.accumulated &= vote;
      break;
    case BarrierKind::kOr:
      barrier.accumulated |= vote;
      break;
  }
  if (++barrier.arrived == alive_count_) release_barrier();
  wait(barrier_name(kind), site);
  return barrier.result;  // the next release needs this thread, so it is still this barrier's
}

// Everyone starts again from the first warp in order, the thread that came last included.
void Block::release_barrier() {
  barrier_.arrived = 0;
  barrier_.result = barrier_.accumulated;
  for (unsigned w = 0; w < warps_.size(); ++w) make_ready(w, warps_[w].alive);
  warp_ = choose(ready_warps_);
}

void Block::collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                       Site site) {
  const Thread& self = *current_thread;
  Warp& warp = warps_[self.warp];
  if (!(mask >> self.lane & 1)) {
    fail(std::string(name) + " at " + to_string(site) + ": lane " + std::to_string(self.lane) +
         " is not in its own mask");
  }
  Collective* meeting = nullptr;
  for (Collective& candidate : warp.collectives) {
    if (candidate.arrived != 0 && candidate.mask == mask) {
      meeting = &candidate;
      break;
    }
    if (candidate.arrived == 0) meeting = &candidate;
  }
  if (meeting == nullptr) meeting = &warp.collectives.emplace_back();
  if (meeting->arrived == 0) {
    meeting->mask = mask;
    meeting->name = name;
    meeting->site = site;
    meeting->combine = combine;
  } else if (meeting->combine != combine || !same_text(meeting->name, name)) {
    fail(std::string("divergent warp: lane ") + std::to_string(self.lane) + " is in " + name +
         " at " + to_string(site) + ", lane " + std::to_string(std::countr_zero(meeting->arrived)) +
         " in " + meeting->name + " at " + to_string(meeting->site));
  }
  meeting->in[self.lane] = in;
  meeting->out[self.lane] = out;
  meeting->arrived |= 1u << self.lane;
  complete(self.warp, *meeting);
  wait(name, site);
}

// If all lanes have come that can still come: lets them go on.
void Block::complete(unsigned warp, Collective& collective) {
  if (collective.arrived != (collective.mask & warps_[warp].alive)) return;
  if (collective.combine != nullptr) {
    collective.combine(collective.arrived, collective.in, collective.out);
  }
  make_ready(warp, std::exchange(collective.arrived, 0));
}

// ---- shared memory ------------------------------------------------------------------------------

void* Block::static_smem(const void* key, size_t bytes, size_t alignment, const char* name,
                         Site site) {
  for (const StaticArray& array : static_arrays_) {
    if (array.key == key) return array.address;
  }
  alignment = std::max<size_t>(alignment, 16);
  const size_t offset = (smem_used_ + alignment - 1) / alignment * alignment;
  auto refuse = [&](const std::string& total, size_t limit) {
    fail("out of shared memory: with " + std::string(name) + " at " + to_string(site) + ", " +
         total + "; the limit is " + std::to_string(limit));
  };
  if (static_smem_used_ + bytes > kMaxStaticSmem) {
    refuse(std::to_string(static_smem_used_ + bytes) + " bytes are static", kMaxStaticSmem);
  }
  if (offset + bytes > kMaxSmem) {
    refuse(std::to_string(offset + bytes) + " bytes are static and dynamic", kMaxSmem);
  }
  static_smem_used_ += bytes;
  smem_used_ = offset + bytes;
  char* address = smem_.get() + offset;
  std::memset(address, 0xff, bytes);  // NaN until written
  static_arrays_.push_back({key, address});
  return address;
}

// ---- the block ----------------------------------------------------------------------------------

Block& Block::of_this_os_thread() {
  // A pointer, because an extension module with initial-exec variables has all its thread-locals in a block of
  // some hundred bytes that the whole process shares, and cannot be loaded where that is full.
  static thread_local const auto block = std::make_unique<Block>();
  return *block;
}

void Block::lay_out_threads(dim3 block_dim) {
  thread_count_ = block_dim.x * block_dim.y * block_dim.z;
  threads_.assign(thread_count_, Thread{});
  for (unsigned i = 0; i < thread_count_; ++i) {
    Thread& thread = threads_[i];
    thread.thread_idx = {i % block_dim.x, i / block_dim.x % block_dim.y,
                         i / (block_dim.x * block_dim.y)};
    thread.warp = i / kWarpSize;
    thread.lane = i % kWarpSize;
    thread.block = this;
  }
  warps_.resize((thread_count_ + kWarpSize - 1) / kWarpSize);
  for (Warp& warp : warps_) warp.exists = 0xffffffffu;
  if (const unsigned rest = thread_count_ % kWarpSize) warps_.back().exists = (1u << rest) - 1;
  laid_out_ = block_dim;
}

void Block::start(const Launch& launch, uint3 block_idx, uint64_t order, uint64_t seed) {
  const dim3 d = launch.block;
  if (threads_.empty() || d.x != laid_out_.x || d.y != laid_out_.y || d.z != laid_out_.z) {
    lay_out_threads(d);
  }
  launch_ = &launch;
  current_position = {block_idx, launch.block, launch.grid};
  order_ = order;
  random_ = seed;

  alive_count_ = thread_count_;
  barrier_ = Barrier{};
  ready_warps_ = 0;
  for (unsigned w = 0; w < warps_.size(); ++w) {
    Warp& warp = warps_[w];
    warp.alive = warp.exists;
    for (Collective& collective : warp.collectives) collective.arrived = 0;
    warp.ready = 0;
    make_ready(w, warp.exists);
  }
  warp_ = choose(ready_warps_);

  if (!smem_) {
    smem_.reset(static_cast<char*>(std::aligned_alloc(1024, kMaxSmem)));
    if (!smem_) throw std::bad_alloc();
  }
  std::memset(smem_.get(), 0xff, launch.dynamic_smem);
  smem_used_ = launch.dynamic_smem;
  static_smem_used_ = 0;
  static_arrays_.clear();
}

void Block::run(const Launch& launch, uint3 block_idx, uint64_t order, uint64_t seed) {
  start(launch, block_idx, order, seed);
  switch_to(*next_thread());
  current_thread = nullptr;
  if (error_.empty()) return;
  drop_failed_threads();
  throw std::runtime_error(std::exchange(error_, {}));
}

// ---- entries of runtime.h -----------------------------------------------------------------------

int block_barrier(BarrierKind kind, int predicate, Site site) {
  return current_thread->block->barrier(kind, predicate, site);
}
void warp_collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                     Site site) {
  current_thread->block->collective(mask, name, in, out, combine, site);
}
void* static_shared_memory(const void* key, size_t bytes, size_t alignment, const char* name,
                           Site site) {
  return current_thread->block->static_smem(key, bytes, alignment, name, site);
}
void* dynamic_shared_memory() { return current_thread->block->dynamic_smem(); }

}  // namespace simt

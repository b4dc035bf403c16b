#include "block.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>

namespace simt {

SIMT_TLS Thread* current_thread = nullptr;
SIMT_TLS GridPosition current_position;

// ---- errors -------------------------------------------------------------------------------------

namespace {

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

std::string to_string(Site site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

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

// After an error: fibers hold half-run kernels. What these have done comes before what the host
// does now.
void Block::drop_failed_threads() {
#if SIMT_RACE
  for (auto& identity : identities_) {
    identity->become_current();
    checkers::release(&launch_->ended);
    host_identity_.become_current();
    identity->create();  // the old one is in the middle of calls
  }
#endif
  idle_fibers_.clear();
  for (auto& fiber : fibers_) {
    fiber->rewind();
    idle_fibers_.push_back(fiber.get());
  }
  for (Thread& thread : threads_) thread.fiber = nullptr;
}

// ---- identities of the race build ---------------------------------------------------------------
// Races are between identities, and one that has met others at a barrier comes after them for good.
// So a run looks for one of two kinds of race:
//   threads  each thread of a block has an identity, which is its fiber's; it is another one in the
//   next block blocks   each block has an identity, which all its threads share: what they do to
//   each other is not looked at,
//            and barriers have nothing to do
// A thread that has an identity has a fiber for itself even where it never waits.

namespace {

constexpr size_t kSpareFibers = 3;  // by which identities move on from block to block
constexpr size_t kBlockIdentities =
    32;  // a race between blocks further apart than this is not seen

bool threads_have_identities() {
#if SIMT_RACE
  static const bool threads = [] {
    const char* text = std::getenv("SIMT_RACES");
    const std::string wanted = text == nullptr || *text == '\0' ? "threads" : text;
    if (wanted != "threads" && wanted != "blocks")
      fail("SIMT_RACES is '" + wanted + "', expected threads or blocks");
    return wanted == "threads";
  }();
  return threads;
#else
  return false;
#endif
}

}  // namespace

void Block::give_identities() {
#if SIMT_RACE
  host_identity_.adopt_current();
  host_.wear(host_identity_);
  if (threads_have_identities()) {
    while (fibers_.size() < thread_count_ + kSpareFibers) {
      fibers_.push_back(std::make_unique<Fiber>(fibers_.size(), fiber_entry, this));
      identities_.push_back(std::make_unique<Identity>());
      identities_.back()->create();
      fibers_.back()->wear(*identities_.back());
      idle_fibers_.push_back(fibers_.back().get());
    }
    return;
  }
  const size_t index = blocks_started_++ % kBlockIdentities;
  if (index == identities_.size()) {
    identities_.push_back(std::make_unique<Identity>());
    identities_.back()->create();
  }
  identities_[index]->set_name("block " + to_string(current_position.block_idx));
  for (auto& fiber : fibers_) {
    fiber->rewind();  // the stack is no longer the last block's
    fiber->wear(*identities_[index]);
  }
#endif
}

// An idle one. The last to be given back is still in the cache; where it has an identity, its turn
// comes last.
Fiber& Block::take_fiber() {
  if (idle_fibers_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(fibers_.size(), fiber_entry, this));
    fibers_.back()->wear(*running_);
    return *fibers_.back();
  }
  Fiber& fiber = *(threads_have_identities() ? idle_fibers_.front() : idle_fibers_.back());
  threads_have_identities() ? idle_fibers_.pop_front() : idle_fibers_.pop_back();
  return fiber;
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
  if (thread.fiber == nullptr) thread.fiber = &take_fiber();  // runs for the first time
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

void Block::fiber_entry(void* argument) {
  Block* block = static_cast<Block*>(argument);
  Fiber::enter(block->host_);
  for (;;) block->run_threads_on_this_fiber();
}

// Threads that end without having waited follow each other on one fiber, as plain calls.
void Block::run_threads_on_this_fiber() {
  Thread* next = run_thread_and_pick_next();
  while (next != nullptr && next->fiber == nullptr && !threads_have_identities()) {
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
    if (threads_have_identities())
      running_->identity().set_name("thread " + to_string(current_thread->thread_idx));
    checkers::acquire(&launch_->began);
    {
      const checkers::Loud loud;
      launch_->run_thread(launch_->call);
    }
    checkers::release(&launch_->ended);
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
  if (!async_copies_.empty() && !async_copies().pending().empty()) {
    const auto& pending = async_copies().pending();
    fail("exits with asynchronous copies that it has not waited for: " +
         std::to_string(pending.size()) + ", the first from " + to_string(pending.front().site));
  }
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
  Token* const token = barrier_token();
  checkers::release(token);
  if (++barrier.arrived == alive_count_) release_barrier();
  wait(barrier_name(kind), site);
  checkers::acquire(token);
  return barrier.result;  // the next release needs this thread, so it is still this barrier's
}

// Everyone starts again from the first warp in order, the thread that came last included.
void Block::release_barrier() {
  barrier_.arrived = 0;
  ++barrier_
        .generation;  // who wakes late must not come after those that have run ahead to the next
  barrier_.result = barrier_.accumulated;
  for (unsigned w = 0; w < warps_.size(); ++w) make_ready(w, warps_[w].alive);
  warp_ = choose(ready_warps_);
}

void Block::collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                       Site site) {
  meet(mask, false, name, in, out, combine, site);
}

void Block::aligned_collective(const char* name, const void* in, void* out, Combine combine,
                               Site site) {
  meet(0xffffffffu, true, name, in, out, combine, site);
}

void Block::meet(uint32_t mask, bool aligned, const char* name, const void* in, void* out,
                 Combine combine, Site site) {
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
    meeting->aligned = aligned;
  } else if (meeting->combine != combine || !same_text(meeting->name, name) ||
             (aligned && !same_place(meeting->site, site))) {
    fail(std::string("divergent warp: lane ") + std::to_string(self.lane) + " is in " + name +
         " at " + to_string(site) + ", lane " + std::to_string(std::countr_zero(meeting->arrived)) +
         " in " + meeting->name + " at " + to_string(meeting->site));
  }
  meeting->in[self.lane] = in;
  meeting->out[self.lane] = out;
  meeting->arrived |= 1u << self.lane;
  if (combine == nullptr) checkers::release(arrival_token(self));
  complete(self.warp, *meeting);
  wait(name, site);
  if (combine == nullptr) checkers::acquire(wake_token(self));
}

// If all lanes have come that can still come: lets them go on. Functions that return something do
// not order memory, says the programming guide; __syncwarp does.
void Block::complete(unsigned warp, Collective& collective) {
  if (collective.arrived != (collective.mask & warps_[warp].alive)) return;
  if (collective.aligned && ~collective.arrived != 0) {
    fail(std::string(collective.name) + " at " + to_string(collective.site) +
         " needs all 32 lanes of the warp; it has " +
         std::to_string(std::popcount(collective.arrived)) + ", lane " +
         std::to_string(std::countr_zero(~collective.arrived)) + " has exited or does not exist");
  }
  if (collective.combine != nullptr) {
    collective.combine(collective.arrived, collective.in, collective.out);
  } else if (SIMT_RACE) {
    auto for_lanes = [&](auto&& body) {
      for (unsigned lane = 0; lane < kWarpSize; ++lane)
        if (collective.arrived >> lane & 1) body(threads_[warp * kWarpSize + lane]);
    };
    for_lanes([&](const Thread& thread) { checkers::acquire(arrival_token(thread)); });
    for_lanes([&](const Thread& thread) { checkers::release(wake_token(thread)); });
  }
  make_ready(warp, std::exchange(collective.arrived, 0));
}

// ---- shared memory ------------------------------------------------------------------------------

void* Block::static_smem(const void* key, size_t bytes, size_t alignment, const char* name,
                         Site site) {
  for (const StaticArray& array : static_arrays_) {
    if (array.key == key) return array.address;
  }
  auto refuse = [&](const std::string& total, size_t limit) {
    fail("out of shared memory: with " + std::string(name) + " at " + to_string(site) + ", " +
         total + "; the limit is " + std::to_string(limit));
  };
  alignment = std::max<size_t>(alignment, 16);
  auto aligned = [&](size_t offset) { return (offset + alignment - 1) / alignment * alignment; };
  static_smem_used_ += bytes;
  smem_used_ = aligned(smem_used_) + bytes;
  if (static_smem_used_ > kMaxStaticSmem) {
    refuse(std::to_string(static_smem_used_) + " bytes are static", kMaxStaticSmem);
  }
  const size_t limit = options().architecture->max_smem;
  if (smem_used_ > limit)
    refuse(std::to_string(smem_used_) + " bytes are static and dynamic", limit);
  const size_t offset = aligned(smem_end_);
  smem_end_ = offset + bytes + kRedzone;
  if (smem_end_ > smem_bytes_) fail("too many arrays of shared memory at " + to_string(site));
  char* address = smem_.get() + offset;
  checkers::permit(address, bytes);
  std::memset(address, 0xff, bytes);  // NaN until written
  static_arrays_.push_back({key, address, bytes});
  return address;
}

// Room for the dynamic array and whatever static ones come. In the race build it is new for every
// block, with tokens: blocks must not meet in memory that a GPU has once for each.
void Block::lay_out_smem(size_t dynamic) {
  constexpr size_t static_room = kMaxStaticSmem + 64 * (kRedzone + 64);
  const size_t needed = (kSmemFront + dynamic + kRedzone + static_room + 1023) / 1024 * 1024;
  if (SIMT_RACE || smem_bytes_ < needed) {
    smem_.reset();
    smem_.reset(static_cast<char*>(std::aligned_alloc(1024, needed)));
    smem_bytes_ = needed;
    if (!smem_) throw std::bad_alloc();
  }
  if (SIMT_RACE) {
    tokens_.reset();
    tokens_.reset(new Token[2 + 2 * thread_count_]);
  }
  checkers::forbid(smem_.get(), smem_bytes_);
  checkers::permit(dynamic_smem(), dynamic);
  std::memset(dynamic_smem(), 0xff, dynamic);
  smem_used_ = dynamic;
  smem_end_ = kSmemFront + dynamic + kRedzone;
  static_smem_used_ = 0;
  static_arrays_.clear();
}

bool Block::is_shared(const void* address, size_t bytes) const {
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto holds = [&](const void* array, size_t array_bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(array);
    return at >= begin && at + bytes <= begin + array_bytes;
  };
  return holds(dynamic_smem(), launch_->dynamic_smem) ||
         std::any_of(static_arrays_.begin(), static_arrays_.end(),
                     [&](const StaticArray& array) { return holds(array.address, array.bytes); });
}

void Block::check_shared(const void* address, size_t bytes, size_t alignment, const char* name,
                         Site site) const {
  if (!is_shared(address, bytes)) {
    fail(std::string(name) + " at " + to_string(site) + ": " + std::to_string(bytes) +
         " bytes that are in no array of the block's shared memory");
  }
  if (reinterpret_cast<uintptr_t>(address) % alignment != 0) {
    fail(std::string(name) + " at " + to_string(site) +
         ": the shared address is not a multiple of " + std::to_string(alignment));
  }
}

// ---- asynchronous copies ------------------------------------------------------------------------

// Those of the running thread.
AsyncCopies& Block::async_copies() {
  if (async_copies_.empty()) async_copies_.resize(thread_count_);
  return async_copies_[current_thread->warp * kWarpSize + current_thread->lane];
}

// ---- the block ----------------------------------------------------------------------------------

Block& Block::of_this_os_thread() {
  // A pointer, because an extension module with initial-exec variables has all its thread-locals in
  // a block of some hundred bytes that the whole process shares, and cannot be loaded where that is
  // full.
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

  lay_out_smem(launch.dynamic_smem);
  give_identities();
  async_landing_ = options().async;
  async_copies_.clear();
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
  const checkers::Quiet quiet;
  return current_thread->block->barrier(kind, predicate, site);
}
void warp_collective(uint32_t mask, const char* name, const void* in, void* out, Combine combine,
                     Site site) {
  const checkers::Quiet quiet;
  current_thread->block->collective(mask, name, in, out, combine, site);
}
void* static_shared_memory(const void* key, size_t bytes, size_t alignment, const char* name,
                           Site site) {
  const checkers::Quiet quiet;
  return current_thread->block->static_smem(key, bytes, alignment, name, site);
}
void* dynamic_shared_memory() { return current_thread->block->dynamic_smem(); }

}  // namespace simt

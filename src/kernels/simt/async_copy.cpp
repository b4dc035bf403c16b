#include "async_copy.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "block.h"
#include "checkers.h"
#include "instructions.h"

namespace simt {

namespace {

void land(const AsyncCopy& copy) {
  {
    const checkers::Loud loud;
    checkers::reads(copy.source, copy.source_bytes);
    checkers::writes(copy.target, copy.bytes);
  }
  char* target = static_cast<char*>(copy.target);
  if (copy.source_bytes != 0) std::memcpy(target, copy.source, copy.source_bytes);
  std::memset(target + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

}  // namespace

// Until the copy has landed its target is undefined: NaN, so that whoever still reads what was there before, or
// already what will come, shows.
void AsyncCopies::issue(const AsyncCopy& copy, AsyncLanding landing) {
  if (landing == AsyncLanding::kEarly) {
    land(copy);
  } else {
    {
      const checkers::Loud loud;
      checkers::writes(copy.target, copy.bytes);
    }
    std::memset(copy.target, 0xff, copy.bytes);
  }
  pending_.push_back(copy);
}

void AsyncCopies::wait(std::size_t groups_left, AsyncLanding landing) {
  if (group_ends_.size() <= groups_left) return;
  const auto first_left = group_ends_.end() - static_cast<std::ptrdiff_t>(groups_left);
  const auto done = static_cast<std::ptrdiff_t>(*(first_left - 1));
  if (landing == AsyncLanding::kLate) {
    for (std::ptrdiff_t i = 0; i < done; ++i) land(pending_[static_cast<std::size_t>(i)]);
  }
  pending_.erase(pending_.begin(), pending_.begin() + done);
  group_ends_.erase(group_ends_.begin(), first_left);
  for (std::size_t& end : group_ends_) end -= static_cast<std::size_t>(done);
}

// ---- cp.async -----------------------------------------------------------------------------------

void async_copy(void* shared, const void* global, unsigned bytes, int source_bytes, Site site) {
  const checkers::Quiet quiet;
  const checkers::CalledFrom kernel(__builtin_return_address(0));
  Block& block = *current_thread->block;
  block.check_shared(shared, bytes, bytes, "cp.async", site);
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error("cp.async at " + to_string(site) + ": " + why);
  };
  if (source_bytes < 0 || source_bytes > static_cast<int>(bytes)) {
    refuse("reads " + std::to_string(source_bytes) + " bytes of the source; expected 0 to " +
           std::to_string(bytes));
  }
  if (reinterpret_cast<uintptr_t>(global) % bytes != 0) {
    refuse("the source is not at a multiple of " + std::to_string(bytes) + " bytes");
  }
  if (block.is_shared(global, 1)) refuse("the source is shared memory");
  if (SIMT_ASAN) {  // here, with the line of the copy, and not of the wait
    for (int i = 0; i < source_bytes; ++i) (void)static_cast<const volatile char*>(global)[i];
  }
  block.async_copies().issue({shared, global, bytes, static_cast<unsigned>(source_bytes), site},
                             block.async_landing());
}

void async_commit() {
  const checkers::Quiet quiet;
  current_thread->block->async_copies().commit();
}

void async_wait(std::size_t groups_left) {
  const checkers::Quiet quiet;
  const checkers::CalledFrom kernel(__builtin_return_address(0));
  Block& block = *current_thread->block;
  block.async_copies().wait(groups_left, block.async_landing());
}

void async_wait_all() {
  const checkers::Quiet quiet;
  const checkers::CalledFrom kernel(__builtin_return_address(0));
  Block& block = *current_thread->block;
  block.async_copies().commit();
  block.async_copies().wait(0, block.async_landing());
}

}  // namespace simt

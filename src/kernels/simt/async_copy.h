// The asynchronous copies of one thread, from their issue to its waiting for them.
#pragma once

#include <cstddef>
#include <vector>

#include "runtime.h"

namespace simt {

struct AsyncCopy {
  void* target;
  const void* source;
  unsigned bytes, source_bytes;  // zeros after `source_bytes`
  Site site;
};

class AsyncCopies {
 public:
  void issue(const AsyncCopy& copy, AsyncLanding landing);
  void commit() { group_ends_.push_back(pending_.size()); }
  // Until at most `groups_left` groups are pending.
  void wait(std::size_t groups_left, AsyncLanding landing);

  const std::vector<AsyncCopy>& pending() const { return pending_; }

 private:
  std::vector<AsyncCopy> pending_;        // in the order of their issue
  std::vector<std::size_t> group_ends_;  // how many of them belong to this group and those before it
};

}  // namespace simt

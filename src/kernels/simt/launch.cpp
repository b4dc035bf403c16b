// The grid: launch limits, the order of the blocks, options.
#include <atomic>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>

#include "block.h"

namespace simt {

namespace {

uint64_t order_from_environment() {
  const char* text = std::getenv("SIMT_ORDER");
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const uint64_t order = std::strtoull(text, &end, 10);
  if (*end != '\0' || *text == '-') {
    throw std::runtime_error(std::string("SIMT_ORDER is '") + text +
                             "', expected 0 (forward), 1 (reverse) or a seed");
  }
  return order;
}

std::atomic<uint64_t>& global_order() {
  static std::atomic<uint64_t> order{order_from_environment()};
  return order;
}

// Finalizer of SplitMix64: neighbouring seeds give unrelated streams.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

[[noreturn]] void refuse(const std::string& why) {
  throw std::runtime_error("invalid launch: " + why);
}

void check_limits(const Launch& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  if (current_thread != nullptr) refuse("a kernel launches a kernel");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) refuse("empty grid " + to_string(grid));
  if (grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535) {
    refuse("grid " + to_string(grid) + " exceeds (2147483647,65535,65535)");
  }
  if (block.x == 0 || block.y == 0 || block.z == 0) refuse("empty block " + to_string(block));
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || threads > kMaxBlockThreads) {
    refuse("block " + to_string(block) + " exceeds (1024,1024,64) or " +
           std::to_string(kMaxBlockThreads) + " threads");
  }
  if (launch.dynamic_smem > kMaxSmem) {
    refuse(std::to_string(launch.dynamic_smem) + " bytes of dynamic shared memory; the limit is " +
           std::to_string(kMaxSmem));
  }
}

void run_blocks(const Launch& launch) {
  check_limits(launch);
  const dim3 grid = launch.grid;
  const uint64_t order = options().order;
  const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
  // Random order: steps of a stride that has no factor in common with the count meet every block.
  uint64_t at = order == 1 ? count - 1 : 0;
  uint64_t stride = order == 1 ? count - 1 : 1;
  if (order > 1) {
    at = mix(order) % count;
    stride = mix(order + 1) % count;
    while (std::gcd(stride, count) != 1) ++stride;
  }
  Block& block = Block::of_this_os_thread();
  for (uint64_t i = 0; i < count; ++i) {
    const uint3 block_idx = {static_cast<unsigned>(at % grid.x),
                             static_cast<unsigned>(at / grid.x % grid.y),
                             static_cast<unsigned>(at / (uint64_t{grid.x} * grid.y))};
    block.run(launch, block_idx, order, mix(order ^ mix(at)));
    at = (at + stride) % count;
  }
}

}  // namespace

Options options() { return {global_order().load()}; }
void set_options(const Options& options) { global_order().store(options.order); }

void run_grid(const Launch& launch) {
  try {
    run_blocks(launch);
  } catch (const std::exception& error) {
    const std::string kernel = *launch.name != '\0' ? launch.name : "kernel";
    throw std::runtime_error(kernel + ": " + error.what());
  }
}

}  // namespace simt

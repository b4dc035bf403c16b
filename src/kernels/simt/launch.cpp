// The grid: launch limits, arguments, the order of the blocks, options, the log.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>

#include "block.h"
#include "memory.h"

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

AsyncLanding async_from_environment() {
  const char* text = std::getenv("SIMT_ASYNC");
  const std::string landing = text == nullptr || *text == '\0' ? "late" : text;
  if (landing != "late" && landing != "early") {
    throw std::runtime_error("SIMT_ASYNC is '" + landing + "', expected late or early");
  }
  return landing == "late" ? AsyncLanding::kLate : AsyncLanding::kEarly;
}

std::atomic<AsyncLanding>& global_async() {
  static std::atomic<AsyncLanding> async{async_from_environment()};
  return async;
}

std::atomic<uint64_t>& global_order() {
  static std::atomic<uint64_t> order{order_from_environment()};
  return order;
}

// Largest shared memory of a block, after the opt-in: CUDA programming guide, technical
// specifications.
constexpr Architecture kArchitectures[] = {
    {"sm_75", 64 << 10},   {"sm_80", 163 << 10},  {"sm_86", 99 << 10},
    {"sm_87", 163 << 10},  {"sm_89", 99 << 10},   {"sm_90", 227 << 10},
    {"sm_100", 227 << 10}, {"sm_103", 227 << 10}, {"sm_120", 99 << 10}};

const Architecture& architecture_from_environment() {
  const char* name = std::getenv("SIMT_ARCH");
  return architecture(name == nullptr || *name == '\0' ? "sm_90" : name);
}

std::atomic<const Architecture*>& global_architecture() {
  static std::atomic<const Architecture*> chosen{&architecture_from_environment()};
  return chosen;
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
  const Architecture& arch = *options().architecture;
  if (launch.dynamic_smem > arch.max_smem) {
    refuse(std::to_string(launch.dynamic_smem) + " bytes of dynamic shared memory; the limit of " +
           arch.name + " is " + std::to_string(arch.max_smem));
  }
}

void check_arguments(const Launch& launch) {
  for (size_t i = 0; i < launch.reach_count; ++i) {
    const Reach& reach = launch.reaches[i];
    const std::string problem = launch.memory == Memory::kDevice ? problem_of_device_memory(reach)
                                                                 : problem_of_callers_memory(reach);
    if (!problem.empty()) refuse("argument " + std::to_string(reach.argument) + " is " + problem);
  }
}

// A line for every launch, "kernel grid block dynamic shared bytes", in the file that SIMT_LAUNCHES names just then.
void log_launch(const Launch& launch) {
  const char* const path = std::getenv("SIMT_LAUNCHES");
  if (path == nullptr) return;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::ofstream(path, std::ios::app) << launch.name << '\t' << to_string(launch.grid) << '\t' << to_string(launch.block) << '\t'
                                     << launch.dynamic_smem << '\n';
}

void run_blocks(const Launch& launch) {
  const checkers::Quiet quiet;
  check_limits(launch);
  check_arguments(launch);
  log_launch(launch);
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
  // The launch comes after what the host has done, and before what it does then; blocks of one
  // launch have no order.
  struct InHostsOrder {
    const Launch& launch;
    explicit InHostsOrder(const Launch& launch) : launch(launch) {
      checkers::release(&launch.began);
    }
    ~InHostsOrder() { checkers::acquire(&launch.ended); }
  } in_hosts_order(launch);
  for (uint64_t i = 0; i < count; ++i) {
    const uint3 block_idx = {static_cast<unsigned>(at % grid.x),
                             static_cast<unsigned>(at / grid.x % grid.y),
                             static_cast<unsigned>(at / (uint64_t{grid.x} * grid.y))};
    block.run(launch, block_idx, order, mix(order ^ mix(at)));
    at = (at + stride) % count;
  }
}

}  // namespace

Options options() {
  return {global_order().load(), global_architecture().load(), global_async().load()};
}
void set_options(const Options& options) {
  global_order().store(options.order);
  global_architecture().store(options.architecture ? options.architecture
                                                   : &architecture_from_environment());
  global_async().store(options.async);
}

const Architecture& architecture(const char* name) {
  std::string known;
  for (const Architecture& arch : kArchitectures) {
    if (std::strcmp(arch.name, name) == 0) return arch;
    known += std::string(known.empty() ? "" : ", ") + arch.name;
  }
  throw std::runtime_error(std::string("SIMT_ARCH is '") + name + "', expected one of " + known);
}

// g++: "... [with auto kernel = lrn_forward_kernel<false, float>]"; clang++: "... [kernel =
// &convnet::lrn_..."
std::string kernel_name_in(const char* pretty_function) {
  std::string name = pretty_function;
  name = name.substr(name.find("kernel = ") + std::strlen("kernel = "));
  name.resize(name.rfind(']'));
  for (const char* noise : {"&", "convnet::", "{anonymous}::", "(anonymous namespace)::"}) {
    for (size_t at; (at = name.find(noise)) != std::string::npos;)
      name.erase(at, std::strlen(noise));
  }
  return name;
}

void run_grid(const Launch& launch) {
  try {
    run_blocks(launch);
  } catch (const std::exception& error) {
    const std::string kernel = *launch.name != '\0' ? launch.name : "kernel";
    throw std::runtime_error(kernel + ": " + error.what());
  }
}

}  // namespace simt

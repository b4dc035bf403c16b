#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "../runtime.h"
#include "checkers.h"

namespace simt {

namespace {

struct Allocations {
  std::mutex mutex;
  std::map<uintptr_t, size_t> bytes_at;
};
Allocations& allocations() {
  static Allocations all;
  return all;
}

std::string hexadecimal(uintptr_t address) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%zx", size_t{address});
  return text;
}

std::string text_of(const Reach& reach) {
  return std::to_string(reach.bytes) + " bytes at " +
         hexadecimal(reinterpret_cast<uintptr_t>(reach.begin));
}

bool is_mapped(uintptr_t address) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(address / page * page), 1, &resident) == 0 ||
         errno != ENOMEM;
}

}  // namespace

std::string problem_of_device_memory(const Reach& reach) {
  const auto begin = reinterpret_cast<uintptr_t>(reach.begin);
  if (begin == 0 || reach.bytes == 0) return "";
  Allocations& all = allocations();
  const std::lock_guard lock(all.mutex);
  auto after = all.bytes_at.upper_bound(begin);
  if (after != all.bytes_at.begin()) {
    const auto& [start, bytes] = *--after;
    if (begin < start + bytes) {
      if (reach.bytes <= start + bytes - begin) return "";
      return text_of(reach) + ", which is " + std::to_string(begin - start) +
             " bytes into an allocation of " + std::to_string(bytes);
    }
  }
  return text_of(reach) + ", which is in no allocation of the device";
}

std::string problem_of_callers_memory(const Reach& reach) {
  const auto begin = reinterpret_cast<uintptr_t>(reach.begin);
  if (begin == 0 || reach.bytes == 0) return "";
  if (is_mapped(begin) && is_mapped(begin + reach.bytes - 1)) return "";
  return text_of(reach) + ", where there is no memory";
}

}  // namespace simt

namespace convnet {

// Not a byte more than asked for: AddressSanitizer finds what reaches further.
std::uintptr_t allocate(int, std::int64_t bytes) {
  void* memory = nullptr;
  const std::size_t size = bytes > 0 ? std::size_t(bytes) : 1;
  if (posix_memalign(&memory, 64, size) != 0) throw std::bad_alloc();
  std::memset(memory, 0, size);
  const auto ptr = reinterpret_cast<std::uintptr_t>(memory);
  const simt::checkers::Quiet quiet;
  simt::Allocations& all = simt::allocations();
  const std::lock_guard lock(all.mutex);
  all.bytes_at[ptr] = size;
  return ptr;
}

void release(int, std::uintptr_t ptr) {
  {
    const simt::checkers::Quiet quiet;
    simt::Allocations& all = simt::allocations();
    const std::lock_guard lock(all.mutex);
    all.bytes_at.erase(ptr);
  }
  std::free(reinterpret_cast<void*>(ptr));
}

}  // namespace convnet

// Memory of the host backend, in huge pages.
#include <sys/mman.h>
#include <cstdlib>
#include <cstring>
#include <new>
#include "../runtime.h"

namespace convnet {

constexpr std::size_t huge_page = std::size_t(2) << 20;

std::uintptr_t allocate(int, std::int64_t bytes) {
  const std::size_t rounded = (std::size_t(bytes) + huge_page - 1) / huge_page * huge_page;
  void* ptr = std::aligned_alloc(huge_page, rounded ? rounded : huge_page);
  if (!ptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  madvise(ptr, rounded, MADV_HUGEPAGE);
#endif
  std::memset(ptr, 0, rounded);
  return reinterpret_cast<std::uintptr_t>(ptr);
}
void release(int, std::uintptr_t ptr) { std::free(reinterpret_cast<void*>(ptr)); }

}  // namespace convnet

// What the runtime tells AddressSanitizer and ThreadSanitizer, in the builds that are made with
// them.
//
// The race build (-DSIMT_RACE) compiles the kernels with -fsanitize=thread and the runtime without
// it. What the runtime does on a thread's fiber is not the kernel's doing: it is "quiet", even
// where it calls memcpy or malloc, which ThreadSanitizer sees in any code. The kernel itself is
// "loud".
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

#ifdef SIMT_RACE
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
extern "C" void __tsan_read_range(void*, unsigned long);
extern "C" void __tsan_write_range(void*, unsigned long);
extern "C" void __tsan_func_entry(void*);
extern "C" void __tsan_func_exit();
#undef SIMT_RACE
#define SIMT_RACE 1
#else
#define SIMT_RACE 0
#endif

// Code in a header that is the runtime's, though it is compiled with the kernels.
#define SIMT_NOT_CHECKED_FOR_RACES __attribute__((no_sanitize("thread")))

namespace simt::checkers {

#if SIMT_RACE
inline void begin_quiet() { __tsan_ignore_thread_begin(); }
inline void end_quiet() { __tsan_ignore_thread_end(); }
// Happens-before: from all that release a token to those who acquire it later.
inline void release(void* token) { __tsan_release(token); }
inline void acquire(void* token) { __tsan_acquire(token); }
// What an instruction of the running thread does to memory; loud.
inline void reads(const void* p, size_t bytes) { __tsan_read_range(const_cast<void*>(p), bytes); }
inline void writes(void* p, size_t bytes) { __tsan_write_range(p, bytes); }
inline void enter(void* caller) { __tsan_func_entry(caller); }
inline void leave() { __tsan_func_exit(); }
#else
inline void begin_quiet() {}
inline void end_quiet() {}
inline void release(void*) {}
inline void acquire(void*) {}
inline void reads(const void*, size_t) {}
inline void writes(void*, size_t) {}
inline void enter(void*) {}
inline void leave() {}
#endif

struct Quiet {
  Quiet() { begin_quiet(); }
  ~Quiet() { end_quiet(); }
  Quiet(const Quiet&) = delete;
};
struct Loud {
  Loud() { end_quiet(); }
  ~Loud() { begin_quiet(); }
  Loud(const Loud&) = delete;
};

// That the runtime was called from there, by code whose returns ThreadSanitizer knows: or a report
// has no line of the kernel for what the runtime does in its name.
struct CalledFrom {
  explicit CalledFrom(void* caller) { enter(caller); }
  ~CalledFrom() { leave(); }
  CalledFrom(const CalledFrom&) = delete;
};

// Memory that no one may touch, and memory that one may again.
#if SIMT_ASAN
inline void forbid(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void permit(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
inline void forbid(const void*, size_t) {}
inline void permit(const void*, size_t) {}
#endif

}  // namespace simt::checkers

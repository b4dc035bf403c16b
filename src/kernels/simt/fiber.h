// A stack and a place on it: what a CUDA thread needs to wait in the middle of a kernel.
#pragma once

#include <cstddef>
#include <string>

#include "checkers.h"

extern "C" void simt_switch_stack(void** save_stack_pointer, void* stack_pointer);

namespace simt {

// A thread as ThreadSanitizer knows it: races are between identities. Nothing in other builds.
class Identity {
 public:
  Identity() = default;  // none yet
  Identity(const Identity&) = delete;
  ~Identity() { destroy(); }

  // A new one. It comes after all that the creating identity has done, so only the host creates
  // them.
  void create();
  void destroy();
  void adopt_current();  // the OS thread's own
  void become_current() const;
  void set_name(const std::string& name) const;  // for reports

 private:
  void* tsan_fiber_ = nullptr;
  bool owned_ = false;
};

class Fiber {
 public:
  using Entry = void (*)(void* argument);  // must not return

  Fiber() = default;  // stands for the OS thread's own stack
  Fiber(size_t index, Entry entry, void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber start anew at its entry. What was on its stack is forgotten, not unwound.
  void rewind();

  // Leaves `from`, which must be the running fiber, and goes on where `to` was left. Both are
  // quiet; an identity that is left is not, so that it can be destroyed.
  static void switch_fibers(Fiber& from, Fiber& to);
  void wear(const Identity& identity) { identity_ = &identity; }
  const Identity& identity() const { return *identity_; }
  void wear(const Fiber& other) { identity_ = other.identity_; }

  // What a fiber does first. `host`: the fiber that stands for the OS thread.
  static void enter(Fiber& host);

 private:
  void* stack_pointer_ = nullptr;
  char* memory_ = nullptr;  // guard page, then the stack
  char* top_ = nullptr;
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  const Identity* identity_ = nullptr;
  void* stack_ = nullptr;  // as AddressSanitizer wants to know it
  size_t stack_bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace simt

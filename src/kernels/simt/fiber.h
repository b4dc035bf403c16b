// A stack and a place on it: what a CUDA thread needs to wait in the middle of a kernel.
#pragma once

#include <cstddef>

extern "C" void simt_switch_stack(void** save_stack_pointer, void* stack_pointer);

namespace simt {

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

  // Leaves `from`, which must be the running fiber, and goes on where `to` was left.
  static void switch_fibers(Fiber& from, Fiber& to) {
    simt_switch_stack(&from.stack_pointer_, to.stack_pointer_);
  }

 private:
  void* stack_pointer_ = nullptr;
  char* memory_ = nullptr;  // guard page, then the stack
  char* top_ = nullptr;
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
};

}  // namespace simt

#include "fiber.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

// The switch: push the registers that a call must preserve, exchange stack pointers, pop. A barrier
// costs 8 to 20 ns a thread with it; swapcontext of the C library makes two system calls and takes
// 334 ns a switch. A new fiber's stack starts with a frame that "returns" into the trampoline,
// which calls entry(argument). The trampoline ends the call stack for debuggers and exceptions
// (cfi_undefined). The code for aarch64 has been assembled, never run.
extern "C" void simt_trampoline();

#if defined(__x86_64__)

asm(R"(
.text
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack

.globl simt_trampoline
.hidden simt_trampoline
.type simt_trampoline, @function
simt_trampoline:
  .cfi_startproc
  .cfi_undefined rip
  movq %r12, %rdi
  xorl %ebp, %ebp
  callq *%r13
  ud2
  .cfi_endproc
.size simt_trampoline, .-simt_trampoline
)");

static void* first_frame(char* top, void (*entry)(void*), void* argument) {
  // r15 r14 r13 r12 rbx rbp, return address, two words so that the stack is aligned at the call
  void** frame = reinterpret_cast<void**>(top) - 9;
  std::memset(frame, 0, 9 * sizeof(void*));
  frame[2] = reinterpret_cast<void*>(entry);
  frame[3] = argument;
  frame[6] = reinterpret_cast<void*>(simt_trampoline);
  return frame;
}

#elif defined(__aarch64__)

asm(R"(
.text
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack, %function
simt_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size simt_switch_stack, .-simt_switch_stack

.globl simt_trampoline
.hidden simt_trampoline
.type simt_trampoline, %function
simt_trampoline:
  .cfi_startproc
  .cfi_undefined x30
  mov x0, x19
  mov x29, #0
  blr x20
  brk #1
  .cfi_endproc
.size simt_trampoline, .-simt_trampoline
)");

static void* first_frame(char* top, void (*entry)(void*), void* argument) {
  void** frame = reinterpret_cast<void**>(top - 160);
  std::memset(frame, 0, 160);
  frame[0] = argument;
  frame[1] = reinterpret_cast<void*>(entry);
  frame[11] = reinterpret_cast<void*>(simt_trampoline);
  return frame;
}

#else
#error "simt: simt_switch_stack is written for x86-64 and aarch64 only"
#endif

namespace simt {

namespace {
constexpr size_t kStackBytes = 256 << 10;  // address space: only pages that are used cost memory
constexpr size_t kGuardBytes = 64 << 10;   // one page of the largest kind on aarch64
}  // namespace

Fiber::Fiber(size_t index, Entry entry, void* argument) : entry_(entry), argument_(argument) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  if (mprotect(memory_, kGuardBytes, PROT_NONE) != 0) {  // an overflow faults
    munmap(memory_, kGuardBytes + kStackBytes);
    throw std::bad_alloc();
  }
  // Neighbours start at different offsets in the page: at equal ones their frames would compete for
  // the same few sets of the L1 cache.
  top_ = memory_ + kGuardBytes + kStackBytes - index * 320 % 4096;
  stack_ = memory_ + kGuardBytes;
  stack_bytes_ = static_cast<size_t>(top_ - static_cast<char*>(stack_));
  rewind();
}

Fiber::~Fiber() {
  if (memory_ == nullptr) return;
  checkers::permit(stack_, stack_bytes_);
  munmap(memory_, kGuardBytes + kStackBytes);
}

void Fiber::rewind() {
  checkers::permit(stack_, stack_bytes_);
#if SIMT_RACE  // new memory: another identity may come here
  mmap(stack_, kStackBytes, PROT_READ | PROT_WRITE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
#endif
  fake_stack_ = nullptr;
  stack_pointer_ = first_frame(top_, entry_, argument_);
}

void Fiber::switch_fibers(Fiber& from, Fiber& to) {
#if SIMT_RACE
  checkers::end_quiet();
  to.identity_->become_current();
#endif
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_, to.stack_bytes_);
#endif
  simt_switch_stack(&from.stack_pointer_, to.stack_pointer_);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
  checkers::begin_quiet();
}

void Fiber::enter([[maybe_unused]] Fiber& host) {
#if SIMT_ASAN
  const void* left;
  size_t left_bytes;
  __sanitizer_finish_switch_fiber(nullptr, &left, &left_bytes);
  if (host.stack_ == nullptr) {  // the first fiber of all is entered from there
    host.stack_ = const_cast<void*>(left);
    host.stack_bytes_ = left_bytes;
  }
#endif
  checkers::begin_quiet();
}

#if SIMT_RACE
void Identity::create() {
  destroy();
  tsan_fiber_ = __tsan_create_fiber(0);
  owned_ = true;
}
void Identity::destroy() {
  if (owned_) __tsan_destroy_fiber(tsan_fiber_);
  tsan_fiber_ = nullptr;
  owned_ = false;
}
void Identity::adopt_current() {
  destroy();
  tsan_fiber_ = __tsan_get_current_fiber();
}
void Identity::become_current() const {
  __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
}
void Identity::set_name(const std::string& name) const {
  __tsan_set_fiber_name(tsan_fiber_, name.c_str());
}
#else
void Identity::create() {}
void Identity::destroy() {}
void Identity::adopt_current() {}
void Identity::become_current() const {}
void Identity::set_name(const std::string&) const {}
#endif

}  // namespace simt

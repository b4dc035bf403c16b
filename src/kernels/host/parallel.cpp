// The threads of host queues.
#include "parallel.h"
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace convnet {

// A loop is over when its tasks are done, not when every helper has seen it: one that sleeps takes longer to wake than a
// small loop to run.
struct ThreadPool::Shared {
  std::vector<std::thread> helpers;
  std::atomic<std::uint32_t> generation{0};  // one more for each loop, and for the end
  std::atomic<std::int64_t> left{0};         // tasks that nobody has taken
  std::atomic<std::int64_t> undone{0};       // tasks that are not finished
  // Of the current loop. Who has taken a task may read them: till that is done the loop is not over.
  std::int64_t tasks = 0;
  const std::function<void(std::int64_t, int)>* body = nullptr;
  std::atomic<bool> stopping{false};
  std::mutex one_loop_at_a_time;             // the default queue may be used by several Python threads

  void work(int thread) {
    for (std::int64_t mine = left.load(std::memory_order_relaxed); mine > 0;) {
      if (!left.compare_exchange_weak(mine, mine - 1, std::memory_order_acquire, std::memory_order_relaxed)) continue;
      (*body)(tasks - mine, thread);
      if (undone.fetch_sub(1, std::memory_order_acq_rel) == 1) undone.notify_one();
      mine = left.load(std::memory_order_relaxed);
    }
  }

  // Spinning for some microseconds saves a system call between the loops of an op; longer would steal
  // the core from whoever else is on the machine.
  template <class T>
  static void wait_while_equal(std::atomic<T>& value, T old) {
    for (int i = 0; i < 2000; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
  }
};

ThreadPool::ThreadPool(int threads) : shared_(std::make_unique<Shared>()) {
  for (int thread = 1; thread < threads; ++thread)
    shared_->helpers.emplace_back([shared = shared_.get(), thread] {
      for (std::uint32_t seen = 0;;) {
        Shared::wait_while_equal(shared->generation, seen);
        seen = shared->generation.load(std::memory_order_acquire);
        if (shared->stopping.load(std::memory_order_relaxed)) return;
        shared->work(thread);
      }
    });
}

ThreadPool::~ThreadPool() {
  shared_->stopping.store(true, std::memory_order_relaxed);
  shared_->generation.fetch_add(1, std::memory_order_release);
  shared_->generation.notify_all();
  for (auto& helper : shared_->helpers) helper.join();
}

int ThreadPool::threads() const { return int(shared_->helpers.size()) + 1; }

void ThreadPool::run(std::int64_t tasks, const std::function<void(std::int64_t, int)>& body) {
  const std::lock_guard lock(shared_->one_loop_at_a_time);
  shared_->tasks = tasks;
  shared_->body = &body;
  shared_->undone.store(tasks, std::memory_order_relaxed);
  shared_->left.store(tasks, std::memory_order_release);
  shared_->generation.fetch_add(1, std::memory_order_release);
  shared_->generation.notify_all();
  shared_->work(0);
  for (std::int64_t undone; (undone = shared_->undone.load(std::memory_order_acquire)) > 0;) Shared::wait_while_equal(shared_->undone, undone);
}

}  // namespace convnet

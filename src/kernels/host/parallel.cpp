// The threads of host queues.
#include "parallel.h"
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace convnet {

struct ThreadPool::Shared {
  std::vector<std::thread> helpers;
  std::atomic<std::uint32_t> generation{0};  // one more for each loop, and for the end
  std::atomic<int> busy{0};                  // helpers that have not finished the current loop
  std::atomic<std::int64_t> next{0};
  std::int64_t tasks = 0;
  const std::function<void(std::int64_t, int)>* body = nullptr;
  bool stopping = false;
  std::mutex one_loop_at_a_time;             // the default queue may be used by several Python threads

  void work(int thread) {
    for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) (*body)(task, thread);
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
        ++seen;
        if (shared->stopping) return;
        shared->work(thread);
        if (shared->busy.fetch_sub(1, std::memory_order_acq_rel) == 1) shared->busy.notify_one();
      }
    });
}

ThreadPool::~ThreadPool() {
  shared_->stopping = true;
  shared_->generation.fetch_add(1, std::memory_order_release);
  shared_->generation.notify_all();
  for (auto& helper : shared_->helpers) helper.join();
}

int ThreadPool::threads() const { return int(shared_->helpers.size()) + 1; }

void ThreadPool::run(std::int64_t tasks, const std::function<void(std::int64_t, int)>& body) {
  const std::lock_guard lock(shared_->one_loop_at_a_time);
  shared_->tasks = tasks;
  shared_->body = &body;
  shared_->next.store(0, std::memory_order_relaxed);
  shared_->busy.store(int(shared_->helpers.size()), std::memory_order_relaxed);
  shared_->generation.fetch_add(1, std::memory_order_release);
  shared_->generation.notify_all();
  shared_->work(0);
  for (int left; (left = shared_->busy.load(std::memory_order_acquire)) > 0;) Shared::wait_while_equal(shared_->busy, left);
}

}  // namespace convnet

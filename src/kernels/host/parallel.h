// Cores of a queue, shared by the loop iterations of an op.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include "../tensor.h"

namespace convnet {

// A fixed set of threads that run the tasks of one loop at a time, in any order: so a task may write
// only what no other task reads or writes, and no sum may be split by thread.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // the calling thread counts as one
  ~ThreadPool();
  int threads() const;
  void run(std::int64_t tasks, const std::function<void(std::int64_t task, int thread)>& body);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// The pool of a queue; the default queue's has all cores.
ThreadPool& pool_of(Stream stream);

inline int thread_count(Stream stream) { return pool_of(stream).threads(); }

// body(task, thread) for every task from 0 to tasks - 1; `thread` tells scratch memories apart.
template <class Body>
void parallel_for(Stream stream, std::int64_t tasks, Body&& body) {
  if (tasks == 1) body(std::int64_t(0), 0);
  else if (tasks > 1) pool_of(stream).run(tasks, body);
}

}  // namespace convnet

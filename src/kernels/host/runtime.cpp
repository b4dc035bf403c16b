// The runtime of host and simt: a device is a worker thread with cores of its own; memory is the machine's. What is
// allocated, the two have of their own: memory.cpp here, and simt/memory.cpp.
#include "../runtime.h"
#include <unistd.h>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>
#include "parallel.h"

namespace convnet {

namespace {

struct Graph;

// A queue of ops and the thread that runs them in order. After an op has failed the rest is dropped until the failure
// has been reported; but events pass, or a queue that waits for one would wait for ever.
class Queue {
 public:
  explicit Queue(int threads) : pool(threads), worker_([this] { work(); }) {}

  ~Queue() {
    push(nullptr);
    worker_.join();
  }

  struct Item {
    std::function<void()> op;  // none: the end
    bool always;
  };

  void push(std::function<void()> op, bool always = false) {
    {
      const std::lock_guard lock(mutex_);
      given().push_back({std::move(op), always});
    }
    changed_.notify_all();
  }

  void synchronize() {
    std::unique_lock lock(mutex_);
    if (graph_) throw std::runtime_error("stream_synchronize: the queue is being captured: nothing of it runs before graph_launch");
    changed_.wait(lock, [this] { return ops_.empty() && idle_; });
    if (const auto failure = std::exchange(failure_, nullptr)) std::rethrow_exception(failure);
  }

  // The graph that it is captured for, or none.
  Graph* graph() {
    const std::lock_guard lock(mutex_);
    return graph_;
  }
  void capture(Graph* graph) {
    const std::lock_guard lock(mutex_);
    graph_ = graph;
  }

  // In the queue's own thread.
  void attempt(const Item& item) {
    if (failure_ && !item.always) return;
    try {
      item.op();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
  }

  ThreadPool pool;

 private:
  std::deque<Item>& given();

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      idle_ = true;
      if (ops_.empty()) changed_.notify_all();
      changed_.wait(lock, [this] { return !ops_.empty(); });
      idle_ = false;
      const Item item = std::move(ops_.front());
      ops_.pop_front();
      lock.unlock();
      if (!item.op) return;
      attempt(item);
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> ops_;
  bool idle_ = true;
  std::exception_ptr failure_;  // set by the thread, taken while it is idle
  Graph* graph_ = nullptr;
  std::thread worker_;  // last: it starts when everything else is there
};

// Passed when `seen` has reached the number of times it was recorded.
struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t recorded = 0, seen = 0;
  std::chrono::steady_clock::time_point time;

  void pass(std::uint64_t number) {
    {
      const std::lock_guard lock(mutex);
      seen = number;
      time = std::chrono::steady_clock::now();
    }
    changed.notify_all();
  }
  void wait(std::uint64_t number) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return seen >= number; });
  }
};

// What queues were given while they were captured.
struct Graph {
  struct Share {
    std::deque<Queue::Item> items;
    std::uint64_t launch = 0;  // which one runs: a number of the queue's thread alone
  };
  std::map<Queue*, Share> shares;
  // Passed once a launch each. What the caller's event stands for changes as it is recorded again.
  std::deque<Event> events;
  std::map<std::uintptr_t, Event*> recorded;
};

std::deque<Queue::Item>& Queue::given() { return graph_ ? graph_->shares.at(this).items : ops_; }

// The queues of a graph are captured while it lives.
class Capture {
 public:
  explicit Capture(Graph& graph) : graph_(graph) {
    for (auto& [queue, share] : graph_.shares) queue->capture(&graph_);
  }
  Capture(const Capture&) = delete;
  ~Capture() {
    for (auto& [queue, share] : graph_.shares) queue->capture(nullptr);
  }

 private:
  Graph& graph_;
};

// A launch that is under way outlives its handle.
using GraphHandle = std::shared_ptr<Graph>;
GraphHandle* handle_of(std::uintptr_t graph) { return reinterpret_cast<GraphHandle*>(graph); }

Queue* queue_of(Stream stream) { return reinterpret_cast<Queue*>(stream.handle); }
Event& event_of(std::uintptr_t event) { return *reinterpret_cast<Event*>(event); }
Graph* capturing(Stream stream) { return stream.handle ? queue_of(stream)->graph() : nullptr; }

}  // namespace

ThreadPool& pool_of(Stream stream) {
  static ThreadPool all_cores(int(std::thread::hardware_concurrency()));
  return stream.handle ? queue_of(stream)->pool : all_cores;
}

int device_count() { return 0; }
std::string device_name(int) { return "CPU, " + std::to_string(std::thread::hardware_concurrency()) + " cores"; }

std::int64_t free_memory(int) {
  // MemAvailable counts what the page cache would give back; sysconf does not.
  std::int64_t kib = 0;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    while (std::fgets(line, sizeof line, file))
      if (std::sscanf(line, "MemAvailable: %ld kB", &kib) == 1) break;
    std::fclose(file);
  }
  return kib ? kib << 10 : total_memory(0);
}
std::int64_t total_memory(int) { return std::int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE); }

Stream stream_create(int device, int threads) {
  return {device, reinterpret_cast<std::uintptr_t>(new Queue(threads < 1 ? 1 : threads))};
}
void stream_destroy(Stream stream) { delete queue_of(stream); }
void stream_synchronize(Stream stream) {
  if (stream.handle) queue_of(stream)->synchronize();
}

std::uintptr_t event_create(int) { return reinterpret_cast<std::uintptr_t>(new Event); }
void event_destroy(std::uintptr_t event) { delete &event_of(event); }

void event_record(Stream stream, std::uintptr_t event) {
  if (Graph* const graph = capturing(stream)) {
    Event& own = *(graph->recorded[event] = &graph->events.emplace_back());
    queue_of(stream)->push([&own, &share = graph->shares.at(queue_of(stream))] { own.pass(share.launch); }, /*always=*/true);
    return;
  }
  std::uint64_t number;
  {
    const std::lock_guard lock(event_of(event).mutex);
    number = ++event_of(event).recorded;
  }
  const auto pass = [event, number] { event_of(event).pass(number); };
  if (stream.handle) queue_of(stream)->push(pass, /*always=*/true);
  else pass();
}

void event_wait(Stream stream, std::uintptr_t event) {
  if (Graph* const graph = capturing(stream)) {
    const auto found = graph->recorded.find(event);
    if (found == graph->recorded.end()) throw std::runtime_error("event_wait: the queue is being captured, and the event was not recorded in this graph");
    queue_of(stream)->push([own = found->second, &share = graph->shares.at(queue_of(stream))] { own->wait(share.launch); });
    return;
  }
  std::uint64_t number;
  {
    const std::lock_guard lock(event_of(event).mutex);
    number = event_of(event).recorded;
  }
  submit(stream, [event, number] { event_of(event).wait(number); });
}

double event_seconds(std::uintptr_t first, std::uintptr_t last) {
  return std::chrono::duration<double>(event_of(last).time - event_of(first).time).count();
}

void copy_bytes(Stream stream, std::uintptr_t destination, int, std::uintptr_t source, int, std::int64_t bytes) {
  submit(stream, [=] { std::memcpy(reinterpret_cast<void*>(destination), reinterpret_cast<const void*>(source), std::size_t(bytes)); });
}

void upload(Stream stream, std::uintptr_t destination, const void* source, std::int64_t bytes) {
  stream_synchronize(stream);
  std::memcpy(reinterpret_cast<void*>(destination), source, std::size_t(bytes));
}

void download(Stream stream, void* destination, std::uintptr_t source, std::int64_t bytes) {
  stream_synchronize(stream);
  std::memcpy(destination, reinterpret_cast<const void*>(source), std::size_t(bytes));
}

void submit(Stream stream, std::function<void()> op) {
  if (stream.handle) queue_of(stream)->push(std::move(op));
  else op();
}

std::uintptr_t graph_capture(const std::vector<Stream>& streams, const std::function<void()>& body) {
  auto graph = std::make_unique<GraphHandle>(std::make_shared<Graph>());
  for (const Stream stream : streams) {
    if (!stream.handle) throw std::runtime_error("graph_capture: the default queue runs at once and cannot be captured");
    if (capturing(stream)) throw std::runtime_error("graph_capture: the queue is being captured already");
    (*graph)->shares[queue_of(stream)];
  }
  {
    const Capture capture(**graph);
    body();
  }
  return reinterpret_cast<std::uintptr_t>(graph.release());
}

void graph_launch(std::uintptr_t graph) {
  static std::mutex launching;  // all queues see the launches of all graphs in the same order, or two would wait for each other
  const GraphHandle launched = *handle_of(graph);
  const std::lock_guard lock(launching);
  for (auto& [queue, share] : launched->shares) {
    const auto run = [launched, queue = queue, &share = share] {
      ++share.launch;
      for (const Queue::Item& item : share.items) queue->attempt(item);
    };
    queue->push(run, /*always=*/true);
  }
}

void graph_destroy(std::uintptr_t graph) { delete handle_of(graph); }

double measure_bandwidth(Stream stream) {
  // Larger than any cache; the copy is made by all cores of the queue, the best of five.
  constexpr std::int64_t bytes = std::int64_t(256) << 20, slice = std::int64_t(1) << 20;
  const std::uintptr_t source = allocate(stream.device, bytes), destination = allocate(stream.device, bytes);
  std::memset(reinterpret_cast<void*>(source), 1, bytes);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(stream, bytes / slice, [&](std::int64_t task, int) {
      std::memcpy(reinterpret_cast<char*>(destination) + task * slice, reinterpret_cast<const char*>(source) + task * slice, slice);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2 * bytes / seconds);
  }
  release(stream.device, source);
  release(stream.device, destination);
  return best;
}

}  // namespace convnet

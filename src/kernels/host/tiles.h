// How conv and fc cut tensors into tiles, and bring them into the order of the inner loop
// (microkernel.h).
#pragma once
#include <algorithm>
#include <vector>

#include "../tensor.h"
#include "loops.h"
#include "microkernel.h"
#include "parallel.h"

namespace convnet {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Block {
  int first, count;
};

// 0 to count - 1 in as few blocks of at most `most` as possible, as equal as possible.
inline std::vector<Block> equal_blocks(int count, int most) {
  std::vector<Block> blocks;
  const int number = int(ceil_div(count, most));
  for (int i = 0, first = 0; i < number; ++i) {
    blocks.push_back({first, int(ceil_div(count - first, number - i))});
    first += blocks.back().count;
  }
  return blocks;
}

// Elements of rows that lie in the lanes of 1, 2, 4 or 8 vectors.
struct LaneBlock {
  int first, count, vectors;
};

// 0 to count - 1 in blocks of `widest` vectors, and what is left in ever smaller ones: lanes are
// idle in the last vector only.
template <class T>
std::vector<LaneBlock> lane_blocks(int count, int widest) {
  std::vector<LaneBlock> blocks;
  for (int first = 0; first < count;) {
    const int left = int(ceil_div(count - first, simd::lanes<T>));
    while (widest > left) widest /= 2;
    blocks.push_back({first, std::min(count - first, widest * simd::lanes<T>), widest});
    first += widest * simd::lanes<T>;
  }
  return blocks;
}

// Vectors of a tile: more than two where few rows would leave registers empty.
template <class T>
int widest_tile(int rows, int images) {
  const int vectors = int(ceil_div(images, simd::lanes<T>));
  int widest = 2;
  while (widest < vectors && rows <= max_rows<T>(2 * widest)) widest *= 2;
  return widest;
}

template <class T>
Microkernel<T> columns_kernel(int rows, int vectors) {
  switch (vectors) {
    case 1:
      return microkernel_of<T, 1, Order::columns>(rows);
    case 2:
      return microkernel_of<T, 2, Order::columns>(rows);
    case 4:
      return microkernel_of<T, 4, Order::columns>(rows);
    default:
      return microkernel_of<T, 8, Order::columns>(rows);
  }
}

// Of two pixels with one vector of images each.
template <class T>
Microkernel<T> pairs_kernel(int rows) {
  return microkernel_of<T, 2, Order::pairs>(rows);
}

template <class T>
Microkernel<T> rows_kernel(int rows, int vectors) {
  return vectors == 1 ? microkernel_of<T, 1, Order::rows>(rows)
                      : microkernel_of<T, 2, Order::rows>(rows);
}

// A tile without gaps on the stack, for what the inner loop cannot store itself.
template <class T>
struct alignas(64) TileBuffer {
  T data[simd::registers * simd::lanes<T>];
};

// `count` elements of a row into `vectors` vectors, the rest of them zero.
template <class T>
ALWAYS_INLINE void copy_lanes(T* target, const T* source, int count, int vectors) {
  using namespace simd;
  for (int j = 0; j < vectors; ++j, count -= lanes<T>) {
    if (count >= lanes<T>)
      store(target + j * lanes<T>, load(source + j * lanes<T>));
    else
      store(target + j * lanes<T>, load_first(source + j * lanes<T>, std::max(count, 0)));
  }
}

template <class T>
void store_lanes(T* target, const T* source, int count, bool add, const Epilogue<T>& epilogue = {},
                 std::int64_t channel = 0) {
  for (int j = 0; j < count; ++j)
    target[j] = epilogue.masked(epilogue(add ? target[j] + source[j] : source[j], channel), target + j);
}

// The epilogue of outputs that are stored, for what does not store them by the inner loop of microkernel.h.
template <class T>
void finish(Stream stream, const Out& outputs, std::int64_t rows_of_channel, const Epilogue<T>& epilogue) {
  if (!epilogue.biases && !epilogue.relu && !epilogue.acts) return;
  const auto rows = rows_of<T>(outputs);
  constexpr std::int64_t rows_at_once = 256;
  parallel_for(stream, ceil_div(rows.rows, rows_at_once), [&](std::int64_t task, int) {
    for (std::int64_t r = task * rows_at_once; r < std::min(rows.rows, (task + 1) * rows_at_once); ++r) {
      T* row = rows.row(r);
      const std::int64_t channel = r / rows_of_channel;
      if (epilogue.acts) relu_row(row, epilogue.acts_at(row), rows.images);
      else for (int n = 0; n < rows.images; ++n) row[n] = epilogue(row[n], channel);
    }
  });
}

// (rows, images) -> (images, width): element n of row(i), a pointer, goes to target[n * width + i].
// Whole vectors are written, and images rounded up to them. What is written beside the rows means
// nothing; where it runs over into the next image it is written over, since that comes later: only
// behind the last one must there be room. What stands `ahead` of each element is fetched.
template <class T, class Row>
void pack_transposed(T* target, int width, int rows, int images, std::int64_t ahead, Row row) {
  using namespace simd;
  constexpr int size = lanes<T>;
  for (int first = (rows - 1) / size * size; first >= 0; first -= size) {
    const T* sources[size];
    for (int i = 0; i < size; ++i) sources[i] = row(std::min(first + i, rows - 1));
    T* column = target + first;
    for (int n = 0; n < images; n += size, column += size * width) {
      Vector<T> square[size];
      if (n + size <= images) {
#pragma GCC unroll 16
        for (int i = 0; i < size; ++i) {
          __builtin_prefetch(sources[i] + n + ahead);
          square[i] = load(sources[i] + n);
        }
      } else {
        // The edge goes through memory: else every square would leave the registers.
        T edge[size * size];
        for (int i = 0; i < size; ++i)
          store(edge + i * size, load_first(sources[i] + n, images - n));
#pragma GCC unroll 16
        for (int i = 0; i < size; ++i) square[i] = load(edge + i * size);
      }
      transpose<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < size; ++i) store(column + i * width, square[i]);
    }
  }
}

// Some pixels of some channels and images that are packed soon. They come from memory in pieces too
// short for the hardware to foresee, so the products before fetch them, four pixels at a time.
template <class T>
struct Ahead {
  const Images<const T>& source;
  int first_channel, channels;
  Block rows, columns;
  int first_image, images;
  int x = 0, n = 0, c = 0, y = 0;

  // Lets a run of products fetch the next of them; false: there are no more.
  bool fetch(Segment<T>& segment) {
    constexpr int piece = 128 / int(sizeof(T));
    if (y >= rows.count) return false;
    segment.prefetch =
        source.row(first_channel + c, rows.first + y, columns.first + x) + first_image + n;
    segment.prefetch_step = source.pitch;
    if ((x += 4) < columns.count) return true;
    x = 0;
    if ((n += piece) < images) return true;
    n = 0;
    if (++c < channels) return true;
    c = 0;
    ++y;
    return true;
  }
};

// Room for packed rows of images is in whole vectors.
template <class T>
constexpr int whole_vectors(int count) {
  return int(ceil_div(count, simd::lanes<T>)) * simd::lanes<T>;
}

// Whether stores past the caches are possible, and the tensor so large that it would not stay there
// anyway.
template <class T>
bool should_stream(const Out& tensor) {
  constexpr std::int64_t large = 16 << 20;
  return !tensor.add && tensor.shape.rows() * tensor.pitch * std::int64_t(sizeof(T)) >= large &&
         reinterpret_cast<std::uintptr_t>(tensor.ptr) % simd::vector_bytes == 0 &&
         tensor.pitch * sizeof(T) % simd::vector_bytes == 0;
}

// Hands out the parts of a workspace, each on a cache line; from null it only counts.
class WorkspaceParts {
 public:
  explicit WorkspaceParts(void* start) : start_(static_cast<char*>(start)) {}
  template <class T>
  T* take(std::int64_t count) {
    T* part = start_ ? reinterpret_cast<T*>(start_ + bytes_) : nullptr;
    bytes_ += ceil_div(count * std::int64_t(sizeof(T)), 64) * 64;
    return part;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  char* start_;
  std::int64_t bytes_ = 0;
};

// A plan is what an op does with shapes: plan.divide(parts, threads) takes what it needs of a
// workspace.
template <class Plan>
std::int64_t workspace_bytes(const Plan& plan, Stream stream) {
  WorkspaceParts parts(nullptr);
  plan.divide(parts, thread_count(stream));
  return parts.bytes();
}

inline void check_workspace(const char* op, const Out& workspace, std::int64_t bytes) {
  check_dtype(op, "workspace", workspace.dtype, Dtype::uint8);
  if (workspace.shape.size() < bytes)
    fail_check(op, "workspace of " + std::to_string(workspace.shape.size()) + " bytes, expected " +
                       std::to_string(bytes));
}

}  // namespace convnet

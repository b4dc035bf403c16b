// The types every op is written in: a stream to run on, tensors to read, tensors to write.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>
#include "bfloat16.h"

namespace convnet {

enum class Dtype : std::uint8_t { float32, float64, bfloat16, uint8, float16 };

constexpr std::int64_t size_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : dtype == Dtype::uint8 ? 1 : 2;
}
const char* name_of(Dtype dtype);
// What numbers that are stored as `dtype` are computed in: the type of weights, biases and sums beside such activities.
constexpr Dtype computed(Dtype dtype) { return dtype == Dtype::bfloat16 ? Dtype::float32 : dtype; }

constexpr int max_rank = 5;

// The last dimension is the fastest: images of activities, filters or outputs of weights.
struct Shape {
  int rank = 0;
  std::int64_t dims[max_rank] = {};

  std::int64_t operator[](int i) const { return dims[i]; }
  std::int64_t images() const { return rank ? dims[rank - 1] : 1; }
  std::int64_t rows() const {
    std::int64_t rows = 1;
    for (int i = 0; i + 1 < rank; ++i) rows *= dims[i];
    return rows;
  }
  std::int64_t size() const { return rows() * images(); }
  bool operator==(const Shape&) const = default;
};

std::string to_string(const Shape& shape);

// A tensor to read; owns nothing. Element `n` of row `r` is at ptr[r * pitch + n].
// Columns from the last dimension to the pitch belong to the tensor and mean nothing: ops may read and
// write them, so that rows of 129 images can be moved 16 bytes at a time.
struct In {
  const void* ptr;
  Dtype dtype;
  Shape shape;
  std::int64_t pitch;
};

// A tensor to write. `add`: the completely reduced value is added once to what is there.
struct Out {
  void* ptr;
  Dtype dtype;
  Shape shape;
  std::int64_t pitch;
  bool add;
};

// What is overwritten, to be read.
inline In as_in(const Out& tensor) { return {tensor.ptr, tensor.dtype, tensor.shape, tensor.pitch}; }

// Tensors of a kind, or a number for each of them.
template <class T>
using Many = std::vector<T>;

// Which device to run on, and in which of its queues (0: the default one, at once on the CPU).
struct Stream {
  int device = 0;
  std::uintptr_t handle = 0;
};

// a + b, rounded: never contracted with the multiplication that made b, so that adding to a tensor gives
// the old value plus the very bits that overwriting would have stored.
template <class T>
HOST_DEVICE T sum_of(T a, T b) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 8) return __dadd_rn(a, b);
  else return __fadd_rn(a, b);
#else
  return a + b;  // compiled with -ffp-contract=off, but for the loops of conv and fc
#endif
}

// An element that something is added to: rounded first, as if it had been stored.
template <class T>
HOST_DEVICE Computed<T> added(T old, Computed<T> value) { return sum_of<Computed<T>>(old, T(value)); }

// Rank-4 tensors as kernels see them: (channels, height, width, images). T is const for what is read.
template <class T>
struct Images {
  T* data;
  int channels, height, width, images;
  std::int64_t pitch;
  bool add;

  HOST_DEVICE T* row(int c, int y, int x) const {
    return data + ((std::int64_t(c) * height + y) * width + x) * pitch;
  }
  HOST_DEVICE std::int64_t rows() const { return std::int64_t(channels) * height * width; }
  HOST_DEVICE void store(T* target, Computed<T> value) const { *target = add ? added(*target, value) : value; }
};

// Any tensor as kernels see it that care about rows only: (rows, images).
template <class T>
struct Rows {
  T* data;
  std::int64_t rows;
  int images;
  std::int64_t pitch;
  bool add;

  HOST_DEVICE T* row(std::int64_t r) const { return data + r * pitch; }
  HOST_DEVICE void store(T* target, Computed<T> value) const { *target = add ? added(*target, value) : value; }
};

template <class T>
Images<const T> images_of(const In& t) {
  return {static_cast<const T*>(t.ptr), int(t.shape[0]), int(t.shape[1]), int(t.shape[2]), int(t.shape[3]), t.pitch, false};
}
template <class T>
Images<T> images_of(const Out& t) {
  return {static_cast<T*>(t.ptr), int(t.shape[0]), int(t.shape[1]), int(t.shape[2]), int(t.shape[3]), t.pitch, t.add};
}
template <class T>
Rows<const T> rows_of(const In& t) {
  return {static_cast<const T*>(t.ptr), t.shape.rows(), int(t.shape.images()), t.pitch, false};
}
template <class T>
Rows<T> rows_of(const Out& t) {
  return {static_cast<T*>(t.ptr), t.shape.rows(), int(t.shape.images()), t.pitch, t.add};
}

// 16-byte loads and stores are possible on every row.
template <class Tensor>
bool is_vectorizable(const Tensor& t) {
  return reinterpret_cast<std::uintptr_t>(t.ptr) % 16 == 0 && t.pitch * size_of(t.dtype) % 16 == 0;
}

// What changes every minibatch, in one float64 tensor a device: the step's number, 1 while every cost
// was finite, and the learning rates.
enum StateSlot { state_step = 0, state_finite = 1, state_rates = 2 };

// Wrong arguments; they become ValueError in Python. The macros name the function they stand in: the
// checks that an op's launcher and its host code share have the op's name, in namespace checks.
[[noreturn]] void fail_check(const char* op, const std::string& message);
void check_shape(const char* op, const char* name, const Shape& shape, const Shape& expected);
void check_rank(const char* op, const char* name, const Shape& shape, int rank);
void check_dtype(const char* op, const char* name, Dtype dtype, Dtype expected);

#define CHECK(condition) \
  do { if (!(condition)) ::convnet::fail_check(__func__, "expected " #condition); } while (0)
#define CHECK_SHAPE(tensor, expected) ::convnet::check_shape(__func__, #tensor, (tensor).shape, expected)
#define CHECK_RANK(tensor, rank) ::convnet::check_rank(__func__, #tensor, (tensor).shape, rank)
#define CHECK_LIKE(tensor, other) \
  do { CHECK_SHAPE(tensor, (other).shape); CHECK_DTYPE(tensor, (other).dtype); } while (0)
#define CHECK_DTYPE(tensor, expected) ::convnet::check_dtype(__func__, #tensor, (tensor).dtype, expected)
#define CHECK_WORKSPACE(workspace, bytes) \
  do { CHECK_DTYPE(workspace, Dtype::uint8); CHECK((workspace).shape.size() >= (bytes)); } while (0)

// Calls body(T{}) with T the C++ type of `dtype`: these two are the one place where types are told apart.
template <class Body>
void with_float_type(const char* op, Dtype dtype, Body body) {
  if (dtype == Dtype::float32) body(float{});
  else if (dtype == Dtype::float64) body(double{});
  else fail_check(op, std::string("dtype ") + name_of(dtype) + ", expected float32 or float64");
}
#define WITH_FLOAT_TYPE(tensor, ...) ::convnet::with_float_type(__func__, (tensor).dtype, __VA_ARGS__)

// The same of activities, which may be stored as bfloat16.
template <class Body>
void with_stored_type(const char* op, Dtype dtype, Body body) {
  if (dtype == Dtype::bfloat16) body(bfloat16{});
  else with_float_type(op, dtype, body);
}
#define WITH_STORED_TYPE(tensor, ...) ::convnet::with_stored_type(__func__, (tensor).dtype, __VA_ARGS__)

}  // namespace convnet

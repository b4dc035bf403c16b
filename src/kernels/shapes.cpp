// Shapes of outputs, and the checks of arguments: the same on every backend.
#include <algorithm>
#include <string_view>
#include "ops.h"

namespace convnet {

const char* name_of(Dtype dtype) {
  static const char* const names[] = {"float32", "float64", "bfloat16", "uint8", "float16"};
  return names[int(dtype)];
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (int i = 0; i < shape.rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.rank == 1 ? ",)" : ")");
}

void fail_check(const char* op, const std::string& message) {
  // <op>_workspace checks what the op will: the user called the op.
  std::string name = op;
  if (constexpr std::string_view suffix = "_workspace"; name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  throw std::invalid_argument(name + ": " + message);
}

void check_shape(const char* op, const char* name, const Shape& shape, const Shape& expected) {
  if (shape != expected)
    fail_check(op, std::string(name) + " has shape " + to_string(shape) + ", expected " + to_string(expected));
}

void check_rank(const char* op, const char* name, const Shape& shape, int rank) {
  if (shape.rank != rank)
    fail_check(op, std::string(name) + " has shape " + to_string(shape) + ", expected " + std::to_string(rank) + " dimensions");
}

void check_dtype(const char* op, const char* name, Dtype dtype, Dtype expected) {
  if (dtype != expected)
    fail_check(op, std::string(name) + " is " + name_of(dtype) + ", expected " + name_of(expected));
}

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

}  // namespace

Shape conv_shape(Shape images, Shape filters, int stride, int padding) {
  check_rank(__func__, "images", images, 4);
  check_rank(__func__, "filters", filters, 4);
  CHECK(stride > 0);
  CHECK(padding >= 0);
  Shape acts = images;
  acts.dims[0] = filters[3];
  for (int i : {1, 2}) {
    const std::int64_t padded = images[i] + 2 * padding;
    if (filters[i] < 1 || filters[i] > padded)
      fail_check(__func__, "filters of " + std::to_string(filters[i]) + " pixels on an image of " + std::to_string(images[i]) +
                               " with padding " + std::to_string(padding) + ", expected 1 to " + std::to_string(padded));
    acts.dims[i] = 1 + ceil_div(padded - filters[i], stride);
  }
  return acts;
}

Shape pool_shape(Shape inputs, int size, int stride, int start) {
  check_rank(__func__, "inputs", inputs, 4);
  CHECK(stride > 0);
  CHECK(size >= stride);
  CHECK(start > -size);
  Shape acts = inputs;
  for (int i : {1, 2}) acts.dims[i] = 1 + std::max<std::int64_t>(0, ceil_div(inputs[i] - start - size, stride));
  return acts;
}

Shape resize_shape(Shape inputs, double scale) {
  check_rank(__func__, "inputs", inputs, 4);
  CHECK(scale > 0);
  Shape acts = inputs;
  for (int i : {1, 2}) acts.dims[i] = std::int64_t(double(inputs[i]) / scale);
  return acts;
}

}  // namespace convnet

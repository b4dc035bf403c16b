// Python objects -> In, Out, Stream, Shape, Neuron, Precision, Size. A tensor is anything with `ptr` and `shape`, and, where
// they are not the obvious ones, `dtype` (float32), `pitch` (the last dimension) and `add` (False).
// Nothing is copied.
#pragma once
#include <pybind11/pybind11.h>
#include <cstring>
#include <string>
#include <type_traits>
#include "ops.h"
#include "tiles.h"

namespace pybind11::detail {

inline constexpr const char* dtype_names[] = {"float32", "float64", "bfloat16", "uint8", "float16"};
inline constexpr const char* neuron_names[] = {"ident", "relu", "logistic", "tanh", "softrelu", "abs", "square", "sqrt", "linear", "brelu", "drelu", "log"};
inline constexpr const char* precision_names[] = {"exact", "fast", "bf16x3", "tf32", "bf16"};
inline constexpr const char* tile_names[] = {"large", "mid", "wide", "small", "mma", "mma_wide"};

// Index of a word in a list of words; ValueError says which there are.
template <std::size_t size>
int index_of(handle word, const char* const (&names)[size], const char* what) {
  const std::string text = str(word);
  std::string known;
  for (std::size_t i = 0; i < size; ++i) {
    if (text == names[i]) return int(i);
    known += (i ? ", " : "") + std::string(names[i]);
  }
  throw value_error(std::string(what) + " '" + text + "', expected one of " + known);
}

inline bool load_shape(handle src, convnet::Shape& shape) {
  if (!isinstance<sequence>(src) || isinstance<str>(src)) return false;
  const auto dims = reinterpret_borrow<sequence>(src);
  if (len(dims) > std::size_t(convnet::max_rank)) throw value_error("a tensor of " + std::to_string(len(dims)) + " dimensions, expected at most 5");
  shape.rank = int(len(dims));
  for (int i = 0; i < shape.rank; ++i) {
    shape.dims[i] = dims[i].cast<std::int64_t>();
    if (shape.dims[i] < 0) throw value_error("a dimension is negative: " + std::string(str(src)));
  }
  return true;
}

// Fills what In and Out have in common. A plan packs its tensors once (`pack`), since reading five attributes of
// each at every step takes longer than all the rest of a call; what is packed is an Out.
template <class Tensor>
bool load_tensor(handle src, Tensor& tensor) {
  if (PyBytes_Check(src.ptr())) {
    if (PyBytes_GET_SIZE(src.ptr()) != Py_ssize_t(sizeof(convnet::Out))) return false;
    convnet::Out packed;
    std::memcpy(&packed, PyBytes_AS_STRING(src.ptr()), sizeof packed);
    tensor.ptr = packed.ptr, tensor.dtype = packed.dtype, tensor.shape = packed.shape, tensor.pitch = packed.pitch;
    if constexpr (std::is_same_v<Tensor, convnet::Out>) tensor.add = packed.add;
    return true;
  }
  if (!hasattr(src, "ptr") || !hasattr(src, "shape")) return false;
  if (!load_shape(src.attr("shape"), tensor.shape)) return false;
  tensor.ptr = reinterpret_cast<decltype(tensor.ptr)>(src.attr("ptr").cast<std::uintptr_t>());
  tensor.dtype = hasattr(src, "dtype") ? convnet::Dtype(index_of(src.attr("dtype"), dtype_names, "dtype")) : convnet::Dtype::float32;
  tensor.pitch = hasattr(src, "pitch") ? src.attr("pitch").cast<std::int64_t>() : tensor.shape.images();
  return true;
}

template <>
struct type_caster<convnet::In> {
  PYBIND11_TYPE_CASTER(convnet::In, const_name("Tensor"));
  bool load(handle src, bool) { return load_tensor(src, value); }
};

template <>
struct type_caster<convnet::Out> {
  PYBIND11_TYPE_CASTER(convnet::Out, const_name("Tensor"));
  bool load(handle src, bool) {
    if (!load_tensor(src, value)) return false;
    if (!PyBytes_Check(src.ptr())) value.add = hasattr(src, "add") && src.attr("add").cast<bool>();
    return true;
  }
};

template <>
struct type_caster<convnet::Stream> {
  PYBIND11_TYPE_CASTER(convnet::Stream, const_name("Stream"));
  bool load(handle src, bool) {
    if (!hasattr(src, "device") || !hasattr(src, "handle")) return false;
    value = {src.attr("device").cast<int>(), src.attr("handle").cast<std::uintptr_t>()};
    return true;
  }
};

template <>
struct type_caster<convnet::Shape> {
  PYBIND11_TYPE_CASTER(convnet::Shape, const_name("tuple[int, ...]"));
  bool load(handle src, bool) { return load_shape(src, value); }
  static handle cast(const convnet::Shape& shape, return_value_policy, handle) {
    tuple dims(std::size_t(shape.rank));
    for (int i = 0; i < shape.rank; ++i) dims[std::size_t(i)] = shape[i];
    return dims.release();
  }
};

template <>
struct type_caster<convnet::Neuron> {
  PYBIND11_TYPE_CASTER(convnet::Neuron, const_name("str"));
  bool load(handle src, bool) {
    if (!isinstance<str>(src)) return false;
    value = convnet::Neuron(index_of(src, neuron_names, "neuron"));
    return true;
  }
};

template <>
struct type_caster<convnet::Precision> {
  PYBIND11_TYPE_CASTER(convnet::Precision, const_name("str"));
  bool load(handle src, bool) {
    if (!isinstance<str>(src)) return false;
    value = convnet::Precision(index_of(src, precision_names, "precision"));
    return true;
  }
  static handle cast(convnet::Precision precision, return_value_policy, handle) { return str(precision_names[int(precision)]).release(); }
};

template <>
struct type_caster<convnet::Size> {
  PYBIND11_TYPE_CASTER(convnet::Size, const_name("str"));
  bool load(handle src, bool) {
    if (!isinstance<str>(src)) return false;
    value = convnet::Size(index_of(src, tile_names, "tile"));
    return true;
  }
  static handle cast(convnet::Size size, return_value_policy, handle) { return str(tile_names[int(size)]).release(); }
};

}  // namespace pybind11::detail

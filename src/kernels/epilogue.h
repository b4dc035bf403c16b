// What conv and fc do with a finished sum on its way to memory: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet {

// After the sum has been added to what is there, or not.
template <class T>
struct Epilogue {
  const T* biases = nullptr;  // by channel of the output; null: none
  bool relu = false;

  // That of the channels from `first` on.
  Epilogue from(std::int64_t first) const { return {biases ? biases + first : nullptr, relu}; }
  HOST_DEVICE T operator()(T value, std::int64_t channel) const {
    if (biases) value = sum_of(value, biases[channel]);
    return relu && value < 0 ? T(0) : value;  // as neuron_value: a NaN stays one
  }
};

template <class T>
Epilogue<T> epilogue_of(const In& biases, bool relu) {
  return {static_cast<const T*>(biases.ptr), relu};
}

inline void check_biases(const char* op, const In& biases, std::int64_t channels, Dtype dtype) {
  check_shape(op, "biases", biases.shape, Shape{1, {channels}});
  check_dtype(op, "biases", biases.dtype, dtype);
}

}  // namespace convnet

// What conv and fc do with a finished sum on its way to memory: what device code and host share.
#pragma once
#include "neuron.h"

namespace convnet {

// After the sum has been added to what is there, or not. T: of what is stored.
template <class T>
struct Epilogue {
  const Computed<T>* biases = nullptr;  // by channel of the output; null: none
  bool relu = false;
  // Of a relu, whose gradient the output becomes: its acts, and where the output begins, whose rows are as far apart. Null: none.
  const T *acts = nullptr, *grad = nullptr;

  // That of the channels from `first` on.
  Epilogue from(std::int64_t first) const { return {biases ? biases + first : nullptr, relu, acts, grad}; }
  HOST_DEVICE Computed<T> operator()(Computed<T> value, std::int64_t channel) const {
    if (biases) value = sum_of(value, biases[channel]);
    return relu && value < 0 ? 0 : value;  // as neuron_value: a NaN stays one
  }
  // Where the acts are that belong to a place of the output; and what is stored there, after all else.
  HOST_DEVICE const T* acts_at(const T* target) const { return acts + (target - grad); }
  HOST_DEVICE T masked(T value, const T* target) const { return acts ? T(relu_gradient<Computed<T>>(value, *acts_at(target))) : value; }
};

template <class T>
Epilogue<T> epilogue_of(const In& biases, bool relu) {
  return {static_cast<const Computed<T>*>(biases.ptr), relu};
}

// That of a gradient by the acts of a relu; of one by anything else, whose acts are null.
template <class T>
Epilogue<T> relu_epilogue(const In& acts, const Out& grad) {
  return {nullptr, false, static_cast<const T*>(acts.ptr), static_cast<const T*>(grad.ptr)};
}

inline void check_biases(const char* op, const In& biases, std::int64_t channels, Dtype dtype) {
  check_shape(op, "biases", biases.shape, Shape{1, {channels}});
  check_dtype(op, "biases", biases.dtype, dtype);
}

#define CHECK_RELU(acts, grad) \
  CHECK_LIKE(acts, grad);      \
  CHECK((acts).pitch == (grad).pitch)

}  // namespace convnet

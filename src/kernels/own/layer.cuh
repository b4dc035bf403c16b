// What the source of a layer of one's own includes (type=cuda in a config: docs/own_layers.md). It defines two kernels:
//
//   template <class T>
//   __global__ void forward_kernel(Images<const T> inputs, Images<T> acts, Numbers<T> numbers);
//   template <class T>
//   __global__ void backward_kernel(Images<const T> inputs, Images<const T> acts, Images<const T> acts_grad, Images<T> inputs_grad,
//                                   Numbers<T> numbers);
//
// Each is launched with a thread for every element that it writes: see this_place() and element_at().
#pragma once
#include <cmath>
#include "../device.cuh"

namespace convnet {

constexpr int most_numbers = 16;

// Those of the layer's key `numbers`, in their order.
template <class T>
struct Numbers {
  T values[most_numbers];

  HOST_DEVICE T operator[](int i) const { return values[i]; }
};

}  // namespace convnet

using namespace convnet;  // NOLINT: a layer's source is alone in its library

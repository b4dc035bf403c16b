// Cross-map response normalization: device code.
#pragma once
#include "device.cuh"
#include "lrn.h"
#include "neuron.h"

namespace convnet {

// Of the sliding kernels: a thread goes through some channels of a pixel and an image, from one to the next, with what
// their windows share in registers, and loads what it needs `ahead` channels later: then 2048 threads of a
// multiprocessor keep 32 KiB in flight, of the 23 KiB that an H200's bandwidth asks for.
constexpr int ahead = 4;

// Channels from `first` to `last` - 1 of a row (block of channels, y, x).
struct Slide {
  int first, last, y, x, n;
};
template <class T>
__device__ Slide slide_at(const Images<T>& tensor, Place place, int channels_each) {
  const auto [block, y, x, n] = element_at(tensor, place);
  const int first = block * channels_each, last = first + channels_each;
  return {first, last < tensor.channels ? last : tensor.channels, y, x, n};
}
template <class T>
HOST_DEVICE std::int64_t sliding_rows(const Images<T>& tensor, int channels_each) {
  return std::int64_t(ceil_div(tensor.channels, channels_each)) * tensor.height * tensor.width;
}

// Channels that a thread goes through: the more, the fewer are read twice; but a quarter of a million threads are wanted,
// which fill the largest GPUs.
template <class T>
int channels_each(const Images<T>& tensor) {
  int channels = 32;
  while (channels > 4 && sliding_rows(tensor, channels) * tensor.images < 1 << 18) channels /= 2;
  return channels;
}

template <int count, class T>
__device__ void shift(T (&values)[count], T next) {
#pragma unroll
  for (int i = 0; i + 1 < count; ++i) values[i] = values[i + 1];
  values[count - 1] = next;
}

// Of a pixel, the inputs of a window of `size` channels, and `count` that come: as they are stored, for converting them
// before they are needed would wait for their loads.
template <class T, int size, int count>
struct ChannelWindow {
  Computed<T> inputs[size];
  T coming[count];

  // Input j, from the window's first on.
  __device__ void set(int j, T input) {
    if (j < size) inputs[j] = input;
    else coming[j - size] = input;
  }
  __device__ Computed<T> squares() const {
    Computed<T> sum = 0;
#pragma unroll
    for (int j = 0; j < size; ++j) sum += square(inputs[j]);
    return sum;
  }
  __device__ void slide(T next) {
    shift(inputs, Computed<T>(coming[0]));
    shift(coming, next);
  }
};

// Windows of `size` channels, not blocks of them. Threads: x = image, y = row (block of channels, y, x) of acts.
template <int size, bool three_quarters, class T>
__global__ void __launch_bounds__(rows_threads) lrn_sliding_forward_kernel(Images<const T> inputs, Images<Computed<T>> denoms, Images<T> acts, int channels_each,
                                                                           Computed<T> scale, Computed<T> power, Computed<T> bias) {
  const Place place = this_place();
  if (place.row >= sliding_rows(acts, channels_each) || place.n >= acts.images) return;
  const auto [first, end, y, x, n] = slide_at(acts, place, channels_each);
  const auto input_at = [&](int c) { return c >= 0 && c < acts.channels ? inputs.row(c, y, x)[n] : T(0); };

  ChannelWindow<T, size, ahead> window;  // of channel c
#pragma unroll
  for (int j = 0; j < size + ahead; ++j) window.set(j, input_at(first - size / 2 + j));
  for (int c = first; c < end; ++c) {
    const T next = input_at(c - size / 2 + size + ahead);
    const Computed<T> denom = bias + scale * window.squares();
    denoms.store(&denoms.row(c, y, x)[n], denom);
    acts.store(&acts.row(c, y, x)[n], window.inputs[size / 2] * inverse_power<three_quarters>(denom, power));
    window.slide(next);
  }
}

// The gradient of an input from its own, with the denominators held constant, and what the windows that hold it add.
template <int size, class T>
__device__ void store_gradient(const Images<T>& inputs_grad, T& target, const Computed<T> (&terms)[size], Computed<T> direct, Computed<T> input,
                               Computed<T> scale, Computed<T> power, bool relu) {
  Computed<T> sum = 0;
#pragma unroll
  for (int j = 0; j < size; ++j) sum += terms[j];
  inputs_grad.store(&target, direct - 2 * scale * power * input * sum);
  if (relu) target = relu_gradient<Computed<T>>(target, input);
}

// The same of the gradient: the power of a denominator is computed once, not for every window that it is in. In float64 as
// few blocks as fit: left to itself the compiler makes room for a third on sm_100, and spills. 0 leaves it to itself.
template <int size, bool three_quarters, class T>
__global__ void __launch_bounds__(rows_threads, sizeof(T) <= 4 ? 0 : 1)
lrn_sliding_backward_kernel(Images<const T> inputs, Images<const Computed<T>> denoms, Images<const T> acts_grad, Images<T> inputs_grad, int channels_each,
                            Computed<T> scale, Computed<T> power, bool relu) {
  const Place place = this_place();
  if (place.row >= sliding_rows(inputs, channels_each) || place.n >= inputs.images) return;
  const auto [first, end, y, x, n] = slide_at(inputs, place, channels_each);

  struct Read {
    T input = 0, grad = 0;
    Computed<T> denom = 1;
  };
  const auto read_at = [&](int c) {
    if (c < 0 || c >= inputs.channels) return Read{};
    return Read{inputs.row(c, y, x)[n], acts_grad.row(c, y, x)[n], denoms.row(c, y, x)[n]};
  };
  constexpr int before = size - 1 - size / 2, after = size / 2;  // channels whose windows hold this one
  Computed<T> terms[size] = {};        // of channel c
  Computed<T> own[after + 1] = {};     // from c on: inputs
  Computed<T> direct[after + 1] = {};  // their gradient with the denominators held constant
  Read reads[ahead];
#pragma unroll
  for (int i = 0; i < ahead; ++i) reads[i] = read_at(first - before + i);
  for (int newest = first - before; newest < end + after; ++newest) {
    const Read read = reads[0], next = read_at(newest + ahead);
    const Computed<T> input = read.input, grad = read.grad, inverse = inverse_power<three_quarters>(read.denom, power);
    shift(terms, grad * input * (inverse / read.denom));
    shift(own, input);
    shift(direct, grad * inverse);
    shift(reads, next);
    const int c = newest - after;
    if (c < first) continue;
    store_gradient(inputs_grad, inputs_grad.row(c, y, x)[n], terms, direct[0], own[0], scale, power, relu);
  }
}

// Windows of any size, or blocks. Threads: x = image, y = row (channel, y, x) of acts.
template <bool three_quarters, class T>
__global__ void lrn_forward_kernel(Images<const T> inputs, Images<Computed<T>> denoms, Images<T> acts, int size, Computed<T> scale, Computed<T> power,
                                   Computed<T> bias, bool blocked) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const auto [first, last] = window_of(c, acts.channels, size, blocked);
  Computed<T> squares = 0;
  for (int j = first; j < last; ++j) squares += square<Computed<T>>(inputs.row(j, y, x)[n]);

  const Computed<T> denom = bias + scale * squares;
  denoms.store(&denoms.row(c, y, x)[n], denom);
  acts.store(&acts.row(c, y, x)[n], inputs.row(c, y, x)[n] * inverse_power<three_quarters>(denom, power));
}

// Threads: x = image, y = row (channel, y, x) of inputs.
// Channel c feeds the channels j whose window holds c.
template <bool three_quarters, class T>
__global__ void lrn_backward_kernel(Images<const T> inputs, Images<const Computed<T>> denoms, Images<const T> acts_grad, Images<T> inputs_grad,
                                    int size, Computed<T> scale, Computed<T> power, bool blocked, bool relu) {
  const Place place = this_place();
  if (place.row >= inputs.rows() || place.n >= inputs.images) return;
  const auto [c, y, x, n] = element_at(inputs, place);

  const auto [first, last] = windows_with(c, inputs.channels, size, blocked);
  Computed<T> sum = 0;
  for (int j = first; j < last; ++j) {
    const Computed<T> denom = denoms.row(j, y, x)[n];
    sum += acts_grad.row(j, y, x)[n] * inputs.row(j, y, x)[n] * (inverse_power<three_quarters>(denom, power) / denom);
  }

  const Computed<T> input = inputs.row(c, y, x)[n];
  T& target = inputs_grad.row(c, y, x)[n];
  inputs_grad.store(&target, acts_grad.row(c, y, x)[n] * inverse_power<three_quarters>(denoms.row(c, y, x)[n], power) - 2 * scale * power * input * sum);
  if (relu) target = relu_gradient<Computed<T>>(target, input);
}

}  // namespace convnet

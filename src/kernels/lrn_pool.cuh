// Max-pooling over normalized maps: device code.
#pragma once
#include "lrn.cuh"
#include "lrn_pool.h"
#include "pool.cuh"

namespace convnet {

// Pixels of a block, down and across, under as many windows as lie in them. A row more is a warp more, and the ninth
// leaves so few registers that float64 spills.
constexpr int tile_down = 7, tile_across = 9;

// Windows of a block, down and across.
struct Patch {
  int down, across;
};

// LRN windows of `size` channels. A block computes a patch of windows, one channel of some after the other: each of its
// threads (32 images, rows of pixels) normalizes a row of pixels into shared memory, of which it has the channels of their
// LRN windows, and the one that comes, in registers; then it takes the maxima of a few windows. So a pixel is normalized
// once, or once more under an edge of the patch: 63 / 48 times where windows of 3 x 3 overlap by one.
// Blocks: x = (block of channels, patch down, patch across), y = images. Shared memory: two channels of pixels, so that
// one barrier a channel is enough. They hold what lrn_forward would store, so that these are the maxima of that, to the bit.
template <int size, bool three_quarters, class T>
__global__ void __launch_bounds__(32 * tile_down, sizeof(T) <= 4 ? 2 : 1)
lrn_max_pool_sliding_forward_kernel(Images<const T> inputs, Images<T> acts, WindowGrid windows, Patch patch, int channels_each,
                                    Computed<T> scale, Computed<T> power, Computed<T> bias) {
  SMEM(T, norms, [2][tile_down * tile_across][32]);
  const int patches_across = ceil_div(acts.width, patch.across), patches = patches_across * ceil_div(acts.height, patch.down);
  const int index = int(blockIdx.x) % patches, first = int(blockIdx.x) / patches * channels_each;
  const int last = min(acts.channels, first + channels_each);
  const int y0 = index / patches_across * patch.down, x0 = index % patches_across * patch.across;
  const int y1 = min(acts.height, y0 + patch.down), x1 = min(acts.width, x0 + patch.across);
  const int top = windows.down.begin(y0), left = windows.across.begin(x0), right = windows.across.end(x1 - 1);
  const int n = int(blockIdx.y) * 32 + int(threadIdx.x), v = top + int(threadIdx.y);
  const bool is_image = n < acts.images, is_row = is_image && v < windows.down.end(y1 - 1);
  const auto input_at = [&](int c, int i) { return is_row && left + i < right && c >= 0 && c < acts.channels ? inputs.row(c, v, left + i)[n] : T(0); };

  ChannelWindow<T, size, 1> window[tile_across];  // of channel c
#pragma unroll
  for (int j = 0; j <= size; ++j)
#pragma unroll
    for (int i = 0; i < tile_across; ++i) window[i].set(j, input_at(first - size / 2 + j, i));
  for (int c = first; c < last; ++c) {
    auto& pixels = norms[c % 2];
#pragma unroll
    for (int i = 0; i < tile_across; ++i) {
      const T next = input_at(c - size / 2 + size + 1, i);
      const Computed<T> denom = bias + scale * window[i].squares();
      pixels[int(threadIdx.y) * tile_across + i][threadIdx.x] = window[i].inputs[size / 2] * inverse_power<three_quarters>(denom, power);
      window[i].slide(next);
    }
    __syncthreads();
    for (int o = int(threadIdx.y); o < patch.down * patch.across; o += tile_down) {
      const int y = y0 + o / patch.across, x = x0 + o % patch.across;
      if (!is_image || y >= y1 || x >= x1) continue;
      const auto [begin, end] = Channels{windows.across.begin(x) - left, windows.across.end(x) - left};
      T best = pixels[(windows.down.begin(y) - top) * tile_across + begin][threadIdx.x];
      for (int row = windows.down.begin(y) - top; row < windows.down.end(y) - top; ++row)
        for (int column = begin; column < end; ++column) best = larger(best, pixels[row * tile_across + column][threadIdx.x]);
      acts.store(&acts.row(c, y, x)[n], best);
    }
  }
}

// The same of the gradient: a thread goes through some channels of a pixel and an image, as in lrn_sliding_backward_kernel,
// and makes anew what that reads. Threads: x = image, y = row (block of channels, y, x) of inputs.
template <int size, bool three_quarters, class T>
__global__ void __launch_bounds__(rows_threads, 1)
lrn_max_pool_sliding_backward_kernel(Images<const T> inputs, Images<const T> acts, Images<const T> acts_grad, Images<T> inputs_grad,
                                     WindowGrid windows, int channels_each, Computed<T> scale, Computed<T> power, Computed<T> bias, bool relu) {
  const Place place = this_place();
  if (place.row >= sliding_rows(inputs, channels_each) || place.n >= inputs.images) return;
  const auto [first, end, y, x, n] = slide_at(inputs, place, channels_each);
  const auto input_at = [&](int c) { return c >= 0 && c < inputs.channels ? inputs.row(c, y, x)[n] : T(0); };
  const WindowsWith holding = windows.with(y, x);

  constexpr int before = size - 1 - size / 2, after = size / 2;  // channels whose windows hold this one
  ChannelWindow<T, size, ahead> window;       // of the newest channel
  Computed<T> terms[size] = {};        // of channel c
  Computed<T> own[after + 1] = {};     // from c on: inputs
  Computed<T> direct[after + 1] = {};  // their gradient with the denominators held constant
#pragma unroll
  for (int j = 0; j < size + ahead; ++j) window.set(j, input_at(first - before - size / 2 + j));
  for (int newest = first - before; newest < end + after; ++newest) {
    const T next = input_at(newest - size / 2 + size + ahead);
    const Computed<T> input = window.inputs[size / 2], denom = bias + scale * window.squares(), inverse = inverse_power<three_quarters>(denom, power);
    const Computed<T> grad = newest >= 0 && newest < inputs.channels ? from_windows(acts, acts_grad, newest, holding, n, T(input * inverse)) : 0;
    shift(terms, grad * input * (inverse / denom));
    shift(own, input);
    shift(direct, grad * inverse);
    window.slide(next);
    const int c = newest - after;
    if (c < first) continue;
    store_gradient(inputs_grad, inputs_grad.row(c, y, x)[n], terms, direct[0], own[0], scale, power, relu);
  }
}

// ---- windows of any size --------------------------------------------------------------------------------

template <class T>
__device__ Computed<T> denom_at(const Images<const T>& inputs, int c, int y, int x, int n, int size, Computed<T> scale, Computed<T> bias) {
  const auto [first, last] = window_of(c, inputs.channels, size, false);
  Computed<T> squares = 0;
  for (int j = first; j < last; ++j) squares += square<Computed<T>>(inputs.row(j, y, x)[n]);
  return bias + scale * squares;
}

// A pixel is normalized for each window that it is in. Threads: x = image, y = row (channel, y, x) of acts.
template <bool three_quarters, class T>
__global__ void __launch_bounds__(rows_threads, 1)
lrn_max_pool_forward_kernel(Images<const T> inputs, Images<T> acts, WindowGrid windows, int size, Computed<T> scale, Computed<T> power, Computed<T> bias) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const auto norm_at = [&](int v, int u) -> T { return inputs.row(c, v, u)[n] * inverse_power<three_quarters>(denom_at(inputs, c, v, u, n, size, scale, bias), power); };
  T best = norm_at(windows.down.begin(y), windows.across.begin(x));
  for (int v = windows.down.begin(y); v < windows.down.end(y); ++v)
    for (int u = windows.across.begin(x); u < windows.across.end(x); ++u) best = larger(best, norm_at(v, u));
  acts.store(&acts.row(c, y, x)[n], best);
}

// Threads: x = image, y = row (channel, y, x) of inputs. Channel c feeds the channels j whose window holds c.
template <bool three_quarters, class T>
__global__ void __launch_bounds__(rows_threads, 1)
lrn_max_pool_backward_kernel(Images<const T> inputs, Images<const T> acts, Images<const T> acts_grad, Images<T> inputs_grad,
                             WindowGrid windows, int size, Computed<T> scale, Computed<T> power, Computed<T> bias, bool relu) {
  const Place place = this_place();
  if (place.row >= inputs.rows() || place.n >= inputs.images) return;
  const auto [c, y, x, n] = element_at(inputs, place);
  const WindowsWith holding = windows.with(y, x);

  const auto [first, last] = windows_with(c, inputs.channels, size, false);
  Computed<T> sum = 0, direct = 0;
  for (int j = first; j < last; ++j) {
    const Computed<T> input = inputs.row(j, y, x)[n], denom = denom_at(inputs, j, y, x, n, size, scale, bias), inverse = inverse_power<three_quarters>(denom, power);
    const Computed<T> grad = from_windows(acts, acts_grad, j, holding, n, T(input * inverse));
    sum += grad * input * (inverse / denom);
    if (j == c) direct = grad * inverse;
  }
  const Computed<T> input = inputs.row(c, y, x)[n];
  T& target = inputs_grad.row(c, y, x)[n];
  inputs_grad.store(&target, direct - 2 * scale * power * input * sum);
  if (relu) target = relu_gradient<Computed<T>>(target, input);
}

}  // namespace convnet

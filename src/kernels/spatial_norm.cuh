// Normalization within a map: device code. `centred`: by the deviations of the inputs from `means`, which is not read
// without it.
#pragma once
#include "device.cuh"
#include "spatial_norm.h"

namespace convnet {

// Threads: x = image, y = row (channel, y, x) of acts.
template <bool three_quarters, bool centred, class T>
__global__ void spatial_norm_forward_kernel(Images<const T> inputs, Images<const T> means, Images<Computed<T>> denoms,
                                            Images<T> acts, WindowGrid windows, Computed<T> scale, Computed<T> power, Computed<T> bias) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);

  const int bottom = windows.down.end(y), left = windows.across.begin(x), right = windows.across.end(x);
  Computed<T> squares = 0;
  for (int v = windows.down.begin(y); v < bottom; ++v) {
    const T* input = inputs.row(c, v, left) + n;
    const T* mean = means.row(c, v, left) + n;
    for (int u = left; u < right; ++u, input += inputs.pitch, mean += means.pitch)
      squares += square<Computed<T>>(centred ? *input - *mean : Computed<T>(*input));
  }

  const Computed<T> denom = bias + scale * squares;
  denoms.store(&denoms.row(c, y, x)[n], denom);
  acts.store(&acts.row(c, y, x)[n], inputs.row(c, y, x)[n] * inverse_power<three_quarters>(denom, power));
}

// What a pixel adds to the sums of the pixels in its window: made once, for the roots and divisions in it.
// Threads: x = image, y = row (channel, y, x) of terms.
template <bool three_quarters, class T>
__global__ void spatial_norm_terms_kernel(Images<const T> inputs, Images<const Computed<T>> denoms, Images<const T> acts_grad, Images<Computed<T>> terms,
                                          Computed<T> power) {
  const Place place = this_place();
  if (place.row >= terms.rows() || place.n >= terms.images) return;
  const auto [c, y, x, n] = element_at(terms, place);
  const Computed<T> denom = denoms.row(c, y, x)[n];
  terms.row(c, y, x)[n] = acts_grad.row(c, y, x)[n] * inputs.row(c, y, x)[n] * (inverse_power<three_quarters>(denom, power) / denom);
}

// Threads: x = image, y = row (channel, y, x) of inputs_grad. Gathers: a pixel looks at those whose window holds it.
template <bool three_quarters, bool centred, class T>
__global__ void spatial_norm_backward_kernel(Images<const T> inputs, Images<const T> means, Images<const Computed<T>> denoms, Images<const T> acts_grad,
                                             Images<const Computed<T>> terms, Images<T> inputs_grad, WindowGrid windows, Computed<T> scale, Computed<T> power) {
  const Place place = this_place();
  if (place.row >= inputs_grad.rows() || place.n >= inputs_grad.images) return;
  const auto [c, y, x, n] = element_at(inputs_grad, place);

  const int bottom = windows.down.end_with(y), left = windows.across.first_with(x), right = windows.across.end_with(x);
  Computed<T> sum = 0;
  for (int v = windows.down.first_with(y); v < bottom; ++v) {
    const Computed<T>* term = terms.row(c, v, left) + n;
    for (int u = left; u < right; ++u, term += terms.pitch) sum += *term;
  }

  const Computed<T> input = inputs.row(c, y, x)[n];
  const Computed<T> deviation = centred ? input - means.row(c, y, x)[n] : input;
  inputs_grad.store(&inputs_grad.row(c, y, x)[n], acts_grad.row(c, y, x)[n] * inverse_power<three_quarters>(denoms.row(c, y, x)[n], power)
                                                      - 2 * scale * power * deviation * sum);
}

}  // namespace convnet

// Chosen channels: what device code and host share.
#pragma once
#include "ops.h"

namespace convnet {

// Whether a tensor of so many channels has this one.
template <class T>
HOST_DEVICE bool is_channel(T channel, int channels) {
  return channel >= 0 && channel < T(channels) && channel == T(int(channel));
}

namespace checks {

// `inputs` and `acts` are In or Out: a tensor or its gradient.
template <class Inputs, class Acts>
void gather(const char* op, const Inputs& inputs, const In& channels, const Acts& acts) {
  check_rank(op, "inputs", inputs.shape, 4);
  check_rank(op, "channels", channels.shape, 1);
  Shape expected = inputs.shape;
  expected.dims[0] = channels.shape[0];
  check_shape(op, "acts", acts.shape, expected);
  check_dtype(op, "channels", channels.dtype, computed(inputs.dtype));
  check_dtype(op, "acts", acts.dtype, inputs.dtype);
}

}  // namespace checks

}  // namespace convnet

// Fully connected layers: a convolution of images of one pixel with filters of one tap, in these launchers' words.
#include "device.cuh"
#include "ops.h"

namespace convnet {
namespace {

// (inputs..., images) as (inputs, 1, 1, images), and weights (inputs, outputs) as (inputs, 1, 1, outputs).
template <class Tensor>
Tensor as_pixel(Tensor tensor) {
  tensor.shape = {4, {tensor.shape.rows(), 1, 1, tensor.shape.images()}};
  return tensor;
}

#define CHECK_FC(inputs, weights, acts)                                   \
  CHECK((inputs).shape.rank > 0 && (acts).shape.rank > 0);                \
  CHECK((acts).shape.images() == (inputs).shape.images());                \
  CHECK_SHAPE(weights, (Shape{2, {(inputs).shape.rows(), (acts).shape.rows()}})); \
  CHECK_DTYPE(weights, (inputs).dtype);                                   \
  CHECK_DTYPE(acts, (inputs).dtype)

}  // namespace

void fc_forward(Stream stream, In inputs, In weights, Out acts, Out workspace) {
  CHECK_FC(inputs, weights, acts);
  conv_forward(stream, as_pixel(inputs), as_pixel(weights), as_pixel(acts), workspace, 1, 0, 1, Precision::exact);
}

void fc_backward_data(Stream stream, In acts_grad, In weights, Out inputs_grad, Out workspace) {
  CHECK_FC(inputs_grad, weights, acts_grad);
  conv_backward_data(stream, as_pixel(acts_grad), as_pixel(weights), as_pixel(inputs_grad), workspace, 1, 0, 1, Precision::exact);
}

void fc_backward_weights(Stream stream, In inputs, In acts_grad, Out weights_grad, Out workspace) {
  CHECK_FC(inputs, weights_grad, acts_grad);
  conv_backward_filters(stream, as_pixel(inputs), as_pixel(acts_grad), as_pixel(weights_grad), workspace, 1, 0, 1, Precision::exact);
}

std::int64_t fc_forward_workspace(Stream stream, In inputs, In weights, Out acts) {
  CHECK_FC(inputs, weights, acts);
  return conv_forward_workspace(stream, as_pixel(inputs), as_pixel(weights), as_pixel(acts), 1, 0, 1, Precision::exact);
}

std::int64_t fc_backward_data_workspace(Stream stream, In acts_grad, In weights, Out inputs_grad) {
  CHECK_FC(inputs_grad, weights, acts_grad);
  return conv_backward_data_workspace(stream, as_pixel(acts_grad), as_pixel(weights), as_pixel(inputs_grad), 1, 0, 1, Precision::exact);
}

std::int64_t fc_backward_weights_workspace(Stream stream, In inputs, In acts_grad, Out weights_grad) {
  CHECK_FC(inputs, weights_grad, acts_grad);
  return conv_backward_filters_workspace(stream, as_pixel(inputs), as_pixel(acts_grad), as_pixel(weights_grad), 1, 0, 1, Precision::exact);
}

}  // namespace convnet

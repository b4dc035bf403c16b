// Fully connected layers: a convolution of images of one pixel with filters of one tap, in these launchers' words.
#include "conv_launch.cuh"
#include "fc.cuh"
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
  CHECK_DTYPE(weights, computed((inputs).dtype));                         \
  CHECK_DTYPE(acts, (inputs).dtype)

}  // namespace

void fc_forward(Stream stream, In inputs, In weights, Out acts, Out workspace, Precision precision) {
  CHECK_FC(inputs, weights, acts);
  conv_forward(stream, as_pixel(inputs), as_pixel(weights), as_pixel(acts), workspace, 1, 0, 1, precision);
}

void fc_bias_forward(Stream stream, In inputs, In weights, In biases, Out acts, Out workspace, Precision precision, bool relu) {
  CHECK_FC(inputs, weights, acts);
  conv_bias_forward(stream, as_pixel(inputs), as_pixel(weights), biases, as_pixel(acts), workspace, 1, 0, 1, precision, relu);
}

void fc_backward_data(Stream stream, In acts_grad, In weights, Out inputs_grad, Out workspace, Precision precision) {
  CHECK_FC(inputs_grad, weights, acts_grad);
  conv_backward_data(stream, as_pixel(acts_grad), as_pixel(weights), as_pixel(inputs_grad), workspace, 1, 0, 1, precision);
}

void fc_relu_backward_data(Stream stream, In acts_grad, In weights, In inputs, Out inputs_grad, Out workspace, Precision precision) {
  CHECK_FC(inputs_grad, weights, acts_grad);
  CHECK_RELU(inputs, inputs_grad);
  conv_relu_backward_data(stream, as_pixel(acts_grad), as_pixel(weights), as_pixel(inputs), as_pixel(inputs_grad), workspace, 1, 0, 1, precision);
}

void fc_backward_weights(Stream stream, In inputs, In acts_grad, Out weights_grad, Out workspace, Precision precision) {
  CHECK_FC(inputs, weights_grad, acts_grad);
  conv_backward_filters(stream, as_pixel(inputs), as_pixel(acts_grad), as_pixel(weights_grad), workspace, 1, 0, 1, precision);
}

void fc_backward_update(Stream stream, In inputs, In acts_grad, In state, Out increments, Out weights, Out, Precision precision, int rate_slot, double momentum, double decay, int images) {
  CHECK_FC(inputs, weights, acts_grad);
  checks::sgd_update(state, as_in(weights), increments, weights, rate_slot, images);
  const In x = as_pixel(inputs), g = as_pixel(acts_grad);
  const Out v = as_pixel(increments), w = as_pixel(weights);
  conv_problem(__func__, x, w, g, 1, 0, 1);
  CHECK(is_countable(x) && is_countable(w) && is_countable(g));
  CHECK(increments.pitch == weights.pitch);
  check_precision(__func__, inputs.dtype, precision);
  const Product product = backward_filters_product(w, g, 1);  // of one pixel, which no part divides
  const Way way = pick_way(stream, inputs.dtype, precision, product);
  WITH_STORED_TYPE(inputs, [&]<class T>(T) {
    using Sum = Computed<T>;
    with_any_tile<T>(way, is_vector(w, x, g, 1) && is_vectorizable(v), [&]<class Tile, class Vector>(Tile, Vector) {
      const Conv conv{1, 0, 1, 1, 0};
      launch<fc_backward_update_kernel<T, Tile, Vector::value>>(grid_of<Tile, T, T>(product, conv), stream, images_of<T>(x), images_of<T>(g),
             rows_of<double>(state), images_of<Sum>(v), images_of<Sum>(w), conv, rate_slot, Sum(momentum), Sum(decay), Sum(images));
    });
  });
}

std::int64_t fc_backward_update_workspace(Stream, In, In, In, Out, Out, Precision, int, double, double, int) { return 0; }

std::int64_t fc_forward_workspace(Stream stream, In inputs, In weights, Out acts, Precision precision) {
  CHECK_FC(inputs, weights, acts);
  return conv_forward_workspace(stream, as_pixel(inputs), as_pixel(weights), as_pixel(acts), 1, 0, 1, precision);
}

std::int64_t fc_bias_forward_workspace(Stream stream, In inputs, In weights, In, Out acts, Precision precision, bool) {
  return fc_forward_workspace(stream, inputs, weights, acts, precision);
}

std::int64_t fc_backward_data_workspace(Stream stream, In acts_grad, In weights, Out inputs_grad, Precision precision) {
  CHECK_FC(inputs_grad, weights, acts_grad);
  return conv_backward_data_workspace(stream, as_pixel(acts_grad), as_pixel(weights), as_pixel(inputs_grad), 1, 0, 1, precision);
}

std::int64_t fc_relu_backward_data_workspace(Stream stream, In acts_grad, In weights, In, Out inputs_grad, Precision precision) {
  return fc_backward_data_workspace(stream, acts_grad, weights, inputs_grad, precision);
}

std::int64_t fc_backward_weights_workspace(Stream stream, In inputs, In acts_grad, Out weights_grad, Precision precision) {
  CHECK_FC(inputs, weights_grad, acts_grad);
  return conv_backward_filters_workspace(stream, as_pixel(inputs), as_pixel(acts_grad), as_pixel(weights_grad), 1, 0, 1, precision);
}

}  // namespace convnet

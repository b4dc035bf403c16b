// Convolution: launchers.
#include "conv_launch.cuh"
#include "ops.h"

namespace convnet {
namespace {

Product forward_product(Shape filters, Shape acts, int groups) {
  return {"conv_forward", filters[3] / groups, columns_of(acts[1] * acts[2], acts), groups, filters[0], filters[1] * filters[2]};
}

Product backward_data_product(Shape filters, Shape images, int stride, int groups) {
  const std::int64_t s = stride, area = ceil_div(images[1], s) * ceil_div(images[2], s);  // of the phase with the most pixels
  const std::int64_t phases = std::min(s, images[1]) * std::min(s, images[2]);
  const std::int64_t taps = ceil_div(filters[1], s) * ceil_div(filters[2], s);
  return {"conv_backward_data", filters[0], columns_of(area, images), groups * phases, ceil_div<std::int64_t>(filters[3] / groups, quad), quad * taps};
}

// `images`, `filters` and `acts` are In or Out: a tensor or its gradient.
#define CHECK_CONV(images, filters, acts)                                         \
  conv_problem(__func__, images, filters, acts, stride, padding, groups);         \
  CHECK(groups <= 65535);                                                         \
  CHECK(is_countable(images) && is_countable(filters) && is_countable(acts))

void forward(Stream stream, In images, In filters, Out acts, Out workspace, int stride, int padding, int groups,
             Precision precision, In biases = {}, bool relu = false) {
  const Product product = forward_product(filters.shape, acts.shape, groups);
  const Way way = pick_way(stream, images.dtype, precision, product);
  const Conv conv{stride, padding, groups, way.parts, part_size(acts.shape)};
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, acts, workspace, epilogue_of<T>(biases, relu), [&](Images<T> target, const Epilogue<T>& epilogue) {
      with_any_tile<T>(way, is_vector(filters, images, acts, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<conv_forward_kernel<T, Tile, Vector::value>>(grid_of<Tile>(product, conv), stream,
               images_of<T>(images), images_of<T>(filters), target, conv, epilogue);
      });
    });
  });
}

}  // namespace

void conv_forward(Stream stream, In images, In filters, Out acts, Out workspace, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters, acts);
  CHECK_WORKSPACE(workspace, conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision));
  forward(stream, images, filters, acts, workspace, stride, padding, groups, precision);
}

void conv_bias_forward(Stream stream, In images, In filters, In biases, Out acts, Out workspace, int stride, int padding, int groups, Precision precision, bool relu) {
  CHECK_CONV(images, filters, acts);
  check_biases(__func__, biases, filters.shape[3], images.dtype);
  CHECK_WORKSPACE(workspace, conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision));
  forward(stream, images, filters, acts, workspace, stride, padding, groups, precision, biases, relu);
}

void conv_backward_data(Stream stream, In acts_grad, In filters, Out images_grad, Out workspace, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images_grad, filters, acts_grad);
  const Product product = backward_data_product(filters.shape, images_grad.shape, stride, groups);
  const Way way = pick_way(stream, images_grad.dtype, precision, product);
  const Conv conv{stride, padding, groups, way.parts, part_size(images_grad.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, images_grad));
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, images_grad, workspace, [&](Images<T> target) {
      with_any_tile<T>(way, is_vector(filters, acts_grad, images_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<conv_backward_data_kernel<T, Tile, Vector::value>>(grid_of<Tile>(product, conv), stream,
               images_of<T>(acts_grad), images_of<T>(filters), target, int(tiles_over(product.n, Tile::n)), conv);
      });
    });
  });
}

void conv_backward_filters(Stream stream, In images, In acts_grad, Out filters_grad, Out workspace, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters_grad, acts_grad);
  const Product product = backward_filters_product(filters_grad.shape, acts_grad.shape, groups);
  const Way way = pick_way(stream, images.dtype, precision, product);
  const Conv conv{stride, padding, groups, way.parts, part_size(filters_grad.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, filters_grad));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, filters_grad, workspace, [&](Images<T> target) {
      with_any_tile<T>(way, is_vector(filters_grad, images, acts_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<conv_backward_filters_kernel<T, Tile, Vector::value>>(grid_of<Tile>(product, conv), stream,
               images_of<T>(images), images_of<T>(acts_grad), target, conv);
      });
    });
  });
}

std::int64_t conv_forward_workspace(Stream stream, In images, In filters, Out acts, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters, acts);
  return parts_bytes(pick_way(stream, acts.dtype, precision, forward_product(filters.shape, acts.shape, groups)).parts, acts);
}

std::int64_t conv_bias_forward_workspace(Stream stream, In images, In filters, In, Out acts, int stride, int padding, int groups, Precision precision, bool) {
  return conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision);
}

std::int64_t conv_backward_data_workspace(Stream stream, In acts_grad, In filters, Out images_grad, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images_grad, filters, acts_grad);
  return parts_bytes(pick_way(stream, images_grad.dtype, precision, backward_data_product(filters.shape, images_grad.shape, stride, groups)).parts, images_grad);
}

std::int64_t conv_backward_filters_workspace(Stream stream, In images, In acts_grad, Out filters_grad, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters_grad, acts_grad);
  return parts_bytes(pick_way(stream, filters_grad.dtype, precision, backward_filters_product(filters_grad.shape, acts_grad.shape, groups)).parts, filters_grad);
}

}  // namespace convnet

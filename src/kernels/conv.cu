// Convolution: launchers.
#include "conv_launch.cuh"
#include "ops.h"

namespace convnet {
namespace {

template <class Acts>
Product forward_product(const In& filters, const Acts& acts, int groups) {
  const Shape& f = filters.shape;
  return {"conv_forward", f[3] / groups, columns_of(acts.shape[1] * acts.shape[2], acts), groups, f[0], f[1] * f[2]};
}

template <class Images>
Product backward_data_product(const In& filters, const Images& images, int stride, int groups) {
  const Shape &f = filters.shape, &x = images.shape;
  const std::int64_t s = stride, area = ceil_div(x[1], s) * ceil_div(x[2], s);  // of the phase with the most pixels
  const std::int64_t phases = std::min(s, x[1]) * std::min(s, x[2]);
  const std::int64_t taps = ceil_div(f[1], s) * ceil_div(f[2], s), size = piece_of(filters.dtype);
  return {"conv_backward_data", f[0], columns_of(area, images), groups * phases, ceil_div(f[3] / groups, size), size * taps};
}

// `images`, `filters` and `acts` are In or Out: a tensor or its gradient.
#define CHECK_CONV(images, filters, acts)                                         \
  conv_problem(__func__, images, filters, acts, stride, padding, groups);         \
  check_precision(__func__, (images).dtype, precision);                           \
  CHECK(groups <= 65535);                                                         \
  CHECK(is_countable(images) && is_countable(filters) && is_countable(acts))

// Calls body(Filter{}): filters beside activities of bfloat16 may be float32, which those of fc layers are.
template <class T, class Body>
void with_filter_type(const In& filters, Body body) {
  if constexpr (std::is_same_v<T, bfloat16>)
    if (filters.dtype == Dtype::bfloat16) return body(T{});
  body(Computed<T>{});
}

void forward(Stream stream, In images, In filters, Out acts, Out workspace, int stride, int padding, int groups,
             Precision precision, In biases = {}, bool relu = false) {
  const Product product = forward_product(filters, acts, groups);
  const Way way = pick_way(stream, images.dtype, precision, product);
  const Conv conv{stride, padding, groups, way.parts, part_size(acts)};
  WITH_STORED_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, acts, workspace, epilogue_of<T>(biases, relu), [&]<class Target>(Images<Target> target, const Epilogue<Target>& epilogue) {
      with_any_tile<T>(way, is_vector(filters, images, acts, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        with_filter_type<T>(filters, [&]<class Filter>(Filter) {
          launch<conv_forward_kernel<T, Tile, Vector::value, Filter, Target>>(grid_of<Tile, Filter, T>(product, conv), stream,
                 images_of<T>(images), images_of<Filter>(filters), target, conv, epilogue);
        });
      });
    });
  });
}

void backward_data(Stream stream, In acts_grad, In filters, Out images_grad, Out workspace, int stride, int padding, int groups,
                   Precision precision, In images = {}) {
  const Product product = backward_data_product(filters, images_grad, stride, groups);
  const Way way = pick_way(stream, images_grad.dtype, precision, product);
  const Conv conv{stride, padding, groups, way.parts, part_size(images_grad)};
  const bool vector = is_vector(filters, acts_grad, images_grad, groups) && is_vectorizable(images);
  WITH_STORED_TYPE(images_grad, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, images_grad, workspace, relu_epilogue<T>(images, images_grad), [&]<class Target>(Images<Target> target, const Epilogue<Target>& epilogue) {
      with_any_tile<T>(way, vector, [&]<class Tile, class Vector>(Tile, Vector) {
        with_filter_type<T>(filters, [&]<class Filter>(Filter) {
          launch<conv_backward_data_kernel<T, Tile, Vector::value, Filter, Target>>(grid_of<Tile, Filter, T>(product, conv), stream,
                 images_of<T>(acts_grad), images_of<Filter>(filters), target, int(tiles_over(product.n, Tile::n)), conv, epilogue);
        });
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
  check_biases(__func__, biases, filters.shape[3], computed(images.dtype));
  CHECK_WORKSPACE(workspace, conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision));
  forward(stream, images, filters, acts, workspace, stride, padding, groups, precision, biases, relu);
}

void conv_backward_data(Stream stream, In acts_grad, In filters, Out images_grad, Out workspace, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images_grad, filters, acts_grad);
  CHECK_WORKSPACE(workspace, conv_backward_data_workspace(stream, acts_grad, filters, images_grad, stride, padding, groups, precision));
  backward_data(stream, acts_grad, filters, images_grad, workspace, stride, padding, groups, precision);
}

void conv_relu_backward_data(Stream stream, In acts_grad, In filters, In images, Out images_grad, Out workspace, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images_grad, filters, acts_grad);
  CHECK_RELU(images, images_grad);
  CHECK_WORKSPACE(workspace, conv_backward_data_workspace(stream, acts_grad, filters, images_grad, stride, padding, groups, precision));
  backward_data(stream, acts_grad, filters, images_grad, workspace, stride, padding, groups, precision, images);
}

void conv_backward_filters(Stream stream, In images, In acts_grad, Out filters_grad, Out workspace, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters_grad, acts_grad);
  CHECK_DTYPE(filters_grad, computed(images.dtype));
  const Product product = backward_filters_product(filters_grad, acts_grad, groups);
  const Way way = pick_way(stream, images.dtype, precision, product);
  const Conv conv{stride, padding, groups, way.parts, part_size(filters_grad)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, filters_grad));
  WITH_STORED_TYPE(images, [&]<class T>(T) {
    with_parts<Computed<T>>(stream, conv.parts, filters_grad, workspace, [&](Images<Computed<T>> target) {
      with_any_tile<T>(way, is_vector(filters_grad, images, acts_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<conv_backward_filters_kernel<T, Tile, Vector::value>>(grid_of<Tile, T, T>(product, conv), stream,
               images_of<T>(images), images_of<T>(acts_grad), target, conv);
      });
    });
  });
}

std::int64_t conv_forward_workspace(Stream stream, In images, In filters, Out acts, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters, acts);
  return parts_bytes(pick_way(stream, acts.dtype, precision, forward_product(filters, acts, groups)).parts, acts);
}

std::int64_t conv_bias_forward_workspace(Stream stream, In images, In filters, In, Out acts, int stride, int padding, int groups, Precision precision, bool) {
  return conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision);
}

std::int64_t conv_backward_data_workspace(Stream stream, In acts_grad, In filters, Out images_grad, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images_grad, filters, acts_grad);
  return parts_bytes(pick_way(stream, images_grad.dtype, precision, backward_data_product(filters, images_grad, stride, groups)).parts, images_grad);
}

std::int64_t conv_relu_backward_data_workspace(Stream stream, In acts_grad, In filters, In, Out images_grad, int stride, int padding, int groups, Precision precision) {
  return conv_backward_data_workspace(stream, acts_grad, filters, images_grad, stride, padding, groups, precision);
}

std::int64_t conv_backward_filters_workspace(Stream stream, In images, In acts_grad, Out filters_grad, int stride, int padding, int groups, Precision precision) {
  CHECK_CONV(images, filters_grad, acts_grad);
  CHECK_DTYPE(filters_grad, computed(images.dtype));
  return parts_bytes(pick_way(stream, images.dtype, precision, backward_filters_product(filters_grad, acts_grad, groups)).parts, filters_grad);
}

}  // namespace convnet

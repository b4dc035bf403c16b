// Locally connected layers: launchers.
#include "conv_launch.cuh"
#include "local.cuh"
#include "local_problem.h"
#include "ops.h"

namespace convnet {
namespace {

// Of each pixel of the acts, or, of local_backward_data, of the images.
template <class Acts>
Product local_forward_product(const In& filters, const Acts& acts, int groups) {
  const Shape &f = filters.shape, &y = acts.shape;
  return {"local_forward", f[3] / groups, columns_of(1, acts), groups * y[1] * y[2], f[0], f[1] * f[2]};
}

template <class Images>
Product local_backward_data_product(const In& filters, const Images& images, int stride, int groups) {
  const Shape &f = filters.shape, &x = images.shape;
  const std::int64_t s = stride, taps = ceil_div(f[1], s) * ceil_div(f[2], s), size = piece_of(filters.dtype);
  return {"local_backward_data", f[0], columns_of(1, images), groups * x[1] * x[2], ceil_div(f[3] / groups, size), size * taps};
}

template <class Filters>
Product local_backward_weights_product(const Filters& filters, const In& acts, int groups) {
  const Shape &f = filters.shape, &y = acts.shape;
  return {"local_backward_weights", f[3] / groups, f.rows(), groups * y[1] * y[2], 1, columns_of(1, acts)};
}

// What the kernels count in 32 bits, as in conv; and the rows of all weights.
#define CHECK_LOCAL(images, weights, acts)                                          \
  local_problem(__func__, images, weights, acts, stride, padding, groups);          \
  CHECK(groups <= 65535);                                                           \
  CHECK(is_countable(images) && is_countable(first_filters(weights)) && is_countable(acts)); \
  CHECK((weights).shape.rows() <= most_countable)

}  // namespace

void local_forward(Stream stream, In images, In weights, Out acts, Out workspace, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights, acts);
  const In filters = first_filters(weights);
  const Product product = local_forward_product(filters, acts, groups);
  const Way way = pick_way(product);
  const Conv conv{stride, padding, groups, way.parts, part_size(acts)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, acts));
  WITH_STORED_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, acts, workspace, [&]<class Target>(Images<Target> target) {
      with_tile<T>(way, is_vector(filters, images, acts, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<local_forward_kernel<T, Tile, Vector::value, Target>>(grid_of<Tile, T, T>(product, conv), stream,
               images_of<T>(images), images_of<Computed<T>>(filters), target, conv);
      });
    });
  });
}

void local_backward_data(Stream stream, In acts_grad, In weights, Out images_grad, Out workspace, int stride, int padding, int groups) {
  CHECK_LOCAL(images_grad, weights, acts_grad);
  const In filters = first_filters(weights);
  const Product product = local_backward_data_product(filters, images_grad, stride, groups);
  const Way way = pick_way(product);
  const Conv conv{stride, padding, groups, way.parts, part_size(images_grad)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, images_grad));
  WITH_STORED_TYPE(images_grad, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, images_grad, workspace, [&]<class Target>(Images<Target> target) {
      with_tile<T>(way, is_vector(filters, acts_grad, images_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<local_backward_data_kernel<T, Tile, Vector::value, Target>>(grid_of<Tile, T, T>(product, conv), stream,
               images_of<T>(acts_grad), images_of<Computed<T>>(filters), target, conv);
      });
    });
  });
}

void local_backward_weights(Stream stream, In images, In acts_grad, Out weights_grad, Out, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights_grad, acts_grad);
  const Out filters_grad = first_filters(weights_grad);
  const Product product = local_backward_weights_product(filters_grad, acts_grad, groups);
  const Conv conv{stride, padding, groups, 1, 0};
  WITH_STORED_TYPE(images, [&]<class T>(T) {
    with_tile<T>(pick_way(product), is_vector(filters_grad, images, acts_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
      launch<local_backward_weights_kernel<T, Tile, Vector::value>>(grid_of<Tile, T, T>(product, conv), stream,
             images_of<T>(images), images_of<T>(acts_grad), images_of<Computed<T>>(filters_grad), conv);
    });
  });
}

std::int64_t local_forward_workspace(Stream, In images, In weights, Out acts, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights, acts);
  return parts_bytes(pick_way(local_forward_product(first_filters(weights), acts, groups)).parts, acts);
}

std::int64_t local_backward_data_workspace(Stream, In acts_grad, In weights, Out images_grad, int stride, int padding, int groups) {
  CHECK_LOCAL(images_grad, weights, acts_grad);
  return parts_bytes(pick_way(local_backward_data_product(first_filters(weights), images_grad, stride, groups)).parts, images_grad);
}

std::int64_t local_backward_weights_workspace(Stream, In images, In acts_grad, Out weights_grad, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights_grad, acts_grad);
  return parts_bytes(pick_way(local_backward_weights_product(first_filters(weights_grad), acts_grad, groups)).parts, weights_grad);  // 0: there is one unit
}

}  // namespace convnet

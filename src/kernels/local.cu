// Locally connected layers: launchers.
#include "conv_launch.cuh"
#include "local.cuh"
#include "local_problem.h"
#include "ops.h"

namespace convnet {
namespace {

// Of each pixel of the acts, or, of local_backward_data, of the images.
Product local_forward_product(Shape filters, Shape acts, int groups) {
  return {"local_forward", filters[3] / groups, columns_of(1, acts), groups * acts[1] * acts[2], filters[0], filters[1] * filters[2]};
}

Product local_backward_data_product(Shape filters, Shape images, int stride, int groups) {
  const std::int64_t s = stride, taps = ceil_div(filters[1], s) * ceil_div(filters[2], s);
  return {"local_backward_data", filters[0], columns_of(1, images), groups * images[1] * images[2], ceil_div<std::int64_t>(filters[3] / groups, quad), quad * taps};
}

Product local_backward_weights_product(Shape filters, Shape acts, int groups) {
  return {"local_backward_weights", filters[3] / groups, filters.rows(), groups * acts[1] * acts[2], 1, columns_of(1, acts)};
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
  const Product product = local_forward_product(filters.shape, acts.shape, groups);
  const Way way = pick_way(product);
  const Conv conv{stride, padding, groups, way.parts, part_size(acts.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, acts));
  WITH_STORED_TYPE(images, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, acts, workspace, [&]<class Target>(Images<Target> target) {
      with_tile<T>(way, is_vector(filters, images, acts, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<local_forward_kernel<T, Tile, Vector::value, Target>>(grid_of<Tile>(product, conv), stream,
               images_of<T>(images), images_of<Computed<T>>(filters), target, conv);
      });
    });
  });
}

void local_backward_data(Stream stream, In acts_grad, In weights, Out images_grad, Out workspace, int stride, int padding, int groups) {
  CHECK_LOCAL(images_grad, weights, acts_grad);
  const In filters = first_filters(weights);
  const Product product = local_backward_data_product(filters.shape, images_grad.shape, stride, groups);
  const Way way = pick_way(product);
  const Conv conv{stride, padding, groups, way.parts, part_size(images_grad.shape)};
  CHECK_WORKSPACE(workspace, parts_bytes(conv.parts, images_grad));
  WITH_STORED_TYPE(images_grad, [&]<class T>(T) {
    with_parts<T>(stream, conv.parts, images_grad, workspace, [&]<class Target>(Images<Target> target) {
      with_tile<T>(way, is_vector(filters, acts_grad, images_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
        launch<local_backward_data_kernel<T, Tile, Vector::value, Target>>(grid_of<Tile>(product, conv), stream,
               images_of<T>(acts_grad), images_of<Computed<T>>(filters), target, conv);
      });
    });
  });
}

void local_backward_weights(Stream stream, In images, In acts_grad, Out weights_grad, Out, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights_grad, acts_grad);
  const Out filters_grad = first_filters(weights_grad);
  const Product product = local_backward_weights_product(filters_grad.shape, acts_grad.shape, groups);
  const Conv conv{stride, padding, groups, 1, 0};
  WITH_STORED_TYPE(images, [&]<class T>(T) {
    with_tile<T>(pick_way(product), is_vector(filters_grad, images, acts_grad, groups), [&]<class Tile, class Vector>(Tile, Vector) {
      launch<local_backward_weights_kernel<T, Tile, Vector::value>>(grid_of<Tile>(product, conv), stream,
             images_of<T>(images), images_of<T>(acts_grad), images_of<Computed<T>>(filters_grad), conv);
    });
  });
}

std::int64_t local_forward_workspace(Stream, In images, In weights, Out acts, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights, acts);
  return parts_bytes(pick_way(local_forward_product(first_filters(weights).shape, acts.shape, groups)).parts, acts);
}

std::int64_t local_backward_data_workspace(Stream, In acts_grad, In weights, Out images_grad, int stride, int padding, int groups) {
  CHECK_LOCAL(images_grad, weights, acts_grad);
  return parts_bytes(pick_way(local_backward_data_product(first_filters(weights).shape, images_grad.shape, stride, groups)).parts, images_grad);
}

std::int64_t local_backward_weights_workspace(Stream, In images, In acts_grad, Out weights_grad, int stride, int padding, int groups) {
  CHECK_LOCAL(images, weights_grad, acts_grad);
  return parts_bytes(pick_way(local_backward_weights_product(first_filters(weights_grad).shape, acts_grad.shape, groups)).parts, weights_grad);  // 0: there is one unit
}

}  // namespace convnet

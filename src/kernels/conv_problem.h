// What a convolution is, once its arguments have been found to agree: the same for its three ops.
#pragma once
#include "ops.h"

namespace convnet {

struct ConvProblem {
  int images, groups, stride, padding;
  int channels, height, width;  // of one group
  int filters, filter_height, filter_width;
  int acts_height, acts_width;
};

// `images`, `filters` and `acts` are In or Out: a tensor or its gradient.
template <class Images, class Filters, class Acts>
ConvProblem conv_problem(const char* op, const Images& images, const Filters& filters,
                         const Acts& acts, int stride, int padding, int groups) {
  check_rank(op, "images", images.shape, 4);
  check_rank(op, "filters", filters.shape, 4);
  if (filters.dtype != images.dtype) check_dtype(op, "filters", filters.dtype, computed(images.dtype));
  check_dtype(op, "acts", acts.dtype, images.dtype);
  if (images.dtype != Dtype::float32 && images.dtype != Dtype::float64 && images.dtype != Dtype::bfloat16)
    fail_check(op, std::string("images is ") + name_of(images.dtype) + ", expected float32, float64 or bfloat16");
  if (images.shape.size() == 0)
    fail_check(op, "nothing to do for images of shape " + to_string(images.shape));
  if (filters.shape.size() == 0)
    fail_check(op, "nothing to do for filters of shape " + to_string(filters.shape));
  if (groups < 1 || images.shape[0] % groups || filters.shape[3] % groups)
    fail_check(op, std::to_string(images.shape[0]) + " channels and " +
                       std::to_string(filters.shape[3]) + " filters cannot be divided into " +
                       std::to_string(groups) + " groups");
  if (filters.shape[0] != images.shape[0] / groups)
    fail_check(op, "filters of " + std::to_string(filters.shape[0]) + " channels, expected " +
                       std::to_string(images.shape[0] / groups) +
                       ": those of the images, divided by the groups");
  check_shape(op, "acts", acts.shape, conv_shape(images.shape, filters.shape, stride, padding));
  return {.images = int(images.shape[3]),
          .groups = groups,
          .stride = stride,
          .padding = padding,
          .channels = int(filters.shape[0]),
          .height = int(images.shape[1]),
          .width = int(images.shape[2]),
          .filters = int(filters.shape[3] / groups),
          .filter_height = int(filters.shape[1]),
          .filter_width = int(filters.shape[2]),
          .acts_height = int(acts.shape[1]),
          .acts_width = int(acts.shape[2])};
}

}  // namespace convnet

// What a locally connected layer is, once its arguments have been found to agree: the same for its three ops.
#pragma once
#include "conv_problem.h"

namespace convnet {

// The filters of pixel 0 of the acts, as a convolution has them.
template <class Tensor>
Tensor first_filters(Tensor weights) {
  const auto& dims = weights.shape.dims;
  weights.shape = {4, {dims[1], dims[2], dims[3], dims[4]}};
  return weights;
}

// `images`, `weights` and `acts` are In or Out: a tensor or its gradient.
template <class Images, class Weights, class Acts>
ConvProblem local_problem(const char* op, const Images& images, const Weights& weights,
                          const Acts& acts, int stride, int padding, int groups) {
  check_rank(op, "weights", weights.shape, 5);
  check_dtype(op, "weights", weights.dtype, computed(images.dtype));
  const ConvProblem problem =
      conv_problem(op, images, first_filters(weights), acts, stride, padding, groups);
  if (weights.shape[0] != acts.shape[1] * acts.shape[2])
    fail_check(op, "weights of " + std::to_string(weights.shape[0]) + " pixels, expected " +
                       std::to_string(acts.shape[1] * acts.shape[2]) + ": those of the acts");
  return problem;
}

}  // namespace convnet

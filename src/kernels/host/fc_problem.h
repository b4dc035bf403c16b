// What a fully connected layer is, once its arguments have been found to agree.
#pragma once
#include "../tensor.h"

namespace convnet {

struct FcProblem {
  std::int64_t inputs, outputs;
  int images;
};

// `inputs`, `weights` and `acts` are In or Out: a tensor or its gradient.
template <class Inputs, class Weights, class Acts>
FcProblem fc_problem(const char* op, const Inputs& inputs, const Weights& weights,
                     const Acts& acts) {
  check_dtype(op, "weights", weights.dtype, inputs.dtype);
  check_dtype(op, "acts", acts.dtype, inputs.dtype);
  check_rank(op, "weights", weights.shape, 2);
  if (weights.shape[0] != inputs.shape.rows() || weights.shape[1] != acts.shape.rows() ||
      inputs.shape.images() != acts.shape.images())
    fail_check(op, "inputs " + to_string(inputs.shape) + ", weights " + to_string(weights.shape) +
                       " and acts " + to_string(acts.shape) +
                       " do not fit, expected (.., images), (inputs, outputs) and (.., images)");
  if (inputs.shape.size() == 0 || acts.shape.size() == 0)
    fail_check(op, "nothing to do for tensors of no elements");
  return {weights.shape[0], weights.shape[1], int(inputs.shape.images())};
}

}  // namespace convnet

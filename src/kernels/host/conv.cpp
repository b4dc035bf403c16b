// Convolution on the host: the arguments, and which plan computes them.
#include "../ops.h"
#include "conv_filters.h"
#include "conv_gather.h"

namespace convnet {

std::int64_t conv_forward_workspace(Stream stream, In images, In filters, Out acts, int stride,
                                    int padding, int groups) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters, acts, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    bytes = workspace_bytes(Gather<T>(problem, false, thread_count(stream)), stream);
  });
  return bytes;
}

void conv_forward(Stream stream, In images, In filters, Out acts, Out workspace, int stride,
                  int padding, int groups) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters, acts, stride, padding, groups);
  check_workspace(__func__, workspace,
                  conv_forward_workspace(stream, images, filters, acts, stride, padding, groups));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    Gather<T>(problem, false, thread_count(stream))
        .run(stream, images, filters, acts, workspace.ptr);
  });
}

std::int64_t conv_backward_data_workspace(Stream stream, In acts_grad, In filters, Out images_grad,
                                          int stride, int padding, int groups) {
  const ConvProblem problem =
      conv_problem(__func__, images_grad, filters, acts_grad, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    bytes = workspace_bytes(Gather<T>(problem, true, thread_count(stream)), stream);
  });
  return bytes;
}

void conv_backward_data(Stream stream, In acts_grad, In filters, Out images_grad, Out workspace,
                        int stride, int padding, int groups) {
  const ConvProblem problem =
      conv_problem(__func__, images_grad, filters, acts_grad, stride, padding, groups);
  check_workspace(__func__, workspace,
                  conv_backward_data_workspace(stream, acts_grad, filters, images_grad, stride,
                                               padding, groups));
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    Gather<T>(problem, true, thread_count(stream))
        .run(stream, acts_grad, filters, images_grad, workspace.ptr);
  });
}

std::int64_t conv_backward_filters_workspace(Stream stream, In images, In acts_grad,
                                             Out filters_grad, int stride, int padding,
                                             int groups) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters_grad, acts_grad, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images,
                  [&]<class T>(T) { bytes = workspace_bytes(FilterSums<T>(problem), stream); });
  return bytes;
}

void conv_backward_filters(Stream stream, In images, In acts_grad, Out filters_grad, Out workspace,
                           int stride, int padding, int groups) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters_grad, acts_grad, stride, padding, groups);
  check_workspace(__func__, workspace,
                  conv_backward_filters_workspace(stream, images, acts_grad, filters_grad, stride,
                                                  padding, groups));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    FilterSums<T>(problem).run(stream, images, acts_grad, filters_grad, workspace.ptr);
  });
}

}  // namespace convnet

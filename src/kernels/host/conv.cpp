// Convolution on the host: the arguments, and which plan computes them.
#include <optional>

#include "../ops.h"
#include "conv_few_filters.h"
#include "conv_few_images.h"
#include "conv_filters.h"
#include "conv_gather.h"
#include "conv_winograd.h"
#include "conv_winograd_filters.h"

namespace convnet {

namespace {

// How many images are few: they leave a vector idle, or most of the last `chunk`, where images are
// the lanes.
template <class T>
int few_images(int images, int chunk) {
  if (images < simd::lanes<T>) return images;
  return images % chunk <= simd::lanes<T> / 2 ? images % chunk : 0;
}

ConvProblem with_images(ConvProblem problem, int images) {
  problem.images = images;
  return problem;
}

template <class T, class Tensor>
Tensor images_from(Tensor tensor, int first, int count) {
  tensor.ptr =
      static_cast<decltype(tensor.ptr)>(const_cast<T*>(static_cast<const T*>(tensor.ptr)) + first);
  tensor.shape.dims[tensor.shape.rank - 1] = count;
  return tensor;
}

template <class T>
struct GatherPlans {
  Stream stream;
  int few, many;
  std::optional<FewGather<T>> few_plan;
  std::optional<Gather<T>> many_plan;

  GatherPlans(Stream stream, const ConvProblem& problem, bool backward)
      : stream(stream),
        few(few_images<T>(problem.images, simd::lanes<T>)),
        many(problem.images - few) {
    if (few) few_plan.emplace(with_images(problem, few), backward);
    if (many) many_plan.emplace(with_images(problem, many), backward, thread_count(stream));
  }
  std::int64_t bytes() const {
    return std::max(few ? workspace_bytes(*few_plan, stream) : 0,
                    many ? workspace_bytes(*many_plan, stream) : 0);
  }
  void run(In inputs, In filters, Out outputs, void* memory, const Epilogue<T>& epilogue) const {
    if (many)
      many_plan->run(stream, images_from<T>(inputs, 0, many), filters,
                     images_from<T>(outputs, 0, many), memory, epilogue);
    if (few)
      few_plan->run(stream, images_from<T>(inputs, many, few), filters,
                    images_from<T>(outputs, many, few), memory, epilogue);
  }
};

template <class T>
struct FilterPlans {
  Stream stream;
  int few, many;
  std::int64_t few_sums = 0;  // room for those of the few, which the many add to theirs
  std::optional<FewFilterSums<T>> few_plan;
  std::optional<FilterSums<T>> many_plan;

  FilterPlans(Stream stream, const ConvProblem& problem)
      : stream(stream),
        few(few_images<T>(problem.images, FilterSums<T>::most_unit)),
        many(problem.images - few) {
    if (few) few_plan.emplace(with_images(problem, few));
    if (many) many_plan.emplace(with_images(problem, many));
    if (few && many)
      few_sums = std::int64_t(problem.channels) * problem.filter_height * problem.filter_width *
                 problem.filters * problem.groups;
  }
  std::int64_t bytes() const {
    WorkspaceParts parts(nullptr);
    parts.take<T>(few_sums);
    return parts.bytes() + std::max(few ? workspace_bytes(*few_plan, stream) : 0,
                                    many ? workspace_bytes(*many_plan, stream) : 0);
  }
  void run(In images, In acts_grad, Out filters_grad, void* memory) const {
    WorkspaceParts parts(memory);
    T* sums = parts.take<T>(few_sums);
    void* rest = static_cast<char*>(memory) + parts.bytes();
    if (few) {
      Out target = filters_grad;
      if (many)
        target = {sums, filters_grad.dtype, filters_grad.shape, filters_grad.shape.images(), false};
      few_plan->run(stream, images_from<T>(images, many, few), images_from<T>(acts_grad, many, few),
                    target, rest);
    }
    if (many)
      many_plan->run(stream, images_from<T>(images, 0, many), images_from<T>(acts_grad, 0, many),
                     filters_grad, rest, few ? sums : nullptr);
  }
};

// A plan that takes all images, with the queue that it is for.
template <class Plan>
struct OnStream {
  Stream stream;
  Plan plan;
  std::int64_t bytes() const { return workspace_bytes(plan, stream); }
  void run(In a, In b, Out target, void* memory) const { plan.run(stream, a, b, target, memory); }
  template <class T>
  void run(In a, In b, Out target, void* memory, const Epilogue<T>& epilogue) const {
    run(a, b, target, memory);
    finish(stream, target, target.shape[1] * target.shape[2], epilogue);
  }
};

// body(plan) with the plan that computes a problem at this precision.
template <class T, class Body>
void with_gather(Stream stream, const ConvProblem& problem, bool backward, Precision precision,
                 Body body) {
  if (precision == Precision::fast && winograd::pays(problem))
    body(OnStream<WinogradGather<T>>{stream, {problem, backward, thread_count(stream)}});
  else
    body(GatherPlans<T>(stream, problem, backward));
}

template <class T, class Body>
void with_filter_sums(Stream stream, const ConvProblem& problem, Precision precision, Body body) {
  if (precision == Precision::fast && winograd::pays(problem))
    body(OnStream<WinogradFilterSums<T>>{stream, WinogradFilterSums<T>(problem)});
  else
    body(FilterPlans<T>(stream, problem));
}

}  // namespace

std::int64_t conv_forward_workspace(Stream stream, In images, In filters, Out acts, int stride,
                                    int padding, int groups, Precision precision) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters, acts, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_gather<T>(stream, problem, false, precision,
                   [&](const auto& plan) { bytes = plan.bytes(); });
  });
  return bytes;
}

namespace {

void forward(const char* op, Stream stream, In images, In filters, Out acts, Out workspace,
             int stride, int padding, int groups, Precision precision, In biases = {},
             bool relu = false) {
  const ConvProblem problem = conv_problem(op, images, filters, acts, stride, padding, groups);
  check_workspace(
      op, workspace,
      conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_gather<T>(stream, problem, false, precision, [&](const auto& plan) {
      plan.run(images, filters, acts, workspace.ptr, epilogue_of<T>(biases, relu));
    });
  });
}

}  // namespace

void conv_forward(Stream stream, In images, In filters, Out acts, Out workspace, int stride,
                  int padding, int groups, Precision precision) {
  forward(__func__, stream, images, filters, acts, workspace, stride, padding, groups, precision);
}

std::int64_t conv_bias_forward_workspace(Stream stream, In images, In filters, In, Out acts,
                                         int stride, int padding, int groups,
                                         Precision precision, bool) {
  return conv_forward_workspace(stream, images, filters, acts, stride, padding, groups, precision);
}

void conv_bias_forward(Stream stream, In images, In filters, In biases, Out acts, Out workspace,
                       int stride, int padding, int groups, Precision precision, bool relu) {
  check_biases(__func__, biases, filters.shape[3], images.dtype);
  forward(__func__, stream, images, filters, acts, workspace, stride, padding, groups, precision,
          biases, relu);
}

std::int64_t conv_backward_data_workspace(Stream stream, In acts_grad, In filters, Out images_grad,
                                          int stride, int padding, int groups,
                                          Precision precision) {
  const ConvProblem problem =
      conv_problem(__func__, images_grad, filters, acts_grad, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    with_gather<T>(stream, problem, true, precision,
                   [&](const auto& plan) { bytes = plan.bytes(); });
  });
  return bytes;
}

namespace {

void backward_data(const char* op, Stream stream, In acts_grad, In filters, Out images_grad,
                   Out workspace, int stride, int padding, int groups, Precision precision,
                   In images = {}) {
  const ConvProblem problem =
      conv_problem(op, images_grad, filters, acts_grad, stride, padding, groups);
  check_workspace(op, workspace,
                  conv_backward_data_workspace(stream, acts_grad, filters, images_grad, stride,
                                               padding, groups, precision));
  WITH_FLOAT_TYPE(images_grad, [&]<class T>(T) {
    with_gather<T>(stream, problem, true, precision, [&](const auto& plan) {
      plan.run(acts_grad, filters, images_grad, workspace.ptr,
               relu_epilogue<T>(images, images_grad));
    });
  });
}

}  // namespace

void conv_backward_data(Stream stream, In acts_grad, In filters, Out images_grad, Out workspace,
                        int stride, int padding, int groups, Precision precision) {
  backward_data(__func__, stream, acts_grad, filters, images_grad, workspace, stride, padding,
                groups, precision);
}

std::int64_t conv_relu_backward_data_workspace(Stream stream, In acts_grad, In filters, In,
                                               Out images_grad, int stride, int padding,
                                               int groups, Precision precision) {
  return conv_backward_data_workspace(stream, acts_grad, filters, images_grad, stride, padding,
                                      groups, precision);
}

void conv_relu_backward_data(Stream stream, In acts_grad, In filters, In images, Out images_grad,
                             Out workspace, int stride, int padding, int groups,
                             Precision precision) {
  CHECK_RELU(images, images_grad);
  backward_data(__func__, stream, acts_grad, filters, images_grad, workspace, stride, padding,
                groups, precision, images);
}

std::int64_t conv_backward_filters_workspace(Stream stream, In images, In acts_grad,
                                             Out filters_grad, int stride, int padding, int groups,
                                             Precision precision) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters_grad, acts_grad, stride, padding, groups);
  std::int64_t bytes = 0;
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_filter_sums<T>(stream, problem, precision,
                        [&](const auto& plan) { bytes = plan.bytes(); });
  });
  return bytes;
}

void conv_backward_filters(Stream stream, In images, In acts_grad, Out filters_grad, Out workspace,
                           int stride, int padding, int groups, Precision precision) {
  const ConvProblem problem =
      conv_problem(__func__, images, filters_grad, acts_grad, stride, padding, groups);
  check_workspace(__func__, workspace,
                  conv_backward_filters_workspace(stream, images, acts_grad, filters_grad, stride,
                                                  padding, groups, precision));
  WITH_FLOAT_TYPE(images, [&]<class T>(T) {
    with_filter_sums<T>(stream, problem, precision, [&](const auto& plan) {
      plan.run(images, acts_grad, filters_grad, workspace.ptr);
    });
  });
}

}  // namespace convnet

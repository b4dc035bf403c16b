// Normalization within a map: launchers.
#include "spatial_norm.cuh"

namespace convnet {
namespace {

// `op`: what its user called.
template <bool centred>
void norm_forward(const char* op, Stream stream, In inputs, In means, Out denoms, Out acts, int size, double scale, double power, double bias) {
  with_stored_type(op, inputs.dtype, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      launch<spatial_norm_forward_kernel<ThreeQuarters::value, centred, T>>(rows_grid(acts.shape.rows(), acts.shape.images()), stream,
             images_of<T>(inputs), images_of<T>(means), images_of<Computed<T>>(denoms), images_of<T>(acts), windows_around(inputs.shape, size),
             Computed<T>(scale), Computed<T>(power), Computed<T>(bias));
    });
  });
}

// The terms, row by row without padding.
std::int64_t terms_bytes(const In& inputs) { return inputs.shape.size() * size_of(computed(inputs.dtype)); }

template <bool centred>
void norm_backward(const char* op, Stream stream, In inputs, In means, In denoms, In acts_grad, Out inputs_grad, Out workspace, int size,
              double scale, double power) {
  check_dtype(op, "workspace", workspace.dtype, Dtype::uint8);
  if (workspace.shape.size() < terms_bytes(inputs)) fail_check(op, "expected a workspace of " + std::to_string(terms_bytes(inputs)) + " bytes");
  const In terms{workspace.ptr, computed(inputs.dtype), inputs.shape, inputs.shape.images()};
  const Out new_terms{workspace.ptr, terms.dtype, terms.shape, terms.pitch, false};
  with_stored_type(op, inputs.dtype, [&]<class T>(T) {
    with_power(power, [&]<class ThreeQuarters>(ThreeQuarters) {
      const Grid grid = rows_grid(inputs.shape.rows(), inputs.shape.images());
      launch<spatial_norm_terms_kernel<ThreeQuarters::value, T>>(grid, stream,
             images_of<T>(inputs), images_of<Computed<T>>(denoms), images_of<T>(acts_grad), images_of<Computed<T>>(new_terms), Computed<T>(power));
      launch<spatial_norm_backward_kernel<ThreeQuarters::value, centred, T>>(grid, stream,
             images_of<T>(inputs), images_of<T>(means), images_of<Computed<T>>(denoms), images_of<T>(acts_grad), images_of<Computed<T>>(terms),
             images_of<T>(inputs_grad), windows_around(inputs.shape, size), Computed<T>(scale), Computed<T>(power));
    });
  });
}

}  // namespace

void spatial_lrn_forward(Stream stream, In inputs, Out denoms, Out acts, int size, double scale, double power, double bias) {
  checks::spatial_lrn_forward(inputs, denoms, acts, size);
  norm_forward<false>(__func__, stream, inputs, inputs, denoms, acts, size, scale, power, bias);
}

void spatial_lrn_backward(Stream stream, In inputs, In denoms, In acts_grad, Out inputs_grad, Out workspace, int size, double scale, double power) {
  checks::spatial_lrn_backward(inputs, denoms, acts_grad, inputs_grad, size);
  norm_backward<false>(__func__, stream, inputs, inputs, denoms, acts_grad, inputs_grad, workspace, size, scale, power);
}

std::int64_t spatial_lrn_backward_workspace(Stream, In inputs, In, In, Out, int, double, double) { return terms_bytes(inputs); }

void lcn_forward(Stream stream, In inputs, In means, Out denoms, Out acts, int size, double scale, double power, double bias) {
  checks::lcn_forward(inputs, means, denoms, acts, size);
  norm_forward<true>(__func__, stream, inputs, means, denoms, acts, size, scale, power, bias);
}

void lcn_backward(Stream stream, In inputs, In means, In denoms, In acts_grad, Out inputs_grad, Out workspace, int size, double scale, double power) {
  checks::lcn_backward(inputs, means, denoms, acts_grad, inputs_grad, size);
  norm_backward<true>(__func__, stream, inputs, means, denoms, acts_grad, inputs_grad, workspace, size, scale, power);
}

std::int64_t lcn_backward_workspace(Stream, In inputs, In, In, In, Out, int, double, double) { return terms_bytes(inputs); }

}  // namespace convnet

// Neurons on the host: the formulas, along the images.
#include "../neuron.h"
#include "loops.h"

namespace convnet {

void neuron_forward(Stream stream, In inputs, Out acts, Neuron neuron, double a, double b) {
  CHECK_LIKE(acts, inputs);
  WITH_FLOAT_TYPE(inputs, [&]<class T>(T) {
    const auto in = rows_of<T>(inputs);
    const auto out = rows_of<T>(acts);
    with_neuron(neuron, [&]<class Kind>(Kind) {
      for_numbers(stream, out.rows, out.images, acts.dtype, {out.pitch, in.pitch}, [&](std::int64_t r, int count) {
        store_row(out.row(r), count, out.add, [x = in.row(r), a = T(a), b = T(b)](int n) { return neuron_value<Kind::value>(x[n], a, b); });
      });
    });
  });
}

void neuron_backward(Stream stream, In saved, In acts_grad, Out inputs_grad, Neuron neuron, double a, double b) {
  CHECK_LIKE(acts_grad, saved);
  CHECK_LIKE(inputs_grad, saved);
  WITH_FLOAT_TYPE(saved, [&]<class T>(T) {
    const auto in = rows_of<T>(saved), grads = rows_of<T>(acts_grad);
    const auto out = rows_of<T>(inputs_grad);
    with_neuron(neuron, [&]<class Kind>(Kind) {
      for_numbers(stream, out.rows, out.images, saved.dtype, {out.pitch, in.pitch, grads.pitch}, [&](std::int64_t r, int count) {
        store_row(out.row(r), count, out.add, [s = in.row(r), g = grads.row(r), a = T(a), b = T(b)](int n) {
          return g[n] * neuron_slope<Kind::value>(s[n], a, b);
        });
      });
    });
  });
}

}  // namespace convnet

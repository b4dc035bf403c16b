// The formulas of the neurons, for device code and host.
#pragma once
#include <cmath>
#include <type_traits>
#include "ops.h"

namespace convnet {

// f(x). Comparisons are written so that a NaN stays one: it must not hide behind a relu.
template <Neuron neuron, class T>
HOST_DEVICE T neuron_value(T x, T a, T b) {
  if constexpr (neuron == Neuron::ident) return x;
  if constexpr (neuron == Neuron::relu) return x < 0 ? T(0) : x;
  if constexpr (neuron == Neuron::logistic) return 1 / (1 + std::exp(-x));
  if constexpr (neuron == Neuron::tanh) return a * std::tanh(b * x);
  if constexpr (neuron == Neuron::softrelu) return x > 4 ? x : std::log1p(std::exp(x));
  if constexpr (neuron == Neuron::abs) return std::abs(x);
  if constexpr (neuron == Neuron::square) return x * x;
  if constexpr (neuron == Neuron::sqrt) return std::sqrt(x);
  if constexpr (neuron == Neuron::linear) return a * x + b;
  if constexpr (neuron == Neuron::brelu) return x < 0 ? T(0) : x > a ? a : x;
  if constexpr (neuron == Neuron::drelu) return x - a * std::tanh(x / a);
  if constexpr (neuron == Neuron::log) return std::log(a + x);
}

// f'(x) from what is saved: x for abs, square, softrelu, drelu and log, f(x) for all others.
template <Neuron neuron, class T>
HOST_DEVICE T neuron_slope(T saved, T a, T b) {
  if constexpr (neuron == Neuron::ident) return 1;
  if constexpr (neuron == Neuron::relu) return saved > 0 ? 1 : 0;
  if constexpr (neuron == Neuron::logistic) return saved * (1 - saved);
  if constexpr (neuron == Neuron::tanh) return a * b * (1 - (saved / a) * (saved / a));
  if constexpr (neuron == Neuron::softrelu) return saved > 4 ? 1 : 1 / (1 + std::exp(-saved));
  if constexpr (neuron == Neuron::abs) return saved > 0 ? 1 : -1;
  if constexpr (neuron == Neuron::square) return 2 * saved;
  if constexpr (neuron == Neuron::sqrt) return 1 / (2 * saved);
  if constexpr (neuron == Neuron::linear) return a;
  if constexpr (neuron == Neuron::brelu) return saved > 0 && saved < a ? 1 : 0;
  if constexpr (neuron == Neuron::drelu) return std::tanh(saved / a) * std::tanh(saved / a);
  if constexpr (neuron == Neuron::log) return 1 / (a + saved);
}

// What neuron_backward of a relu makes of a gradient, from the acts: a NaN and an infinity show.
template <class T>
HOST_DEVICE T relu_gradient(T acts_grad, T acts) {
  return acts_grad * neuron_slope<Neuron::relu>(acts, T(1), T(1));
}

// Calls body(Kind{}) with Kind::value the neuron, known when compiling.
template <class Body>
void with_neuron(Neuron neuron, Body body) {
  switch (neuron) {
    case Neuron::ident: return body(std::integral_constant<Neuron, Neuron::ident>{});
    case Neuron::relu: return body(std::integral_constant<Neuron, Neuron::relu>{});
    case Neuron::logistic: return body(std::integral_constant<Neuron, Neuron::logistic>{});
    case Neuron::tanh: return body(std::integral_constant<Neuron, Neuron::tanh>{});
    case Neuron::softrelu: return body(std::integral_constant<Neuron, Neuron::softrelu>{});
    case Neuron::abs: return body(std::integral_constant<Neuron, Neuron::abs>{});
    case Neuron::square: return body(std::integral_constant<Neuron, Neuron::square>{});
    case Neuron::sqrt: return body(std::integral_constant<Neuron, Neuron::sqrt>{});
    case Neuron::linear: return body(std::integral_constant<Neuron, Neuron::linear>{});
    case Neuron::brelu: return body(std::integral_constant<Neuron, Neuron::brelu>{});
    case Neuron::drelu: return body(std::integral_constant<Neuron, Neuron::drelu>{});
    case Neuron::log: return body(std::integral_constant<Neuron, Neuron::log>{});
  }
}

}  // namespace convnet

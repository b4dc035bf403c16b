// The Python surface: one line per op, and the backend's runtime. Compiled once, linked into every backend's
// module, each with its own definitions of the functions in ops.h and runtime.h.
#include <pybind11/stl.h>
#include "op_docs.h"
#include "ops.h"
#include "runtime.h"
#include "tensor_caster.h"
#include "tiles.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

// An op as Python calls it: put into the queue of its stream.
template <auto op>
struct Queued;
template <class... Args, void (*op)(convnet::Stream, Args...)>
struct Queued<op> {
  static void call(convnet::Stream stream, Args... args) {
    convnet::submit(stream, [=] { op(stream, args...); });
  }
};

#define OP(name, ...) \
  m.def(#name, &Queued<&convnet::name>::call, doc_##name, "stream"_a, __VA_ARGS__, py::call_guard<py::gil_scoped_release>())
#define WORKSPACE(name, ...) m.def(#name "_workspace", &convnet::name##_workspace, "stream"_a, __VA_ARGS__)
#define SHAPE(name, ...) m.def(#name, &convnet::name, doc_##name, __VA_ARGS__)
#define RUNTIME(name, ...) m.def(#name, &convnet::name, __VA_ARGS__, py::call_guard<py::gil_scoped_release>())

void define_ops(py::module_& m) {
  const auto named = py::kw_only();
#define PRECISION "precision"_a = "exact"
#define WINDOW named, "stride"_a, "padding"_a, "groups"_a
#define CONV WINDOW, PRECISION
  SHAPE(conv_shape, "images"_a, "filters"_a, named, "stride"_a, "padding"_a);
  OP(conv_forward, "images"_a, "filters"_a, "acts"_a, "workspace"_a, CONV);
  OP(conv_bias_forward, "images"_a, "filters"_a, "biases"_a, "acts"_a, "workspace"_a, CONV, "relu"_a = false);
  OP(conv_backward_data, "acts_grad"_a, "filters"_a, "images_grad"_a, "workspace"_a, CONV);
  OP(conv_relu_backward_data, "acts_grad"_a, "filters"_a, "images"_a, "images_grad"_a, "workspace"_a, CONV);
  OP(conv_backward_filters, "images"_a, "acts_grad"_a, "filters_grad"_a, "workspace"_a, CONV);
  WORKSPACE(conv_forward, "images"_a, "filters"_a, "acts"_a, CONV);
  WORKSPACE(conv_bias_forward, "images"_a, "filters"_a, "biases"_a, "acts"_a, CONV, "relu"_a = false);
  WORKSPACE(conv_backward_data, "acts_grad"_a, "filters"_a, "images_grad"_a, CONV);
  WORKSPACE(conv_relu_backward_data, "acts_grad"_a, "filters"_a, "images"_a, "images_grad"_a, CONV);
  WORKSPACE(conv_backward_filters, "images"_a, "acts_grad"_a, "filters_grad"_a, CONV);

  OP(local_forward, "images"_a, "weights"_a, "acts"_a, "workspace"_a, WINDOW);
  OP(local_backward_data, "acts_grad"_a, "weights"_a, "images_grad"_a, "workspace"_a, WINDOW);
  OP(local_backward_weights, "images"_a, "acts_grad"_a, "weights_grad"_a, "workspace"_a, WINDOW);
  WORKSPACE(local_forward, "images"_a, "weights"_a, "acts"_a, WINDOW);
  WORKSPACE(local_backward_data, "acts_grad"_a, "weights"_a, "images_grad"_a, WINDOW);
  WORKSPACE(local_backward_weights, "images"_a, "acts_grad"_a, "weights_grad"_a, WINDOW);

  OP(gather_forward, "inputs"_a, "channels"_a, "acts"_a);
  OP(gather_backward, "acts_grad"_a, "channels"_a, "inputs_grad"_a);

  OP(fc_forward, "inputs"_a, "weights"_a, "acts"_a, "workspace"_a, named, PRECISION);
  OP(fc_bias_forward, "inputs"_a, "weights"_a, "biases"_a, "acts"_a, "workspace"_a, named, PRECISION, "relu"_a = false);
  OP(fc_backward_data, "acts_grad"_a, "weights"_a, "inputs_grad"_a, "workspace"_a, named, PRECISION);
  OP(fc_relu_backward_data, "acts_grad"_a, "weights"_a, "inputs"_a, "inputs_grad"_a, "workspace"_a, named, PRECISION);
  OP(fc_backward_weights, "inputs"_a, "acts_grad"_a, "weights_grad"_a, "workspace"_a, named, PRECISION);
#define SGD_STEP "rate_slot"_a, "momentum"_a, "decay"_a, "images"_a
#define SGD named, SGD_STEP
  OP(fc_backward_update, "inputs"_a, "acts_grad"_a, "state"_a, "increments"_a, "weights"_a, "workspace"_a, named, PRECISION, SGD_STEP);
  WORKSPACE(fc_backward_update, "inputs"_a, "acts_grad"_a, "state"_a, "increments"_a, "weights"_a, named, PRECISION, SGD_STEP);
  WORKSPACE(fc_forward, "inputs"_a, "weights"_a, "acts"_a, named, PRECISION);
  WORKSPACE(fc_bias_forward, "inputs"_a, "weights"_a, "biases"_a, "acts"_a, named, PRECISION, "relu"_a = false);
  WORKSPACE(fc_backward_data, "acts_grad"_a, "weights"_a, "inputs_grad"_a, named, PRECISION);
  WORKSPACE(fc_relu_backward_data, "acts_grad"_a, "weights"_a, "inputs"_a, "inputs_grad"_a, named, PRECISION);
  WORKSPACE(fc_backward_weights, "inputs"_a, "acts_grad"_a, "weights_grad"_a, named, PRECISION);

  OP(bias_forward, "biases"_a, "acts"_a);
  OP(bias_backward, "acts_grad"_a, "biases_grad"_a, "workspace"_a);
  WORKSPACE(bias_backward, "acts_grad"_a, "biases_grad"_a);

#define POOL named, "size"_a, "stride"_a, "start"_a
  SHAPE(pool_shape, "inputs"_a, POOL);
  OP(max_pool_forward, "inputs"_a, "acts"_a, POOL);
  OP(max_pool_backward, "inputs"_a, "acts"_a, "acts_grad"_a, "inputs_grad"_a, POOL, "relu"_a = false);
  OP(maxabs_pool_forward, "inputs"_a, "acts"_a, POOL);
  OP(avg_pool_forward, "inputs"_a, "acts"_a, POOL, "sum"_a = false);
  OP(avg_pool_backward, "acts_grad"_a, "inputs_grad"_a, POOL, "sum"_a = false);
  OP(avg_pool_relu_backward, "acts_grad"_a, "inputs"_a, "inputs_grad"_a, POOL, "sum"_a = false);
  OP(random_pool_forward, "inputs"_a, "state"_a, "acts"_a, POOL, "seed"_a, "purpose"_a, "first_image"_a);
  OP(random_pool_backward, "inputs"_a, "state"_a, "acts_grad"_a, "inputs_grad"_a, POOL, "seed"_a, "purpose"_a, "first_image"_a);
  OP(expected_pool_forward, "inputs"_a, "acts"_a, POOL);
  OP(expected_pool_backward, "inputs"_a, "acts"_a, "acts_grad"_a, "inputs_grad"_a, POOL);
  OP(cross_map_max_pool_forward, "inputs"_a, "acts"_a, POOL);
  OP(cross_map_max_pool_backward, "inputs"_a, "acts"_a, "acts_grad"_a, "inputs_grad"_a, POOL);

#define NORM named, "size"_a, "scale"_a, "power"_a
  OP(lrn_forward, "inputs"_a, "denoms"_a, "acts"_a, NORM, "bias"_a, "blocked"_a = false);
  OP(lrn_backward, "inputs"_a, "denoms"_a, "acts_grad"_a, "inputs_grad"_a, NORM, "blocked"_a = false, "relu"_a = false);
#define LRN_POOL NORM, "bias"_a, "pool_size"_a, "stride"_a, "start"_a
  OP(lrn_max_pool_forward, "inputs"_a, "acts"_a, LRN_POOL);
  OP(lrn_max_pool_backward, "inputs"_a, "acts"_a, "acts_grad"_a, "inputs_grad"_a, LRN_POOL, "relu"_a = false);
  OP(spatial_lrn_forward, "inputs"_a, "denoms"_a, "acts"_a, NORM, "bias"_a);
  OP(spatial_lrn_backward, "inputs"_a, "denoms"_a, "acts_grad"_a, "inputs_grad"_a, "workspace"_a, NORM);
  WORKSPACE(spatial_lrn_backward, "inputs"_a, "denoms"_a, "acts_grad"_a, "inputs_grad"_a, NORM);
  OP(lcn_forward, "inputs"_a, "means"_a, "denoms"_a, "acts"_a, NORM, "bias"_a);
  OP(lcn_backward, "inputs"_a, "means"_a, "denoms"_a, "acts_grad"_a, "inputs_grad"_a, "workspace"_a, NORM);
  WORKSPACE(lcn_backward, "inputs"_a, "means"_a, "denoms"_a, "acts_grad"_a, "inputs_grad"_a, NORM);

#define SLICE named, "top"_a, "left"_a, "down"_a, "across"_a
  OP(blur, "inputs"_a, "acts"_a, named, "size"_a, "stdev"_a);
  OP(slice_forward, "inputs"_a, "acts"_a, SLICE);
  OP(slice_backward, "acts_grad"_a, "inputs_grad"_a, SLICE);
  SHAPE(resize_shape, "inputs"_a, named, "scale"_a);
  OP(resize, "inputs"_a, "acts"_a, named, "scale"_a);
  OP(random_scale_crop, "inputs"_a, "state"_a, "acts"_a, named, "max_scale"_a, "seed"_a, "purpose"_a);
  OP(rgb_to_yuv, "inputs"_a, "acts"_a);
  OP(rgb_to_lab, "inputs"_a, "acts"_a, named, "center"_a);

  OP(neuron_forward, "inputs"_a, "acts"_a, named, "neuron"_a, "a"_a = 1, "b"_a = 1);
  OP(neuron_backward, "saved"_a, "acts_grad"_a, "inputs_grad"_a, named, "neuron"_a, "a"_a = 1, "b"_a = 1);

  OP(dropout, "inputs"_a, "state"_a, "acts"_a, named, "keep"_a, "scale"_a, "seed"_a, "purpose"_a, "first_image"_a);
  OP(noisy_relu, "inputs"_a, "state"_a, "acts"_a, named, "seed"_a, "purpose"_a, "first_image"_a);

  OP(softmax_forward, "inputs"_a, "acts"_a);
  OP(softmax_backward, "acts"_a, "acts_grad"_a, "inputs_grad"_a);
  OP(logreg_forward, "labels"_a, "probs"_a, "costs"_a, "workspace"_a, named, "topk"_a);
  WORKSPACE(logreg_forward, "labels"_a, "probs"_a, "costs"_a, named, "topk"_a);
  OP(logreg_backward, "labels"_a, "probs"_a, "probs_grad"_a, named, "coeff"_a);
  OP(logreg_softmax_backward, "labels"_a, "probs"_a, "inputs_grad"_a, named, "coeff"_a);
  OP(logreg_softmax, "labels"_a, "inputs"_a, "state"_a, "probs"_a, "costs"_a, "inputs_grad"_a, "workspace"_a, named, "topk"_a, "coeff"_a);
  WORKSPACE(logreg_softmax, "labels"_a, "inputs"_a, "state"_a, "probs"_a, "costs"_a, "inputs_grad"_a, named, "topk"_a, "coeff"_a);

  OP(sum2_forward, "inputs"_a, "costs"_a);
  OP(gsum2_forward, "gates"_a, "inputs"_a, "costs"_a);
  OP(gsum2_backward_gates, "inputs"_a, "gates_grad"_a, named, "coeff"_a);
  OP(gsum2_backward_inputs, "gates"_a, "inputs"_a, "inputs_grad"_a, named, "coeff"_a);
  OP(rflickr_forward, "targets"_a, "inputs"_a, "costs"_a);
  OP(rflickr_backward, "targets"_a, "inputs"_a, "inputs_grad"_a, named, "coeff"_a);
  OP(bce_forward, "targets"_a, "probs"_a, "costs"_a, named, "positive_weight"_a);
  OP(bce_backward, "targets"_a, "probs"_a, "probs_grad"_a, named, "coeff"_a, "positive_weight"_a);
  OP(bce_logistic_backward, "targets"_a, "probs"_a, "inputs_grad"_a, named, "coeff"_a, "positive_weight"_a);

  OP(scaled_copy, "inputs"_a, "acts"_a, named, "factor"_a);
  OP(to_half, "values"_a, "halves"_a);
  OP(from_half, "halves"_a, "values"_a);
  OP(eltmax_forward, "inputs"_a, "others"_a, "acts"_a);
  OP(eltmax_backward, "inputs"_a, "acts"_a, "acts_grad"_a, "inputs_grad"_a);
  OP(sum_columns, "inputs"_a, "starts"_a, "members"_a, "sums"_a);
  OP(image_forward, "pixels"_a, "mean"_a, "state"_a, "acts"_a, named, "random"_a, "view"_a, "images_per_crop"_a, "seed"_a, "purpose"_a, "first_image"_a);
  OP(noisy_image_forward, "pixels"_a, "mean"_a, "colors"_a, "state"_a, "acts"_a, named, "scale"_a, "images_per_crop"_a, "seed"_a, "purpose"_a, "first_image"_a);
  OP(sgd_update, "state"_a, "weights_grad"_a, "increments"_a, "weights"_a, SGD);
  OP(sgd_update_many, "state"_a, "weights_grad"_a, "increments"_a, "weights"_a, SGD);
  OP(tree_update, "state"_a, "weights_grad"_a, "counts"_a, "increments"_a, "weights"_a, SGD);
  OP(adaptive_update, "state"_a, "weights_grad"_a, "means"_a, "squares"_a, "increments"_a, "weights"_a, named, "rate_slot"_a, "momentum"_a, "decay"_a,
     "epsilon"_a, "images"_a);
  OP(limit_norms, "state"_a, "weights"_a, named, "limit"_a, "exactly"_a);
  OP(limit_spreads, "state"_a, "weights"_a, named, "least"_a, "most"_a);
  OP(check_finite, "values"_a, "state"_a);

  // What each op reads and writes: "In:images In:filters Out:acts int:stride".
  py::dict signatures;
  for (const auto& [name, parameters] : op_signatures) signatures[name] = parameters;
  m.attr("signatures") = signatures;
}

void define_runtime(py::module_& m) {
  m.def("pack", [](const convnet::Out& tensor) { return py::bytes(reinterpret_cast<const char*>(&tensor), sizeof tensor); }, "tensor"_a,
        "A tensor in the form that ops take fastest; opaque, and good for this process alone.");
  RUNTIME(device_count, "How many devices there are; 0: as many as one likes.");
  RUNTIME(device_name, "device"_a);
  RUNTIME(free_memory, "device"_a);
  RUNTIME(total_memory, "device"_a);
  RUNTIME(allocate, "device"_a, "bytes"_a);
  RUNTIME(release, "device"_a, "ptr"_a);
  m.def("stream_create", [](int device, int threads) { return convnet::stream_create(device, threads).handle; }, "device"_a, "threads"_a);
  RUNTIME(stream_destroy, "stream"_a);
  RUNTIME(stream_synchronize, "stream"_a);
  RUNTIME(event_create, "device"_a);
  RUNTIME(event_destroy, "event"_a);
  RUNTIME(event_record, "stream"_a, "event"_a);
  RUNTIME(event_wait, "stream"_a, "event"_a);
  RUNTIME(event_seconds, "first"_a, "last"_a);
  RUNTIME(copy_bytes, "stream"_a, "destination"_a, "destination_device"_a, "source"_a, "source_device"_a, "bytes"_a);
  m.def("upload", [](convnet::Stream stream, std::uintptr_t destination, std::uintptr_t source, std::int64_t bytes) {
    convnet::upload(stream, destination, reinterpret_cast<const void*>(source), bytes);
  }, "stream"_a, "destination"_a, "source"_a, "bytes"_a, py::call_guard<py::gil_scoped_release>());
  m.def("download", [](convnet::Stream stream, std::uintptr_t destination, std::uintptr_t source, std::int64_t bytes) {
    convnet::download(stream, reinterpret_cast<void*>(destination), source, bytes);
  }, "stream"_a, "destination"_a, "source"_a, "bytes"_a, py::call_guard<py::gil_scoped_release>());
  m.def("graph_capture", [](const std::vector<convnet::Stream>& streams, const py::function& body) {
    return convnet::graph_capture(streams, [&] { body(); });
  }, "streams"_a, "body"_a, "Records what `body` queues there; launches run it.");
  RUNTIME(graph_launch, "graph"_a);
  RUNTIME(graph_destroy, "graph"_a);
  m.def("call", [](convnet::Stream stream, std::uintptr_t function, const std::string& tensors, const std::string& numbers) {
    convnet::submit(stream, [=] {
      reinterpret_cast<convnet::OwnFunction>(function)(stream, reinterpret_cast<const convnet::Out*>(tensors.data()), reinterpret_cast<const double*>(numbers.data()));
    });
  }, "stream"_a, "function"_a, "tensors"_a, "numbers"_a, py::call_guard<py::gil_scoped_release>(),
        "Queues a function of a library that stays loaded (own/layer.cu); tensors: packed, one behind the other; numbers: float64.");
  m.def("run_multiply_adds", [](convnet::Stream stream, const std::string& dtype) {
    return convnet::run_multiply_adds(stream, dtype == "float64" ? convnet::Dtype::float64 : convnet::Dtype::float32);
  }, "stream"_a, "dtype"_a = "float32", py::call_guard<py::gil_scoped_release>());
  RUNTIME(measure_bandwidth, "stream"_a);
  m.def("set_tiles", &convnet::set_tiles, "tiles"_a, "{(op, precision, m, n, groups, units, unit): (tile, parts)}, in place of the rule; host has no tiles.");
  m.def("last_tile", &convnet::last_tile, "An item of such a table: the product that this thread asked for last, and its way.");
}

void define(py::module_& m) {
  define_ops(m);
  define_runtime(m);
}

}  // namespace

// One object, linked five times: Python calls the one that the file is named for.
PYBIND11_MODULE(_host_baseline, m) { define(m); }
PYBIND11_MODULE(_host_avx2, m) { define(m); }
PYBIND11_MODULE(_host_avx512, m) { define(m); }
PYBIND11_MODULE(_simt, m) { define(m); }
PYBIND11_MODULE(_cuda, m) { define(m); }

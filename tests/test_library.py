"""convnet.ops: the functions of ops.h on arrays. Arrays on a GPU are played by the host backend and stand-ins."""
from __future__ import annotations

import ctypes
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import convnet
import ops as cases_of_ops
from convnet import arrays, gpuarray
from convnet.backends import Device, Tensor, cuda_problem, decoded, encoded, host_view, load_module
from convnet.errors import NoSuchDevice
from convnet.library import Library
from ops import Case, normal

SHAPE = (3, 7, 5, 6)
OF_PLANS = {"sgd_update_many"}  # takes lists, and is not in the library


@pytest.fixture(params=["host", "simt"] + ([] if cuda_problem() else ["cuda"]))
def ops(request):
    return convnet.ops(request.param)


@pytest.fixture
def x():
    return normal(*SHAPE).astype(np.float32)


def relu(x):
    return np.maximum(x, 0)


def one_case_of_each_op() -> list[Case]:
    modules = [importlib.import_module(f"ops.{m.name}") for m in pkgutil.iter_modules(cases_of_ops.__path__)]
    return list({case.op: case for module in modules for case in reversed(module.CASES) if case.op not in OF_PLANS}.values())


# ---- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_op_gives_a_new_array_of_the_inputs_type(ops, x, dtype):
    acts = ops.neuron_forward(x.astype(dtype), neuron="relu")
    assert acts.dtype == dtype and (acts == relu(x)).all()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.op) for case in one_case_of_each_op()])
def test_every_op_gives_what_its_reference_gives(ops, case):
    op, types = getattr(ops, case.op), case.keep
    given = {n: np.array(a, types.get(n, "float64")) for n, a in (case.inputs | case.initial).items()}
    if "shape" in inspect.signature(op).parameters:
        given["shape"] = next(iter(case.outputs.values()))
    results = op(**given, **case.scalars)
    expected, bounds = case.expected(), case.bound(2.0**-53)
    for result, right, bound in zip(results if isinstance(results, tuple) else (results,), expected, bounds, strict=True):
        assert result.shape == right.shape and (np.abs(result - right) <= bound).all()


def test_threads_do_not_disturb_each_other(ops, x):
    weights = [normal(105, 4, seed=seed).astype(np.float32) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for w, acts in zip(weights * 4, pool.map(ops.fc_forward, [x] * 32, weights * 4), strict=True):
            assert (acts == ops.fc_forward(x, w)).all()


def test_an_op_writes_out_and_returns_it(ops, x):
    acts = np.full_like(x, np.nan)
    assert ops.neuron_forward(x, neuron="relu", out=acts) is acts
    assert (acts == relu(x)).all()


def test_add_adds_to_what_out_holds(ops, x):
    acts = np.ones_like(x)
    ops.neuron_forward(x, neuron="relu", out=acts, add=True)
    assert (acts == 1 + relu(x)).all()


def test_an_op_of_two_outputs_gives_both(ops, x):
    denoms, acts = ops.lrn_forward(x, size=1, scale=2.0, power=1.0)
    np.testing.assert_allclose(denoms, 1 + 2 * x**2, rtol=1e-6)
    np.testing.assert_allclose(acts, x / denoms, rtol=1e-6)
    mine = np.empty_like(x), np.empty_like(x)
    given = ops.lrn_forward(x, size=1, scale=2.0, power=1.0, out=mine)
    assert given[0] is mine[0] and (mine[1] == acts).all()


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x[:, ::2], lambda x: x.astype(">f4"), np.asfortranarray,
                                    lambda x: np.frombuffer(b"?" + x.tobytes(), "u1")[1:].view("f4").reshape(x.shape)],
                         ids=["reversed", "strided", "big-endian", "fortran", "unaligned"])
def test_inputs_of_any_layout_are_taken(ops, x, change):
    assert (ops.neuron_forward(change(x), neuron="relu") == relu(change(x))).all()


def test_convolution_and_pooling_know_their_outputs_shape(ops, x):
    filters = normal(3, 3, 3, 4).astype(np.float32)
    assert ops.conv_shape(x.shape, filters.shape, padding=1) == (4, 7, 5, 6)
    acts = ops.conv_forward(x, filters, padding=1)
    assert acts.shape == (4, 7, 5, 6)
    assert ops.conv_backward_data(acts, filters, padding=1, shape=x.shape).shape == x.shape
    assert ops.conv_backward_filters(x, acts, padding=1, shape=filters.shape).shape == filters.shape


def test_a_fully_connected_layer_takes_maps_for_rows(ops, x):
    weights = normal(105, 4).astype(np.float32)
    acts = ops.fc_forward(x, weights)
    np.testing.assert_allclose(acts, weights.T @ x.reshape(105, 6), rtol=1e-4, atol=1e-4)
    assert ops.fc_backward_weights(x, acts).shape == weights.shape
    assert ops.fc_backward_data(acts, weights).shape == (105, 6)
    assert ops.fc_backward_data(acts, weights, shape=x.shape).shape == x.shape


def test_pooling_goes_there_and_back(ops, x):
    acts = ops.max_pool_forward(x, size=3, stride=2)
    assert acts.shape == ops.pool_shape(x.shape, size=3, stride=2) == (3, 3, 2, 6)
    assert ops.max_pool_backward(x, acts, acts, size=3, stride=2).shape == x.shape
    assert ops.avg_pool_backward(acts, size=3, stride=2, shape=x.shape).shape == x.shape


def test_a_gradient_behind_a_relu_has_the_shape_of_its_acts(ops, x):
    filters, weights = normal(3, 3, 3, 4).astype(np.float32), normal(105, 4).astype(np.float32)
    acts_grad, pooled = ops.conv_forward(x, filters, padding=1), ops.avg_pool_forward(x, size=3, stride=2)
    for op, *reads, scalars in (("conv", acts_grad, filters, {"padding": 1}), ("fc", ops.fc_forward(x, weights), weights, {}), ("avg_pool", pooled, {"size": 3, "stride": 2})):
        data = "" if op == "avg_pool" else "_data"
        plain = getattr(ops, f"{op}_backward{data}")(*reads, **scalars, shape=x.shape)
        assert (getattr(ops, f"{op}_relu_backward{data}")(*reads, x, **scalars) == plain * (x > 0)).all()


def test_biases_are_shared_or_not_as_the_shape_says(ops, x):
    assert (ops.bias_forward(np.arange(3, dtype="f4"), shape=SHAPE)[2] == 2).all()
    assert ops.bias_backward(x).shape == (3,)
    assert (ops.bias_backward(x[..., :0]) == 0).all()  # of no images
    np.testing.assert_allclose(ops.bias_backward(x, shape=(105,)), x.reshape(105, 6).sum(1), rtol=1e-5, atol=1e-5)


def test_the_cost_is_three_numbers(ops):
    probs = np.full((4, 1, 1, 6), 0.25, np.float32)
    costs = ops.logreg_forward(np.zeros((1, 1, 1, 6), np.float32), probs)
    np.testing.assert_allclose(costs, [6 * np.log(4), 4.5, 4.5])


def test_dropout_draws_by_step(ops, x):
    ones = np.ones_like(x)
    first = ops.dropout(ones, keep=0.5, seed=1, step=3)
    assert 0 < first.sum() < first.size
    assert (first == ops.dropout(ones, keep=0.5, seed=1, state=np.array([3.0, 1.0]))).all()
    assert (first != ops.dropout(ones, keep=0.5, seed=1, step=4)).any()


def test_images_are_cropped_to_the_means_shape(ops):
    pixels = np.arange(2 * 3 * 6 * 6, dtype=np.uint8).reshape(2, 3, 6, 6)
    acts = ops.image_forward(pixels, np.ones((3, 4, 4), np.float32))
    assert (np.moveaxis(acts, -1, 0) == pixels[:, :, 1:5, 1:5] - np.float32(1)).all()


def test_colour_noise_is_one_colour_for_all_pixels_of_an_image(ops):
    pixels = np.arange(4 * 3 * 6 * 6).reshape(4, 3, 6, 6).astype(np.uint8)
    mean, colors = np.full((3, 4, 4), 9, np.float32), np.eye(3, 2, dtype=np.float32)
    noise = ops.noisy_image_forward(pixels, mean, colors, seed=5, step=2) - ops.image_forward(pixels, mean, random=True, seed=5, step=2)
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:, :1, :1], noise.shape), atol=1e-4)
    assert (noise[2] == 0).all() and len(np.unique(noise[:2, 0, 0].round(3))) == 8
    assert (np.moveaxis(ops.image_forward(pixels, mean, view=8), -1, 0) == pixels[:, :, 2:, 3::-1] - np.float32(9)).all()


def test_an_update_changes_the_callers_arrays(ops, x):
    weights, increments = x.copy(), np.zeros_like(x)
    given = ops.sgd_update(np.ones_like(x), increments, weights, rate=0.5, images=1)
    assert given[0] is increments and given[1] is weights
    assert (increments == -0.5).all() and (weights == x - np.float32(0.5)).all()


def test_check_finite_says_so_in_the_state(ops, x):
    assert ops.check_finite(x)[1] == 1
    state = np.array([7.0, 1.0])
    x[1, 2, 3, 4] = np.inf
    assert ops.check_finite(x, state=state) is state and state.tolist() == [7, 0]


def test_elementwise_ops_work_in_place(ops, x):
    expected = relu(x)
    assert (ops.neuron_forward(x, neuron="relu", out=x) == expected).all()


# ---- mistakes ------------------------------------------------------------------------------------------


def mistake(expected, op):
    return pytest.param(op, expected, id=expected[:60])


@pytest.mark.parametrize("wrong, expected", [
    mistake("neuron_forward: inputs is int64, expected float32 or float64", lambda ops, x: ops.neuron_forward(x.astype(int), neuron="relu")),
    mistake("softmax_backward: acts_grad is float64, expected float32 like acts", lambda ops, x: ops.softmax_backward(x, x.astype("f8"))),
    mistake("neuron_forward: acts is float64, expected float32 like inputs", lambda ops, x: ops.neuron_forward(x, neuron="relu", out=x.astype("f8"))),
    mistake("image_forward: pixels is float32, expected uint8", lambda ops, x: ops.image_forward(x, x[..., 0])),
    mistake("dropout: state is float32, expected float64", lambda ops, x: ops.dropout(x, keep=0.5, state=np.zeros(2, "f4"))),
    mistake("neuron_forward: inputs: it is list, expected an array: numpy's", lambda ops, x: ops.neuron_forward(x.tolist(), neuron="relu")),
    mistake("neuron_forward: inputs: it is a single number", lambda ops, x: ops.neuron_forward(x[0, 0, 0, 0], neuron="relu")),
    mistake("softmax_backward: acts_grad has shape (3, 7, 5, 5), expected (3, 7, 5, 6)", lambda ops, x: ops.softmax_backward(x, x[..., :5])),
    mistake("neuron_forward: acts has shape (2, 7, 5, 6), expected (3, 7, 5, 6)", lambda ops, x: ops.neuron_forward(x, neuron="relu", out=np.zeros_like(x[:2]))),
    mistake("lrn_forward: inputs has shape (7, 5, 6), expected 4 dimensions", lambda ops, x: ops.lrn_forward(x[0], size=3, scale=1, power=1)),
    mistake("neuron_forward: acts: expected a C-contiguous array", lambda ops, x: ops.neuron_forward(x, neuron="relu", out=np.zeros_like(x)[::-1])),
    mistake("neuron_forward: acts: expected a C-contiguous array that can be written", lambda ops, x: ops.neuron_forward(x, neuron="relu", out=np.broadcast_to(x, x.shape))),
    mistake("softmax_forward: acts is written and shares memory with inputs", lambda ops, x: ops.softmax_forward(x, out=x)),
    mistake("lrn_forward: denoms is written and shares memory with acts", lambda ops, x: ops.lrn_forward(x, size=3, scale=1, power=1, out=(y := x.copy(), y))),
    mistake("lrn_forward: out is ndarray, expected the tuple (denoms, acts)", lambda ops, x: ops.lrn_forward(x, size=3, scale=1, power=1, out=x)),
    mistake("softmax_forward: add adds to what out holds, expected out=", lambda ops, x: ops.softmax_forward(x, add=True)),
    mistake("bias_forward: the shape of acts is not known, expected shape= (the acts') or out=", lambda ops, x: ops.bias_forward(x[:, 0, 0, 0])),
    mistake("bias_forward: shape is 'big', expected whole numbers", lambda ops, x: ops.bias_forward(x[:, 0, 0, 0], shape="big")),
    mistake("max_pool_forward: size is 3.5, expected a whole number", lambda ops, x: ops.max_pool_forward(x, size=3.5)),
    mistake("max_pool_forward: stride is 4294967296, expected", lambda ops, x: ops.max_pool_forward(x, size=3, stride=2**32)),
    mistake("dropout: step is 'first', expected a number", lambda ops, x: ops.dropout(x, keep=0.5, step="first")),
    mistake("sgd_update: rate is 'low', expected a number", lambda ops, x: ops.sgd_update(x, x.copy(), x.copy(), images=1, rate="low")),
    mistake("scaled_copy: factor is 'two', expected a number", lambda ops, x: ops.scaled_copy(x, factor="two")),
    mistake("dropout: seed is -1, expected 0 to 4294967295", lambda ops, x: ops.dropout(x, keep=0.5, seed=-1)),
    mistake("neuron_forward: neuron 'rlu', expected one of ident, relu, logistic", lambda ops, x: ops.neuron_forward(x, neuron="rlu")),
    mistake("neuron_forward: neuron is None, expected the name of one", lambda ops, x: ops.neuron_forward(x, neuron=None)),
    mistake("sgd_update: there is neither rate nor state", lambda ops, x: ops.sgd_update(x, x.copy(), x.copy(), images=1)),
    mistake("sgd_update: rate and state are both given", lambda ops, x: ops.sgd_update(x, x.copy(), x.copy(), images=1, rate=1, state=np.ones(3))),
])
def test_a_wrong_argument_is_a_value_error_that_says_what_was_expected(ops, x, wrong, expected):
    with pytest.raises(ValueError) as error:
        wrong(ops, x)
    assert str(error.value).startswith(expected)


def test_a_misspelt_keyword_is_answered_with_the_signature(ops, x):
    with pytest.raises(TypeError, match=r"max_pool_forward\(inputs, \*, size, stride=1, .*\): got an unexpected keyword argument 'strides'"):
        ops.max_pool_forward(x, size=3, strides=2)


def test_an_unknown_op_is_an_attribute_error(ops):
    with pytest.raises(AttributeError, match=r"the library has no op 'conv_foward'"):
        ops.conv_foward  # noqa: B018


def test_streams_are_for_cuda(x):
    with pytest.raises(ValueError, match="stream is given, expected none: backend host"):
        convnet.ops("host").neuron_forward(x, neuron="relu", stream=1)


def test_an_unknown_backend_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="backend 'gpu', expected auto, cuda, host, simt"):
        convnet.ops("gpu")


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU")
def test_cuda_without_a_gpu_names_another_way():
    with pytest.raises(NoSuchDevice, match=r"convnet.ops\('host'\) runs on the CPU"):
        convnet.ops("cuda")


# ---- what it says of itself ----------------------------------------------------------------------------


def test_every_op_has_a_docstring_and_a_signature(ops):
    assert len(ops.module.signatures) > 20
    for name in ops.module.signatures.keys() - OF_PLANS:
        op = getattr(ops, name)
        assert op.__name__ == name and "stream" not in next(iter(inspect.signature(op).parameters))
        assert len(op.__doc__.split("\n\n")[0]) > 20 and "Returns" in op.__doc__
        assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(op).parameters.values())


def test_the_example_of_the_page_gives_what_it_shows():
    page = Path(__file__).parents[1] / "docs" / "library.md"
    test = doctest.DocTestParser().get_doctest(page.read_text().replace("```", ""), {}, "library.md", str(page), 0)
    report = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test, out=report.append)
    assert results.attempted > 5 and not results.failed, "".join(report)


def test_importing_convnet_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import convnet; print(*sorted(m for m in set(sys.modules) - before if m != 'sitecustomize'))"
    found = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(Path(convnet.__file__).parents[1])!r}); {code}"],
                           capture_output=True, text=True, check=True).stdout.split()
    assert "convnet" in found
    assert not {"numpy", "tqdm", "PIL", "convnet.library", "convnet.backends"} & set(found)


# ---- arrays on a GPU -----------------------------------------------------------------------------------


class CudaArray:
    """An array of a library that we do not know, on a "GPU" that is the host."""

    def __init__(self, values, stream=None):
        self.values, self.stream = values, stream

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.values.shape, "typestr": self.values.dtype.str, "data": (self.values.ctypes.data, False),
                "strides": self.values.strides, "stream": self.stream, "version": 3}


class TorchTensor:
    """One of a torch of our own, which lends its memory by DLPack."""

    is_cuda = True

    def __init__(self, values, device=0):
        self.values, self.device, self.streams = values, device, []

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        return self.values.__dlpack__()

    def contiguous(self):
        return TorchTensor(self.values.copy(), self.device)


class Bfloat16Tensor(TorchTensor):
    """Of bfloat16: `values` are the upper halves of float32."""

    def __dlpack__(self, stream=None):
        capsule = super().__dlpack__(stream)
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        arrays.DLTensor.from_address(pointer(capsule, b"dltensor")).code = 4
        return capsule


TorchTensor.__module__ = Bfloat16Tensor.__module__ = "torch._tensor"


@pytest.fixture
def gpu():
    return Library(load_module("host"), "cuda", 0)


@pytest.fixture
def queue():
    with Device("host", threads=1) as device:
        yield device


@pytest.fixture
def torch(monkeypatch, queue):
    fake = types.ModuleType("torch")
    fake.float32, fake.float64 = "float32", "float64"
    fake.empty = lambda shape, dtype, device: TorchTensor(np.empty(shape, dtype), device)
    fake.cuda = types.SimpleNamespace(current_stream=lambda device: types.SimpleNamespace(cuda_stream=queue.handle))
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


class GPUArray:
    """pycuda's, as far as we use it."""

    def __init__(self, shape, dtype, allocator=None, base=None, gpudata=None, strides=None):
        self.shape, self.dtype, self.allocator, self.base = tuple(shape), np.dtype(dtype), allocator, base
        self.values = np.empty(shape, dtype) if gpudata is None else None
        self.gpudata = self.values.ctypes.data if gpudata is None else gpudata
        self.strides = strides or np.empty(shape, dtype).strides

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (int(self.gpudata), False), "strides": self.strides, "stream": None, "version": 3}


GPUArray.__module__ = "pycuda.gpuarray"


@pytest.fixture
def pycuda(monkeypatch):
    """A pycuda that has made no context yet."""
    package, driver, arrays_module = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver"), types.ModuleType("pycuda.gpuarray")
    stack = []

    class Context:
        get_current = staticmethod(lambda: stack[-1] if stack else None)
        pop = staticmethod(stack.pop)

        def push(self):
            stack.append(self)

        def detach(self):
            pass

    driver.init, driver.Error, driver.Context, driver.stack = lambda: None, LookupError, Context, stack
    driver.Device = lambda index: types.SimpleNamespace(retain_primary_context=Context)
    arrays_module.GPUArray, package.driver, package.gpuarray = GPUArray, driver, arrays_module
    for name, module in {"pycuda": package, "pycuda.driver": driver, "pycuda.gpuarray": arrays_module}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(gpuarray.atexit, "register", lambda *args: None)
    gpuarray.primary_context.cache_clear()
    yield driver
    gpuarray.primary_context.cache_clear()


def held(array):
    """What a Memory holds."""
    return host_view(array.ptr, array.nbytes).view(array.dtype).reshape(array.shape)


def test_numpy_goes_to_the_gpu_and_comes_back(gpu, x):
    assert (gpu.neuron_forward(x, neuron="relu") == relu(x)).all()
    acts = np.ones_like(x)
    gpu.neuron_forward(x, neuron="relu", out=acts, add=True)
    assert (acts == 1 + relu(x)).all()
    weights = x.copy()
    gpu.sgd_update(np.ones_like(x), np.zeros_like(x), weights, rate=0.5, images=1)
    assert (weights == x - np.float32(0.5)).all()


def test_an_array_of_an_unknown_library_is_answered_with_one_that_lends_its_memory(gpu, x):
    acts = gpu.neuron_forward(CudaArray(x), neuron="relu")
    assert acts.__cuda_array_interface__["shape"] == SHAPE and (held(acts) == relu(x)).all()
    again = gpu.neuron_forward(acts, neuron="square", out=CudaArray(out := np.empty_like(x)))
    assert (out == relu(x) ** 2).all() and again.values is out


def test_an_array_is_read_when_its_stream_has_written_it(gpu, queue, x):
    queue.ops.scaled_copy(queue, Tensor(x.ctypes.data, SHAPE, pitch=6), Tensor((y := np.zeros_like(x)).ctypes.data, SHAPE, pitch=6), factor=1.0)
    assert (held(gpu.neuron_forward(CudaArray(y, stream=queue.handle), neuron="relu")) == relu(x)).all()


def test_gaps_in_a_gpu_array_of_an_unknown_library_are_refused(gpu, x):
    with pytest.raises(ValueError, match="inputs: it has gaps or another order, expected a C-contiguous array"):
        gpu.neuron_forward(CudaArray(x[::2]), neuron="relu")


def test_torch_is_answered_with_torch_on_its_own_stream(gpu, torch, queue, x):
    tensor = TorchTensor(x)
    acts = gpu.neuron_forward(tensor, neuron="relu")
    queue.synchronize()
    assert isinstance(acts, TorchTensor) and (acts.values == relu(x)).all()
    assert tensor.streams == [queue.handle]


def test_a_torch_tensor_with_gaps_is_copied_by_torch(gpu, torch, x):
    acts = gpu.neuron_forward(TorchTensor(x[::-1]), neuron="relu")
    assert (acts.values == relu(x[::-1])).all()  # waited for, since the copy is gone


def test_a_tensor_of_another_gpu_is_refused(gpu, torch, x):
    with pytest.raises(ValueError, match=r"neuron_forward: inputs: it is on GPU 1, expected GPU 0; convnet.ops\('cuda', 1\)"):
        gpu.neuron_forward(TorchTensor(x, device=1), neuron="relu")


def test_an_array_on_a_gpu_is_refused_by_the_host(torch, x):
    with pytest.raises(ValueError, match=r"on a GPU, expected an array in the CPU's memory; convnet.ops\('cuda'\)"):
        convnet.ops("host").neuron_forward(CudaArray(x), neuron="relu")


def test_a_tensor_that_does_not_lend_its_memory_is_told_why(gpu, torch, x):
    class Tracked(TorchTensor):
        def __dlpack__(self, stream=None):
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    Tracked.__module__ = "torch"
    with pytest.raises(ValueError, match=r"inputs: torch does not lend its memory: .* use tensor.detach\(\)"):
        gpu.neuron_forward(Tracked(x), neuron="relu")


@pytest.mark.parametrize("wrap", [lambda h: h, lambda h: types.SimpleNamespace(handle=h), lambda h: types.SimpleNamespace(cuda_stream=h),
                                  lambda h: types.SimpleNamespace(ptr=h), lambda h: types.SimpleNamespace(__cuda_stream__=lambda: (0, h))],
                         ids=["int", "pycuda", "torch", "cupy", "protocol"])
def test_an_op_runs_on_the_callers_stream(gpu, queue, x, wrap):
    acts = gpu.neuron_forward(CudaArray(x), neuron="relu", stream=wrap(queue.handle))
    queue.synchronize()
    assert (held(acts) == relu(x)).all()


def test_what_is_no_stream_is_refused(gpu, x):
    with pytest.raises(ValueError, match="stream is 'fast', expected a CUDA stream"):
        gpu.neuron_forward(x, neuron="relu", stream="fast")


def test_a_gpuarray_is_answered_with_one_of_its_allocator(gpu, pycuda, x):
    array = GPUArray(SHAPE, "float32", allocator=object())
    array.values[:] = x
    acts = gpu.neuron_forward(array, neuron="relu")
    assert isinstance(acts, GPUArray) and (acts.values == relu(x)).all()
    assert acts.allocator is array.allocator


@pytest.fixture
def bfloat16(monkeypatch):
    """The ops of a "GPU" that takes bfloat16, and a torch that has it."""
    fake = types.ModuleType("torch")
    fake.float32, fake.bfloat16 = "float32", "uint16"
    fake.empty = lambda shape, dtype, device: (Bfloat16Tensor if dtype == "uint16" else TorchTensor)(np.empty(shape, dtype), device)
    fake.cuda = types.SimpleNamespace(current_stream=lambda device: types.SimpleNamespace(cuda_stream=0))
    monkeypatch.setitem(sys.modules, "torch", fake)
    return Library(load_module("simt"), "cuda", 0), lambda values: Bfloat16Tensor(encoded(values, "bfloat16"))


def test_activities_of_bfloat16_beside_weights_of_float32(bfloat16):
    ops, stored = bfloat16
    images, filters = np.arange(3 * 4 * 4 * 8).reshape(3, 4, 4, 8) % 7 - 3.0, np.arange(3 * 2 * 2 * 5).reshape(3, 2, 2, 5) % 5 - 2.0
    right = convnet.ops("simt").conv_forward(images.astype(np.float32), filters.astype(np.float32))
    for given in (TorchTensor(filters.astype(np.float32)), stored(filters)):
        acts = ops.conv_forward(stored(images), given)
        assert isinstance(acts, Bfloat16Tensor) and (decoded(acts.values, "bfloat16") == right).all()
    gradient = ops.conv_backward_filters(stored(images), acts, shape=filters.shape)
    assert type(gradient) is TorchTensor and gradient.values.dtype == np.float32
    wide = TorchTensor(np.empty(right.shape, np.float32))
    assert ops.scaled_copy(acts, out=wide, factor=1.0) is wide and (wide.values == right).all()


@pytest.mark.parametrize(("call", "message"), [
    (lambda ops, x, w: ops.softmax_forward(x), "softmax_forward: inputs is bfloat16, expected float32 or float64"),
    (lambda ops, x, w: ops.neuron_backward(x, w, neuron="relu"), "neuron_backward: acts_grad is float32, expected bfloat16 beside activities in bfloat16"),
    (lambda ops, x, w: ops.fc_forward(x, x), "fc_forward: weights is bfloat16, expected float32 beside activities in bfloat16"),
], ids=["softmax", "another type", "weights of fc"])
def test_where_bfloat16_cannot_be_the_message_says_what_can(bfloat16, call, message):
    ops, stored = bfloat16
    with pytest.raises(ValueError, match=message):
        call(ops, stored(np.ones((8, 8))), TorchTensor(np.ones((8, 8), np.float32)))


def test_a_gpuarray_of_another_context_is_refused(gpu, pycuda):
    pycuda.Context().push()  # as pycuda.autoinit does
    with pytest.raises(ValueError, match=r"not the primary one of device 0, expected the one of pycuda.autoprimaryctx"):
        gpu.neuron_forward(GPUArray(SHAPE, "float32"), neuron="relu")


@pytest.mark.parametrize("shape", [SHAPE, (4, 5), (7,), (3, 7, 5, 129)])
def test_a_tensor_and_its_gpuarray_are_the_same_memory(pycuda, queue, shape):
    tensor = queue.tensor(shape)
    array = gpuarray.to_gpuarray(tensor, queue)
    assert array.gpudata == tensor.ptr and array.base is queue and array.shape == shape
    assert len(pycuda.stack) == 1
    back = gpuarray.from_gpuarray(array)
    assert (back.ptr, back.shape, back.dtype) == (tensor.ptr, shape, "float32") and (back.pitch == tensor.pitch or len(shape) == 1)


def test_a_gpuarray_of_bfloat16_is_the_upper_halves_of_float32(pycuda, queue):
    tensor = queue.tensor(SHAPE, "bfloat16")
    array = gpuarray.to_gpuarray(tensor, queue)
    assert (array.dtype, array.gpudata, array.strides[-1]) == ("uint16", tensor.ptr, 2)


def test_a_gpuarray_in_another_order_is_no_tensor(pycuda):
    with pytest.raises(ValueError, match="expected C order, padded in the last dimension at most"):
        gpuarray.from_gpuarray(GPUArray((2, 3), "float32", strides=(4, 8)))


def test_without_pycuda_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(NoSuchDevice, match=r"pycuda: .*; \./go --with pycuda"):
        gpuarray.use_pycuda()


@pytest.mark.parametrize("shape, strides, answer", [((2, 3), None, True), ((2, 3), (3, 1), True), ((2, 3), (1, 2), False), ((1, 3), (99, 1), True),
                                                    ((0, 3), (5, 7), True), ((2, 1, 3), (3, 77, 1), True)])
def test_contiguity_is_of_the_elements_that_there_are(shape, strides, answer):
    assert arrays.is_contiguous(shape, strides, 1) is answer

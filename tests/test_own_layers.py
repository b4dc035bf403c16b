"""Layers of one's own, type=cuda: their sources compiled, run, refused, and kept with a checkpoint."""
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import convnet
from convnet.backends import cuda_problem
from convnet.config import parse_config
from convnet.errors import ConfigError, NoSuchDevice
from convnet.own_kernels import MOST_BYTES, build, read_sources
from small_nets import around, arrays_for, gradients_are_right, section, small_net
from workplace import CONV, DATA, HEAD, assert_same_bits

PAGE = Path(__file__).parents[1] / "docs" / "own_layers.md"
if not PAGE.is_file():
    pytest.skip("these are tests of a checkout", allow_module_level=True)
SWISH = re.search(r"```cuda\n(.*?)```", PAGE.read_text(), re.S)[1]
# The mean over the channels, of the upper left pixels where outputsX says so; the kernels read other elements than their own.
MEAN = """
#include "layer.cuh"
template <class T>
__global__ void forward_kernel(Images<const T> inputs, Images<T> acts, Numbers<T> numbers) {
  const Place place = this_place();
  if (place.row >= acts.rows() || place.n >= acts.images) return;
  const auto [c, y, x, n] = element_at(acts, place);
  T sum = 0;
  for (int i = 0; i < inputs.channels; ++i) sum += inputs.row(i, y, x)[n];
  acts.store(&acts.row(c, y, x)[n], sum / T(inputs.channels));
}
template <class T>
__global__ void backward_kernel(Images<const T> inputs, Images<const T> acts, Images<const T> acts_grad, Images<T> inputs_grad, Numbers<T> numbers) {
  const Place place = this_place();
  if (place.row >= inputs_grad.rows() || place.n >= inputs_grad.images) return;
  const auto [c, y, x, n] = element_at(inputs_grad, place);
  const bool seen = y < acts.height && x < acts.width;
  inputs_grad.store(&inputs_grad.row(c, y, x)[n], seen ? acts_grad.row(0, y, x)[n] / T(inputs.channels) : T(0));
}
"""
LAYER = "type=cuda\nsource=swish.cu\nnumbers=1.5\n"
BACKENDS = ["host", "simt"] + ([] if cuda_problem() else ["cuda"])


def acts_of(net, name: str) -> np.ndarray:
    arrays = arrays_for(net)
    plan = net.plan(arrays[0].shape[-1], "test", (name, "conv1"))
    plan.run({**dict(enumerate(arrays)), "state": net.state(0)})
    plan.synchronize()
    return plan.fetch("conv1")[0], plan.fetch(name)[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernels_compute_what_they_say(backend, dtype):
    with small_net(*around(LAYER), backend=backend, dtype=dtype, sources={"swish.cu": SWISH}) as net:
        inputs, acts = acts_of(net, "layer")
    np.testing.assert_allclose(acts, inputs / (1 + np.exp(-1.5 * inputs)), rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_their_gradients_are_checked(backend, capsys):
    assert gradients_are_right(*around(LAYER), backend, sources={"swish.cu": SWISH})


def test_a_wrong_gradient_is_found(capsys):
    wrong = SWISH.replace("(1 - chance)", "(2 - chance)")
    assert wrong != SWISH
    assert not gradients_are_right(*around(LAYER), "host", sources={"swish.cu": wrong})


@pytest.mark.parametrize(("keys", "pixels"), [("", 6), ("outputsX=4\n", 4)])
def test_the_shape_may_differ_and_a_gradient_is_added_to_others(keys, pixels, capsys):
    layer = f"type=cuda\nsource=mean.cu\noutputs=1\n{keys}" + section("both", type="concat", inputs="layer,conv1")
    assert gradients_are_right(*around(layer, above="both"), "host", sources={"mean.cu": MEAN})
    with small_net(*around(layer, above="both"), sources={"mean.cu": MEAN}) as net:
        inputs, acts = acts_of(net, "layer")
    np.testing.assert_allclose(acts, inputs.mean(0, keepdims=True)[:, :pixels, :pixels], rtol=1e-13, atol=1e-15)


def test_on_a_gpu_nvcc_compiles_the_same_source(tmp_path):
    if not shutil.which("nvcc"):
        pytest.skip("no nvcc")
    library = build("swish.cu", SWISH, tmp_path, by_nvcc=True, architecture="sm_80")
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    assert re.findall(r" T (convnet_layer_\w+)", symbols) == ["convnet_layer_backward", "convnet_layer_forward"]


# ---- what is refused -----------------------------------------------------------------------------------------


def refused(call, error=ConfigError) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_a_source_that_does_not_compile_is_told_with_its_lines(tmp_path):
    text = SWISH.replace("const T input =", "const T imput =")
    line = 1 + text[: text.index("input * logistic")].count("\n")
    said = refused(lambda: build("swish.cu", text, tmp_path, by_nvcc=False))
    assert re.search(rf"swish\.cu does not compile \(.*\n.*swish\.cu:{line}:\d+: error:.*input", said) and str(tmp_path) not in said


def test_a_kernel_that_is_missing_is_named(tmp_path):
    said = refused(lambda: build("swish.cu", SWISH.replace("backward_kernel", "back_kernel"), tmp_path, by_nvcc=False))
    assert "backward_kernel" in said


def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    assert "no-such-compiler was not found: install g++, or set CXX" in refused(lambda: build("a.cu", SWISH, tmp_path, by_nvcc=False), NoSuchDevice)


def test_sources_are_read_with_leave_alone(tmp_path):
    layers = parse_config(*around(LAYER)).layers
    assert re.search(r"layers\.cfg:\d+: \[layer\] source=swish.cu: .* --allow-code", refused(lambda: read_sources(layers, tmp_path, False)))
    assert "No such file or directory; expected it beside the config" in refused(lambda: read_sources(layers, tmp_path, True))
    (tmp_path / "swish.cu").write_bytes(b"\xff\xfe")
    assert "not a text in UTF-8" in refused(lambda: read_sources(layers, tmp_path, True))
    (tmp_path / "swish.cu").write_bytes(b" " * (MOST_BYTES + 1))
    assert f"has {MOST_BYTES + 1} bytes, expected at most" in refused(lambda: read_sources(layers, tmp_path, True))
    (tmp_path / "swish.cu").write_text(SWISH)
    assert read_sources(layers, tmp_path, True) == {"swish.cu": SWISH}
    assert read_sources(layers, tmp_path, True, {"swish.cu": MEAN}) == {"swish.cu": MEAN}
    assert "the checkpoint's" in refused(lambda: read_sources(layers, tmp_path, True, {"swish.cu": 3}))


@pytest.mark.parametrize(("keys", "said"), [
    ("source=/etc/swish.cu", "source: found /etc/swish.cu"),
    ("source=../swish.cu", "source: found ../swish.cu"),
    ("source=swish.py", "source: found swish.py"),
    ("source=swish.cu\nnumbers=1,x", "numbers: found 1,x, expected numbers such as 0.5,2"),
    ("source=swish.cu\nnumbers=" + ",".join("1" * 17), "numbers: found 17 numbers, expected at most 16"),
])
def test_keys_that_mean_nothing_are_refused(keys, said):
    message = refused(lambda: parse_config(*around(f"type=cuda\n{keys}\n")))
    assert said in re.sub(r"(source|numbers)=\S*: ", r"\1: ", message)


# ---- in the commands -----------------------------------------------------------------------------------------


def test_a_run_goes_on_from_a_checkpoint_that_holds_the_source(place):
    layers = f"{DATA}{CONV.format(name='conv1', inputs='data', gpu=0)}[swish1]\ninputs=conv1\n{LAYER}{HEAD.format('swish1')}"
    place.write(layers)
    Path("swish.cu").write_text(SWISH)
    place.train("--max-steps", "2", code=78)
    assert "layers.cfg:" in place.told and "needed on the command line" in place.told
    place.train("--allow-code", "--max-steps", "4", "--save-path", "whole")
    place.train("--allow-code", "--max-steps", "2", "--save-path", "parts")
    Path("swish.cu").unlink()
    place.resume("parts", "--allow-code", "--max-steps", "2")
    assert_same_bits("whole", "parts")
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with convnet.load("whole", "host", allow_code=True) as net:
        assert net.predict(images).shape == (10, 3)
    with pytest.raises(ConfigError, match="--allow-code"):
        convnet.load("whole", "host")

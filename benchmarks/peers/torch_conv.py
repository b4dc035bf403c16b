"""PyTorch's convolutions, as calls that can be timed: each op in both memory layouts, NCHW and NHWC (channels_last)."""
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from layers import ConvLayer

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
OUTPUTS = {"conv_backward_data": [True, False, False], "conv_backward_filters": [False, True, False]}


def start(backend: str, threads: int) -> str:
    """Sets the number of threads; returns what the peer is, for the report."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # cuDNN's best algorithm
    torch.backends.cudnn.allow_tf32 = False  # float32, like ours
    torch.manual_seed(0)
    return f"PyTorch {torch.__version__}" + (f", cuDNN {torch.backends.cudnn.version()}" if backend == "cuda" else f", {threads} threads")


def synchronize(backend: str) -> None:
    if backend == "cuda":
        torch.cuda.synchronize()


def calls(layer: ConvLayer, op: str, images: int, backend: str) -> dict[str, Callable[[], object]]:
    """By layout, a call that does what our op does for this layer."""
    device = "cuda" if backend == "cuda" else "cpu"
    # Windows over the far edge: as many zeros more there. PyTorch has no uneven padding, so the images get them once.
    reach = (layer.acts_size - 1) * layer.stride + layer.filter_size
    size = max(layer.size, reach - 2 * layer.padding)

    def tensor(*shape: int, layout: torch.memory_format) -> torch.Tensor:
        return torch.randn(shape, device=device).contiguous(memory_format=layout)

    def call(layout: torch.memory_format) -> Callable[[], object]:
        x = tensor(images, layer.channels, size, size, layout=layout)
        w = tensor(layer.filters, layer.channels // layer.groups, layer.filter_size, layer.filter_size, layout=layout)
        d = tensor(images, layer.filters, layer.acts_size, layer.acts_size, layout=layout)
        stride, padding = [layer.stride] * 2, [layer.padding] * 2

        @torch.no_grad()
        def run():
            if op == "conv_forward":
                return torch.nn.functional.conv2d(x, w, None, stride, padding, 1, layer.groups)
            return torch.ops.aten.convolution_backward(d, x, w, None, stride, padding, [1, 1], False, [0, 0], layer.groups, OUTPUTS[op])

        return run

    return {name: call(layout) for name, layout in LAYOUTS.items()}

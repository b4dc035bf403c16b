"""PyTorch's ops, as calls that are timed: the worker behind `op_throughput.py --peer torch`.

    python torch_ops.py SETTINGS.json     the settings: the fields of `Settings`

It answers in JSON, a line each: first with its name; then to {"case": ...}, a `layers.Case`, with the ways it knows to
do it, and to {"time": WAY} with the seconds that a call takes this way. It is a process of its own, so that its allocator
can be tuned by the environment.
"""
from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_net import Norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from timing import seconds_of

FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
OUTPUTS = {"conv_backward_data": [True, False, False], "conv_backward_filters": [False, True, False]}
Call = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """as_written: only the way in which one would write it; compile: each way by torch.compile too; precision: of products, tf32 and bf16 alone are not exact."""

    threads: int
    device: str
    images: int
    cpu_time: bool
    as_written: bool
    compile: bool
    precision: str


class Bench:
    def __init__(self, settings: Settings):
        torch.set_num_threads(settings.threads)
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True  # cuDNN's best algorithm
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"  # like ours
        self.operands = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self.settings, self.images, self.device = settings, settings.images, settings.device
        self.clock = time.process_time if settings.cpu_time else time.perf_counter

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def operand(self, *shape: int, layout: str = "NCHW") -> Tensor:
        """Of a product; at bf16 also of what is no product."""
        return self.tensor(*shape, layout=layout).to(self.operands)

    def tensor(self, *shape: int, layout: str = "NCHW") -> Tensor:
        values = torch.randn(shape, device=self.device)
        return values.contiguous(memory_format=FORMATS[layout]) if len(shape) == 4 else values

    def ways(self, case: dict) -> dict[str, Call]:
        """By name, the first as one would write it."""
        makers = {"conv": self.conv, "fc": self.fc, "lrn": self.lrn, "max": self.pool, "avg": self.pool, "relu": self.relu,
                  "dropout": self.dropout, "softmax": self.softmax_cost, "sgd": self.sgd}
        found = makers[case["op"].partition("_")[0]](case)
        return dict(itertools.islice(found, 1) if self.settings.as_written else found)

    def both(self, name: str, function: Callable, *inputs: Tensor) -> Iterator[tuple[str, Call]]:
        """Forward and backward of a function of the first input: it compiled, too, if that is wanted."""
        x = inputs[0].requires_grad_()
        with torch.no_grad():
            grad = torch.randn_like(function(*inputs))
        compiled = [(", torch.compile", torch.compile(function))] if self.settings.compile else []
        for suffix, run in (("", function), *compiled):
            yield name + suffix, lambda run=run: torch.autograd.grad(run(*inputs), x, grad)

    # ---- the ops ---------------------------------------------------------------------------------------------------

    def conv(self, case: dict) -> Iterator[tuple[str, Call]]:
        """The groups as one grouped convolution, and apart, each with its images ready in a tensor of its own."""
        s, op = case["settings"], case["op"]
        # Windows over the far edge: as many zeros more there. PyTorch has no uneven padding, so the images get them once.
        size = max(s["size"], (s["acts_size"] - 1) * s["stride"] + s["filter_size"] - 2 * s["padding"])
        stride, padding = [s["stride"]] * 2, [s["padding"]] * 2
        for apart, layout in itertools.product(range(1 + (s["groups"] > 1)), FORMATS):
            parts = s["groups"] if apart else 1
            groups = s["groups"] // parts
            tensors = [(self.operand(self.images, s["channels"] // parts, size, size, layout=layout),
                        self.operand(s["filters"] // parts, s["channels"] // s["groups"], s["filter_size"], s["filter_size"], layout=layout),
                        self.operand(self.images, s["filters"] // parts, s["acts_size"], s["acts_size"], layout=layout)) for _ in range(parts)]

            @torch.no_grad()
            def run(tensors=tensors, groups=groups):
                for x, w, d in tensors:
                    if op == "conv_forward":
                        F.conv2d(x, w, None, stride, padding, 1, groups)
                    else:
                        torch.ops.aten.convolution_backward(d, x, w, None, stride, padding, [1, 1], False, [0, 0], groups, OUTPUTS[op])

            yield layout + ", groups apart" * apart, run

    def fc(self, case: dict) -> Iterator[tuple[str, Call]]:
        """The weights lie as nn.Linear has them, (outputs, inputs), or the other way round."""
        inputs, outputs = case["shape"][0] * case["shape"][1] * case["shape"][2], case["settings"]["outputs"]
        x, d = self.operand(self.images, inputs), self.operand(self.images, outputs)
        for name, w in (("Linear", self.operand(outputs, inputs)), ("transposed", self.operand(inputs, outputs).t())):
            if case["op"] == "fc_forward":
                run = torch.no_grad()(lambda w=w: F.linear(x, w))
            elif case["op"] == "fc_backward_data":
                run = torch.no_grad()(lambda w=w: d @ w)
            else:
                run = torch.no_grad()((lambda: d.t() @ x) if name == "Linear" else (lambda: x.t() @ d))
            yield name, run

    def lrn(self, case: dict) -> Iterator[tuple[str, Call]]:
        layer = SimpleNamespace(size=case["settings"]["size"], scale=1e-4, pow=0.75, min_div=2.0)
        dtype = self.operands if self.device == "cuda" else torch.float32  # the CPU's avg_pool3d knows no bfloat16
        for form, layout in itertools.product(("module", "band", "shifts"), FORMATS):
            norm = Norm(layer, case["shape"][0], 1, form).to(self.device, dtype)
            if case["op"] == "lrn_max_pool":
                norm = nn.Sequential(norm, nn.MaxPool2d(case["settings"]["pool_size"], case["settings"]["stride"], ceil_mode=True))
            yield from self.both(f"{layout}, {form}", norm, self.tensor(self.images, *case["shape"], layout=layout).to(dtype))

    def pool(self, case: dict) -> Iterator[tuple[str, Call]]:
        size, stride = case["settings"]["size"], case["settings"]["stride"]
        module = (nn.MaxPool2d if case["op"] == "max_pool" else nn.AvgPool2d)(size, stride, ceil_mode=True)
        for layout in FORMATS:
            yield from self.both(layout, module, self.operand(self.images, *case["shape"], layout=layout))

    def relu(self, case: dict) -> Iterator[tuple[str, Call]]:
        for layout in FORMATS:
            x = self.operand(self.images, *case["shape"], layout=layout)
            yield from self.both(layout, F.relu, x)
            values, grad = torch.randn_like(x), torch.randn_like(x)

            @torch.no_grad()
            def run(values=values, grad=grad):
                torch.relu_(values)
                torch.ops.aten.threshold_backward(grad, values, 0)

            yield f"{layout}, in place", run

    def dropout(self, case: dict) -> Iterator[tuple[str, Call]]:
        yield from self.both("F.dropout", F.dropout, self.operand(self.images, case["shape"][0]))

    def softmax_cost(self, case: dict) -> Iterator[tuple[str, Call]]:
        labels = torch.arange(self.images, device=self.device) % case["shape"][0]
        yield from self.both("F.cross_entropy", lambda x: F.cross_entropy(x, labels), self.tensor(self.images, case["shape"][0]))

    def sgd(self, case: dict) -> Iterator[tuple[str, Call]]:
        for name, words in (("default", {}), ("foreach", {"foreach": True}), ("fused", {"fused": True})):
            weights = nn.Parameter(self.tensor(*case["shape"]))
            weights.grad = self.tensor(*case["shape"])
            yield name, torch.optim.SGD([weights], 1e-6, momentum=0.9, weight_decay=5e-4, **words).step


def main() -> None:
    bench = Bench(Settings(**json.loads(Path(sys.argv[1]).read_text())))
    answer({"name": f"PyTorch {torch.__version__}" + (f", cuDNN {torch.backends.cudnn.version()}" if bench.device == "cuda" else "")})
    ways: dict[str, Call] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            ways.clear()
            ways = bench.ways(request["case"])
            answer({"ways": list(ways)})
        else:
            answer({"seconds": seconds_of(ways[request["time"]], bench.synchronize, bench.clock)})


def answer(values: dict) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()

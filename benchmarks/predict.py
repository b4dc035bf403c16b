"""What a training step should take on a GPU, read off machine code: a prediction, to hold the first measurements against.

    ./go --with sass python benchmarks/predict.py                   # AlexNet, 128 images, at every precision, op by op
    ./go --with sass python benchmarks/predict.py convnet/models/cifar-quick --data dummy:3x32x32 --precision tf32 --steps

Needs no GPU, but _cuda with machine code for its architecture, and _simt, which plans the step and says in which tile each
product is computed. A product takes as long as the multiprocessor with the most blocks needs to issue the instructions of the
kernel's loop, once for each warp and slice of k, or as its tensor cores need for theirs; a step takes no less than its bytes do
at 85 % of the bandwidth. Nothing waits and launches cost nothing, so this is what the kernels allow, not what they will reach. The
floor is what the multiply-adds, or the bytes, take at the GPU's own rates.
"""
from __future__ import annotations

import argparse
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from environment import run_through_go

run_through_go()

from sass_gates import mma_products, mma_tile  # noqa: E402
from sass_gates import products as tile_products  # noqa: E402
from sass_report import built, print_rows  # noqa: E402
from tune import MODELS, open_net  # noqa: E402

from convnet.backends import Device, Tensor  # noqa: E402
from convnet.errors import ConvnetError  # noqa: E402
from convnet.graph import Graph  # noqa: E402
from convnet.net import Net  # noqa: E402
from convnet.recorder import Step  # noqa: E402
from convnet.tiles import PRECISIONS  # noqa: E402
from convnet.work import bytes_moved, flops  # noqa: E402
from sass import MULTIPLY_ADDS, Kernel, ToolError, Tools  # noqa: E402

SLICE = 16  # k of a turn of the loop, in tile.cuh and mma_tile.cuh
QUARTERS = 4  # of a multiprocessor: each issues one instruction of one warp a clock
REACHED = 0.85  # of the bandwidth of a plain copy
TILES = {"large": ("Tile<64, 128, 8, 8>", 64, 128), "mid": ("Tile<48, 128, 12, 8>", 48, 128), "wide": ("Tile<32, 128, 8, 8>", 32, 128), "small": ("Tile<32, 32, 4, 4>", 32, 32),
         "mma": (r"MmaTile<\w+, 128, 128, .*>", 128, 128), "mma_wide": (r"MmaTile<\w+, 64, 256, .*>", 64, 256)}  # in a kernel's name, m, n
KERNELS = {"forward": "conv_forward", "data": "conv_backward_data", "weights": "conv_backward_filters"}  # by direction: fc's are conv's


@dataclass(frozen=True)
class Gpu:
    """`clock` in Hz; tensor_clocks: of a quarter, for one instruction of mma.sync, by what operands become; `bandwidth` in bytes, and peaks,
    by precision, in floating-point operations a second.
    """

    arch: str
    multiprocessors: int
    clock: float
    tensor_clocks: dict[str, float]
    bandwidth: float
    peaks: dict[str, float]


# Bandwidth and the peaks of float32 and bfloat16 as measured on one; the clock is what that peak of float32 takes. A quarter multiplies 512 pairs
# of bfloat16 a clock, or 256 of tf32, with wgmma, and mma.sync reaches 62 % of it (Luo et al. 2025, arXiv 2501.12084).
GPUS = {"h200": Gpu("90a", 132, 1.775e9, dict.fromkeys(("Tf32", "Bf16", "Bf16x3"), 4 / 0.62), 4.3e12,
                    {"exact": 60e12, "bf16x3": 263e12, "tf32": 395e12, "bf16": 790e12})}


@dataclass(frozen=True)
class Product:
    """(m, n) of each of so many groups, its k, and how it is computed."""

    m: int
    n: int
    groups: int
    k: int
    tile: str
    parts: int

    @property
    def blocks(self) -> int:
        _, m, n = TILES[self.tile]
        return ceil(self.m / m) * ceil(self.n / n) * self.groups * self.parts

    @property
    def slices(self) -> int:
        """Of a block."""
        return ceil(ceil(self.k / self.parts) / SLICE)


@dataclass(frozen=True)
class Row:
    """What is predicted of a step, in seconds, and what decides it."""

    step: Step
    seconds: float
    floor: float
    limit: str


def direction(op: str) -> str:
    return "forward" if "forward" in op else "data" if "data" in op else "weights"


def steps_of(net: Path, data: str | None, images: int, precision: str, *, fuse: bool) -> tuple[list[Step], dict[tuple[str, str], Product]]:
    """A training step on one device, and its products by layer and direction."""
    config, spec = open_net(net, data, images)
    for layer in config.layers:
        layer.gpu = (0,)
    products = {}
    with ExitStack() as stack:
        devices = {index: stack.enter_context(Device("simt", index)) for index in Graph(config.layers, spec.shapes, spec.class_tree).devices}
        steps = Net(config, spec, devices, mini=images, allocate=False, precision=precision, fuse=fuse).compile(images, "train").steps
        for step in steps:
            if flops(step):
                device = devices[step.device]
                tensors = [Tensor(0, value.shape, value.dtype, device.pitch(value.shape[-1], value.dtype)) for value in (*step.reads, *step.writes)]
                getattr(device.ops, f"{step.op}_workspace")(device, *tensors, **step.scalars)
                (_, _, m, n, groups, units, unit), (tile, parts) = device.ops.last_tile()
                products[step.layer, direction(step.op)] = Product(m, n, groups, units * unit, tile, parts)
    return steps, products


def kernel_of(kernels: list[Kernel], step: Step, product: Product, precision: str) -> Kernel:
    """That of rows in whole pieces of 16 bytes."""
    base = re.sub("bias_|relu_", "", step.op)
    name = base if base.startswith("local_") or base == "fc_backward_update" else KERNELS[direction(base)]
    stored = step.reads[0].dtype  # images, inputs or acts_grad; what follows may be filters
    tile = "wide" if stored == "bfloat16" and product.tile in ("large", "mid") else product.tile  # conv_launch.cuh: with_tile()
    pattern = f"^{name}_kernel<{stored.replace('32', '')}, {TILES[tile][0]}, true"
    found = [k for k in kernels if re.search(pattern, k.name) and ("MmaTile" not in k.name or mma_tile(k)[0].lower() == precision)]
    if not found:
        raise ToolError(f"no kernel of sm_{kernels[0].arch} for {step.op} of {step.layer}: {pattern}")
    return found[0]


def clocks_of(kernel: Kernel, product: Product, gpu: Gpu) -> tuple[float, str]:
    """Of the multiprocessor with the most blocks."""
    on_tensor_cores = "MmaTile" in kernel.name
    of_slice = (mma_products if on_tensor_cores else tile_products)(kernel)
    slices_of_loop = max(1, round(sum(op.base in MULTIPLY_ADDS for op in kernel.loop) / of_slice))
    issue, tensor = len(kernel.loop) / slices_of_loop, of_slice * gpu.tensor_clocks[mma_tile(kernel)[0]] if on_tensor_cores else 0.0
    warps = kernel.threads / 32 / QUARTERS
    return ceil(product.blocks / gpu.multiprocessors) * product.slices * warps * max(issue, tensor), "tensor cores" if tensor > issue else "issue"


def predict(gpu: Gpu, kernels: list[Kernel], net: Path, data: str | None, images: int, precision: str) -> list[Row]:
    _, products = steps_of(net, data, images, precision, fuse=False)
    steps, _ = steps_of(net, data, images, precision, fuse=True)
    rows = []
    for step in steps:
        seconds, floor, limit = bytes_moved(step) / gpu.bandwidth / REACHED, bytes_moved(step) / gpu.bandwidth, "bytes"
        if work := flops(step):
            product = products[step.layer, direction(step.op)]
            clocks, what = clocks_of(kernel_of(kernels, step, product, precision), product, gpu)
            if clocks / gpu.clock > seconds:
                seconds, limit = clocks / gpu.clock, what
            floor = max(floor, work / gpu.peaks[precision])
        rows.append(Row(step, seconds, floor, limit))
    return rows


def table(rows: list[Row], precision: str, by_step: bool) -> list[list[str]]:
    """Of each step, or of each op, the longest first."""
    lines = [[precision, "steps", "us", "floor us", "of it", "limit"]]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.step.layer} {row.step.op}" if by_step else row.step.op, []).append(row)
    for name, some in groups.items() if by_step else sorted(groups.items(), key=lambda item: -sum(row.seconds for row in item[1])):
        lines.append([name, *figures(some), ", ".join(sorted({row.limit for row in some}))])
    return [*lines, ["all", *figures(rows), ""]]


def figures(rows: list[Row]) -> list[str]:
    seconds, floor = sum(row.seconds for row in rows), sum(row.floor for row in rows)
    return [str(len(rows)), f"{seconds * 1e6:.1f}", f"{floor * 1e6:.1f}", f"{floor / seconds:.0%}" if seconds else ""]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", nargs="?", type=Path, default=MODELS / "alexnet", help="a folder with layers.cfg and params.cfg (AlexNet)")
    parser.add_argument("--data", metavar="NAME", help="dummy:CxHxW or dummy-lr-D; default: dummy:3x224x224 for AlexNet, else the data of the params file")
    parser.add_argument("--images", type=int, default=128, metavar="N", help="a multiple of 8 (128)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="all by default")
    parser.add_argument("--gpu", choices=GPUS, default="h200", help="h200")
    parser.add_argument("--steps", action="store_true", help="a line for each step, not for each op")
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.images % 8:
        parser.error(f"--images {arguments.images}: expected a multiple of 8, for which there are kernels that move 16 bytes at a time")
    if arguments.net == MODELS / "alexnet" and not arguments.data:
        arguments.data = "dummy:3x224x224"
    return arguments


def main() -> int:
    arguments = parse_arguments()
    gpu = GPUS[arguments.gpu]
    module, archs = built()
    if gpu.arch not in archs:
        raise ToolError(f"_cuda has no machine code for sm_{gpu.arch}; expected CONVNET_CUDA=require CONVNET_CUDA_ARCHS={gpu.arch} ./go convnet-info to have built it")
    kernels = list(Tools().of_module(module, [gpu.arch]))
    for precision in arguments.precision:
        rows = predict(gpu, kernels, arguments.net, arguments.data, arguments.images, precision)
        seconds, floor = (sum(getattr(row, name) for row in rows) for name in ("seconds", "floor"))
        print_rows(table(rows, precision, arguments.steps))
        print(f"predicted, not measured: {arguments.net.name}, {precision}, {arguments.images} images: {seconds * 1e3:.2f} ms, {arguments.images / seconds:.0f} images/s; floor {floor * 1e3:.2f} ms\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ConvnetError, ToolError) as error:
        print(f"predict: {error}", file=sys.stderr)
        sys.exit(2)

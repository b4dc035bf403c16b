"""How much work a step of a plan is: multiply-adds that are executed, and bytes that must move."""
from __future__ import annotations

from math import prod

from .recorder import Step


def taps(pixels: int, size: int, outputs: int, stride: int, padding: int) -> int:
    """Filter taps that fall inside the image, over all outputs along one axis: those on padding cost nothing."""
    return sum(max(0, min(pixels, o * stride - padding + size) - max(0, o * stride - padding)) for o in range(outputs))


def conv_flops(images: tuple[int, ...], filters: tuple[int, ...], acts: tuple[int, ...], stride: int, padding: int) -> int:
    """Two for each multiply-add of a convolution or locally connected layer, forward or either backward.

    images (channels, height, width, images), filters (channels / groups, y, x, filters), acts (filters, height, width, images)
    """
    down, across = (taps(images[i], filters[i], acts[i], stride, padding) for i in (1, 2))
    return 2 * down * across * filters[0] * filters[3] * images[3]


def flops(step: Step) -> int:
    """Floating-point operations of a step, as far as they can limit it: those of conv, local and fc."""
    shapes = [value.shape for value in (*step.reads, *step.writes)]
    if step.op.startswith(("conv_", "local_")):
        by_role = {"forward": (0, 1, 2), "bias_forward": (0, 1, 3), "backward_data": (2, 1, 0), "relu_backward_data": (2, 1, 0),
                   "backward_filters": (0, 2, 1), "backward_weights": (0, 2, 1)}
        images, filters, acts = (shapes[i] for i in by_role[step.op.partition("_")[2]])
        return conv_flops(images, filters[-4:], acts, step.scalars["stride"], step.scalars["padding"])
    if step.op.startswith("fc_"):
        weights = shapes[-1] if step.op in ("fc_backward_weights", "fc_backward_update") else shapes[1]
        return 2 * prod(weights) * shapes[0][-1]
    return 0


def bytes_moved(step: Step) -> int:
    """Every operand once; outputs that are added to, twice; a copy reads and writes."""
    total = sum(value.nbytes for value in step.reads)
    return total + sum(value.nbytes * (2 if adds else 1) for value, adds in zip(step.writes, step.adds, strict=True))

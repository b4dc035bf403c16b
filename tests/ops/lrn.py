"""Cross-map response normalization (Krizhevsky et al. 2012, section 3.3)."""
from __future__ import annotations

import numpy as np

from . import Case, normal


def windows(channels, size, blocked):
    starts = [c // size * size if blocked else c - size // 2 for c in range(channels)]
    return [slice(max(0, start), max(0, start + size)) for start in starts]


def denominators(inputs, size, scale, bias, blocked=False):
    return np.stack([bias + scale * (inputs[w] ** 2).sum(0) for w in windows(len(inputs), size, blocked)])


def lrn_forward(inputs, size, scale, power, bias, blocked=False):
    denoms = denominators(inputs, size, scale, bias, blocked)
    return denoms, inputs * denoms**-power


def lrn_backward(inputs, denoms, acts_grad, size, scale, power, blocked=False, sign=-1):
    terms = acts_grad * inputs * denoms ** (-power - 1)
    sums = np.zeros_like(inputs)
    for term, window in zip(terms, windows(len(inputs), size, blocked), strict=True):
        sums[window] += term
    return acts_grad * denoms**-power + sign * 2 * scale * power * inputs * sums


def lrn_backward_magnitude(inputs, denoms, acts_grad, **scalars):
    return lrn_backward(np.abs(inputs), denoms, np.abs(acts_grad), **scalars, sign=1)


def forward_case(name, shape, size, power=0.75, **blocked):
    return Case("lrn_forward", name, {"inputs": normal(*shape)}, {"denoms": shape, "acts": shape}, lrn_forward,
                {"size": size, "scale": 0.05, "power": power, "bias": 2.0, **blocked}, sums=size, steps=2)


def backward_case(name, shape, size, power=0.75, check=False, denoms=None, **blocked):
    inputs, acts_grad = normal(*shape), normal(*shape, seed=1)
    scalars = {"size": size, "scale": 0.3, "power": power, **blocked}
    denoms = (denominators(inputs, size, 0.3, 1.0, **blocked) if denoms is None else np.full(shape, denoms)).astype(np.float32).astype(np.float64)
    cost = None
    if check:
        denoms = denominators(inputs, size, 0.3, 1.0, **blocked)
        def cost(x):
            return (lrn_forward(x, **scalars, bias=1.0)[1] * acts_grad).sum()
    return Case("lrn_backward", name, {"inputs": inputs, "denoms": denoms, "acts_grad": acts_grad}, {"inputs_grad": shape}, lrn_backward,
                scalars, lrn_backward_magnitude, sums=size + 1, steps=3, cost=cost, at=inputs)


SHAPES = {"plain": (16, 5, 4, 3), "one-element": (3, 1, 1, 1), "48-channels": (48, 2, 2, 65), "129-images": (7, 3, 3, 129)}
CASES = [forward_case(f"{name}-size{size}", shape, size) for name, shape in SHAPES.items() for size in (3, 4, 5)]
CASES += [backward_case(f"{name}-size{size}", shape, size) for name, shape in SHAPES.items() for size in (3, 4, 5)]
CASES += [case(f"{channels}-channels-size{size}", (channels, 2, 3, 5), size) for case in (forward_case, backward_case)
          for channels, size in ((15, 9), (16, 9), (17, 5), (18, 3), (33, 9), (35, 5))]
CASES += [backward_case(f"gradient-{channels}-channels-size{size}", (channels, 1, 2, 2), size, check=True) for channels, size in ((17, 5), (20, 9), (33, 3))]
CASES += [case(f"power{power}", (5, 3, 2, 3), 3, power) for case in (forward_case, backward_case) for power in (0.5, 0.6, 1.0)]
CASES += [case(f"power0.6-size{size}", (18, 1, 2, 3), size, 0.6) for case in (forward_case, backward_case) for size in (5, 9)]
CASES += [case(f"nine-rows-size{size}", (3, 3, 1, 2), size) for case in (forward_case, backward_case) for size in (3, 4)]
CASES += [case("8-channels-a-thread", (10, 16, 16, 512), 5) for case in (forward_case, backward_case)]  # on cuda and simt, which have threads enough
CASES += [case("more-than-a-tile", (3, 2, 3, 300), 3) for case in (forward_case, backward_case)]
CASES += [case("window-wider-than-channels", (2, 3, 2, 3), 7) for case in (forward_case, backward_case)]
CASES += [backward_case(f"gradient-size{size}", (9, 2, 2, 3), size, check=True) for size in (3, 4, 5)]
CASES += [case(f"blocks-of-{size}", (11, 3, 2, 5), size, blocked=True) for case in (forward_case, backward_case) for size in (1, 3, 4, 12)]
CASES += [backward_case(f"gradient-blocks-of-{size}", (7, 2, 2, 3), size, check=True, blocked=True) for size in (3, 4)]
# The power that the sums take, denoms^(-power - 1), is beyond float32 there; denoms^-power, of the first term, is not.
CASES += [backward_case(f"large-denominators-size{size}", (5, 2, 2, 3), size, denoms=1e30) for size in (3, 4)]

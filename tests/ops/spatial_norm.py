"""Normalization within a map, over windows of pixels: by the responses (spatial_lrn) or by the local contrast (lcn)."""
from __future__ import annotations

import numpy as np

from . import Case, normal


def windows(shape, size):
    """((y, x), the slices of its window) of every pixel."""
    def side(o):
        return slice(max(0, o - size // 2), max(0, o - size // 2 + size))
    for y, x in np.ndindex(shape[1:3]):
        yield (y, x), (slice(None), side(y), side(x))


def window_means(inputs, size):
    means = np.empty_like(inputs)
    for (y, x), window in windows(inputs.shape, size):
        means[:, y, x] = inputs[window].mean((1, 2))
    return means


def denominators(deviations, size, scale, bias):
    denoms = np.empty_like(deviations)
    for (y, x), window in windows(deviations.shape, size):
        denoms[:, y, x] = bias + scale * (deviations[window] ** 2).sum((1, 2))
    return denoms


def normalize(inputs, deviations, size, scale, power, bias):
    denoms = denominators(deviations, size, scale, bias)
    return denoms, inputs * denoms**-power


def gradient(inputs, deviations, denoms, acts_grad, size, scale, power, sign=-1):
    terms = acts_grad * inputs * denoms ** (-power - 1)
    sums = np.zeros_like(inputs)
    for (y, x), window in windows(inputs.shape, size):
        sums[window] += terms[:, y, None, x, None]
    return acts_grad * denoms**-power + sign * 2 * scale * power * deviations * sums


def spatial_lrn_forward(inputs, **scalars):
    return normalize(inputs, inputs, **scalars)


def spatial_lrn_backward(inputs, denoms, acts_grad, **scalars):
    return gradient(inputs, inputs, denoms, acts_grad, **scalars)


def spatial_lrn_backward_magnitude(inputs, denoms, acts_grad, **scalars):
    return gradient(np.abs(inputs), np.abs(inputs), denoms, np.abs(acts_grad), **scalars, sign=1)


def lcn_forward(inputs, means, **scalars):
    return normalize(inputs, inputs - means, **scalars)


def lcn_forward_magnitude(inputs, means, power, **scalars):
    """What the difference loses comes into acts by way of the denominator."""
    denoms, _ = lcn_forward(inputs, means, power=power, **scalars)
    magnitude, _ = lcn_forward(np.abs(inputs), -np.abs(means), power=power, **scalars)
    return magnitude, np.abs(inputs) * denoms**-power * magnitude / denoms


def lcn_backward(inputs, means, denoms, acts_grad, **scalars):
    return gradient(inputs, inputs - means, denoms, acts_grad, **scalars)


def lcn_backward_magnitude(inputs, means, denoms, acts_grad, **scalars):
    return gradient(np.abs(inputs), np.abs(inputs) + np.abs(means), denoms, np.abs(acts_grad), **scalars, sign=1)


def rounded(values):
    return values.astype(np.float32).astype(np.float64)


def cases(name, shape, size, power=0.75, check=False):
    """The four ops on one shape. check: with gradients by differences, which hold lcn's means constant, as the op does."""
    inputs, acts_grad = normal(*shape), normal(*shape, seed=1)
    means = rounded(window_means(inputs, size))
    forward = {"size": size, "scale": 0.05, "power": power, "bias": 2.0}
    backward = {"size": size, "scale": 0.3, "power": power}

    def denoms(deviations):
        values = denominators(deviations, size, 0.3, 1.0)
        return values if check else rounded(values)

    def cost(centre):
        return (lambda x: (normalize(x, x - centre, **backward, bias=1.0)[1] * acts_grad).sum()) if check else None

    ins, outs, ins_grad = {"inputs": inputs}, {"denoms": shape, "acts": shape}, {"inputs_grad": shape}
    more = {"denoms": denoms(inputs), "acts_grad": acts_grad}
    of_contrast = {"means": means, "denoms": denoms(inputs - means), "acts_grad": acts_grad}
    return [
        Case("spatial_lrn_forward", name, ins, outs, spatial_lrn_forward, forward, sums=size * size, steps=2),
        Case("spatial_lrn_backward", name, ins | more, ins_grad, spatial_lrn_backward, backward, spatial_lrn_backward_magnitude,
             sums=size * size + 1, steps=3, cost=cost(0), at=inputs),
        Case("lcn_forward", name, ins | {"means": means}, outs, lcn_forward, forward, lcn_forward_magnitude, sums=size * size, steps=2),
        Case("lcn_backward", name, ins | of_contrast, ins_grad, lcn_backward, backward, lcn_backward_magnitude,
             sums=size * size + 1, steps=3, cost=cost(means), at=inputs),
    ]


SHAPES = {"plain": (3, 7, 6, 5), "one-element": (1, 1, 1, 1), "17-channels": (17, 4, 5, 2), "129-images": (2, 5, 4, 129), "two-strips": (2, 3, 4, 300)}
CASES = [case for name, shape in SHAPES.items() for size in (3, 4, 5) for case in cases(f"{name}-size{size}", shape, size)]
CASES += [case for power in (0.5, 1.0) for case in cases(f"power{power}", (2, 4, 3, 3), 3, power)]
CASES += [case for size in (1, 2, 9, 100) for case in cases(f"size{size}", (2, 4, 6, 3), size)]
CASES += [case for size in (2, 3, 5) for case in cases(f"gradient-size{size}", (2, 4, 5, 2), size, check=True)]
CASES += cases("gradient-window-wider-than-the-map", (2, 2, 3, 2), 7, check=True)

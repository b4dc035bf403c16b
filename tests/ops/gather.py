"""Chosen channels: any order, any number of times."""
from __future__ import annotations

import numpy as np

from . import Case, integers, normal


def gather_forward(inputs, channels):
    known = (channels >= 0) & (channels < len(inputs)) & (channels == np.floor(channels))
    acts = inputs[np.where(known, channels, 0).astype(int)]
    acts[~known] = np.nan
    return acts


def backward(inputs_shape):
    def gather_backward(acts_grad, channels):
        inputs_grad = np.zeros(inputs_shape)
        for grads, channel in zip(acts_grad, channels, strict=True):
            inputs_grad[int(channel)] += grads
        return inputs_grad
    return gather_backward


def cases(name, inputs, channels, exact=False, check=False):
    acts = (len(channels), *inputs[1:])
    chosen = np.array(channels, np.float64)
    values = integers if exact else normal
    x, d = values(*inputs, seed=1), values(*acts, seed=2)

    def cost(at):
        return (gather_forward(at, chosen) * d).sum()

    most = int(np.bincount(chosen.astype(int)).max())
    return [
        Case("gather_forward", name, {"inputs": x, "channels": chosen}, {"acts": acts}, gather_forward, exact=True),
        Case("gather_backward", name, {"acts_grad": d, "channels": chosen}, {"inputs_grad": inputs}, backward(inputs),
             magnitude=lambda d, channels: backward(inputs)(np.abs(d), channels), sums=most, steps=0, exact=exact, cost=cost if check else None, at=x),
    ]


def permutations(channels, count):
    rng = np.random.default_rng(count)
    return [c for _ in range(count) for c in rng.permutation(channels)]


UNKNOWN = np.array([1, -1, 3, 0.5, 0])
CASES = [
    *cases("one-element", (1, 1, 1, 1), [0]),
    *cases("a-permutation", (7, 3, 4, 5), permutations(7, 1)),
    *cases("three-permutations", (6, 5, 3, 3), permutations(6, 3)),
    *cases("three-permutations-integers", (6, 5, 3, 3), permutations(6, 3), exact=True),
    *cases("channels-nobody-reads", (9, 2, 3, 4), [8, 8, 1]),
    *cases("129-images", (5, 3, 2, 129), permutations(5, 2)),
    *cases("300-images", (3, 2, 1, 300), permutations(3, 2)),
    *cases("gradient", (4, 2, 3, 3), permutations(4, 2), check=True),
    Case("gather_forward", "channels-that-inputs-do-not-have", {"inputs": normal(3, 2, 3, 5), "channels": UNKNOWN}, {"acts": (5, 2, 3, 5)},
         gather_forward, exact=True),
]

"""`--check-grads`: the net's gradients against central differences, in float64, the kernels themselves on both sides."""
from __future__ import annotations

import numpy as np

from .net import Net

# Steps of the differences: the error is about step^2, rounding adds 1e-16 / step, and where a step takes some unit over
# the kink of relu or another maximum of a pool, the difference is wrong by any amount: then a smaller one is tried.
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)
TOLERANCE = 1e-5  # of |numeric - analytic| / |analytic|
SAMPLES = 12  # elements of each tensor
JITTER = 0.01  # standard deviation of what is added to the biases: with biases of 0 the flat parts of an image lie on relu's kink


def check_gradients(net: Net, arrays: tuple[np.ndarray, ...]) -> bool:
    """Prints a line for each learned tensor and returns whether all agree.

    The net has dtype float64 and runs as when testing (no dropout mask, no random crop).
    """
    rng = np.random.Generator(np.random.Philox(key=net.seed))
    for name in net.rate_slots:
        if name.endswith(".b"):
            net.set(name, net.get(name) + JITTER * rng.standard_normal(net.get(name).shape))
    plan = net.plan(arrays[0].shape[-1], "check")
    plan.run({**dict(enumerate(arrays)), "state": net.state(0)})
    plan.synchronize()
    analytic = {name: sum(plan.fetch(f"{name}_grad")) for name in net.rate_slots}
    coeffs = {node.name: node.layer.coeff for node in net.graph.costs}

    def cost() -> float:
        costs, _ = net.test(arrays)
        return sum(coeffs[name] * values[0] for name, values in costs.items())

    failed = 0
    for name in net.rate_slots:
        values = net.get(name)
        places = rng.permutation(values.size)[:SAMPLES]
        exact = analytic[name].ravel()[places]
        norm = np.linalg.norm(exact)
        good = TOLERANCE * (norm or 1) / np.sqrt(len(places))
        differences = np.full(len(places), np.inf)
        for i, place in enumerate(places):
            for step in STEPS:
                ends = []
                for by in (step, -step):
                    moved = values.copy()
                    moved.flat[place] += by
                    net.set(name, moved)
                    ends.append(cost())
                differences[i] = min(differences[i], abs((ends[0] - ends[1]) / (2 * step) - exact[i]))
                if differences[i] < good:
                    break
        net.set(name, values)
        error = np.linalg.norm(differences) / (norm or 1)
        failed += not error < TOLERANCE
        print(f"{name:24} {len(places):4} of {values.size:9} elements  |gradient| {norm:.6e}  relative error {error:.2e}  {'ok' if error < TOLERANCE else 'FAILED'}")
    total = len(net.rate_slots)
    print(f"ALL {total} TESTS PASSED" if not failed else f"{failed} of {total} TESTS FAILED")
    return not failed

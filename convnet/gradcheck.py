"""`--check-grads`: the net's gradients against central differences, in float64, the kernels themselves on both sides."""
from __future__ import annotations

import numpy as np

from .net import Net

STEP = 1e-5  # of the differences; their error is about STEP^2, and rounding adds 1e-16 / STEP
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
    analytic = {name: plan.fetch(f"{name}_grad") for name in net.rate_slots}
    coeffs = {node.name: node.layer.coeff for node in net.graph.costs}

    def cost() -> float:
        costs, _ = net.test(arrays)
        return sum(coeffs[name] * values[0] for name, values in costs.items())

    failed = 0
    for name in net.rate_slots:
        values = net.get(name)
        places = rng.permutation(values.size)[:SAMPLES]
        numeric = np.empty(len(places))
        for i, place in enumerate(places):
            ends = []
            for by in (STEP, -STEP):
                moved = values.copy()
                moved.flat[place] += by
                net.set(name, moved)
                ends.append(cost())
            numeric[i] = (ends[0] - ends[1]) / (2 * STEP)
        net.set(name, values)
        exact = analytic[name].ravel()[places]
        norm = np.linalg.norm(exact)
        error = np.linalg.norm(numeric - exact) / norm if norm else np.linalg.norm(numeric)
        failed += not error < TOLERANCE
        print(f"{name:24} {len(places):4} of {values.size:9} elements  |gradient| {norm:.6e}  relative error {error:.2e}  {'ok' if error < TOLERANCE else 'FAILED'}")
    total = len(net.rate_slots)
    print(f"ALL {total} TESTS PASSED" if not failed else f"{failed} of {total} TESTS FAILED")
    return not failed

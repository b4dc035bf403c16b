"""What an op's file in this folder holds: its reference in float64 numpy, written from its formula, and its cases.

`tests/test_ops.py` runs every case on every backend: value in float32 within the bound of the arithmetic, in
float64, exactly where the inputs are small integers, added to what was there, with padded and with tight rows,
between guard bands; and, where `cost` is given, against central differences. `benchmarks/` read the same shapes.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

Arrays = tuple[np.ndarray, ...]
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8}
# Precisions that round operands (ops.h), and what that may add to the error of a product, relative: of an operand,
# 2^-11 to 10 bits of fraction, 2^-8 to 7; twice 7 bits leave 2^-16, and of their four products one is left out.
ROUNDED = {"tf32": 2 * 2**-11 + 2**-22, "bf16": 2 * 2**-8 + 2**-16, "bf16x3": 3 * 2**-16 + 2**-30}


@dataclass(frozen=True)
class Case:
    """One call of one op.

    op          the function of ops.h
    name        what is special about this case
    inputs      the tensors it reads, in order, by name; float64, int labels, or uint8 (kept as uint8)
    outputs     name and shape of the tensors it writes, in order (without workspace)
    scalars     the named arguments
    reference   (*inputs, **scalars) -> the outputs, in float64
    magnitude   the same with all terms taken absolutely: what rounding errors are measured by;
                by default the reference on absolute inputs
    sums        D, the longest chain of additions; steps: t, transcendental functions and divisions on the path
    operands    what rounding the operands may add to the error of a float32 product, relative
    exact       the inputs are such that float32 arithmetic is exact: tolerance 0
    cost        (the array `at`) -> number whose derivative by `at` the first output is
    initial     output name -> values it holds before the call, for ops that read what they overwrite
    keep        dtypes of inputs and outputs that are not the case's floating type
    made        input name -> (op, what it reads, its scalars): an input that must have the very bits which that op gives
    """

    op: str
    name: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, tuple[int, ...]]
    reference: Callable[..., Arrays | np.ndarray]
    scalars: dict = field(default_factory=dict)
    magnitude: Callable[..., Arrays | np.ndarray] | None = None
    sums: int = 1
    steps: int = 1
    operands: float = 0.0
    exact: bool = False
    cost: Callable[[np.ndarray], float] | None = None
    at: np.ndarray | None = None
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    keep: dict[str, str] = field(default_factory=dict)
    adds: bool = True  # Out.add means something to this op
    made: dict[str, tuple] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.op}-{self.name}"

    def expected(self) -> Arrays:
        return as_tuple(self.reference(*self.inputs.values(), **self.scalars))

    def bound(self, unit: float) -> Arrays:
        """Componentwise bound of the error: ((8 sqrt(D) + 8 t) u + e) S, with S the magnitude, e of the operands (ARCHITECTURE, Proof)."""
        if self.magnitude:
            sizes = self.magnitude(*self.inputs.values(), **self.scalars)
        else:
            sizes = self.reference(*(np.abs(a) for a in self.inputs.values()), **self.scalars)
        operands = self.operands * (unit == UNIT["float32"])
        return tuple(((8 * np.sqrt(self.sums) + 8 * self.steps) * unit + operands) * np.abs(s) for s in as_tuple(sizes))


def as_tuple(arrays: Arrays | np.ndarray) -> Arrays:
    return arrays if isinstance(arrays, tuple) else (arrays,)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers that float32 holds exactly."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def integers(*shape: int, low: int = -3, high: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.float64)


def numeric_gradient(cost: Callable[[np.ndarray], float], at: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """Derivative of cost at every element by central differences of fourth order."""
    def moved(index: tuple[int, ...], by: float) -> float:
        there = at.astype(np.float64).copy()
        there[index] += by
        return cost(there)

    gradient = np.empty_like(at, np.float64)
    for i in np.ndindex(at.shape):
        gradient[i] = (8 * (moved(i, h) - moved(i, -h)) - (moved(i, 2 * h) - moved(i, -2 * h))) / (12 * h)
    return gradient


def behind_relu(case: Case, op: str, name: str, inputs: np.ndarray) -> Case:
    """A gradient's case followed by the gradient of a relu with these inputs, whose acts are read last, by this name."""
    def sizes(*arrays, **scalars):
        return case.magnitude(*arrays, **scalars) if case.magnitude else case.reference(*map(np.abs, arrays), **scalars)

    def masked(function):
        return lambda *arrays, **scalars: function(*arrays[:-1], **scalars) * (arrays[-1] > 0)

    inputs = np.where(np.abs(inputs) < 0.01, 0.5, inputs) if case.cost else inputs  # no kink is near
    return replace(case, op=op, inputs={**case.inputs, name: np.maximum(inputs, 0)}, reference=masked(case.reference), magnitude=masked(sizes),
                   cost=case.cost and (lambda at: case.cost(np.maximum(at, 0))), at=inputs, adds=False)


def at_precision(case: Case, precision: str) -> Case:
    """A product with operands that may be rounded."""
    def without_precision(function):
        return function and (lambda *arrays, precision, **scalars: function(*arrays, **scalars))

    return replace(case, name=f"{case.name}-{precision}", scalars={**case.scalars, "precision": precision}, operands=ROUNDED[precision],
                   reference=without_precision(case.reference), magnitude=without_precision(case.magnitude))

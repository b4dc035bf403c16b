"""Layers: dataclasses whose fields are their config keys.

A layer tells its output's shape, the weights it learns and what it keeps for the backward pass, and calls ops on
a recorder. It never sees a device, a pointer or a stream: see `convnet/plan.py` for what `t` holds.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..initial import InitFunction
from ..schedule import Schedule

LAYERS: dict[str, type[Layer]] = {}
Shape = tuple[int, int, int]  # (channels, height, width)


def key(default: Any = dataclasses.MISSING, help: str = "", *, params: bool = False, choices: tuple[str, ...] = (),
        least: int | None = None, either: bool = False) -> Any:
    """A config key. Without a default it is required; `params`: it belongs in the params file; `least`: of a number;
    `either`: one that cuda-convnet2 reads in the params file and the others in the layers file.

    A tuple field is a comma-separated list with one value for each input; a list of one value serves all.
    """
    return field(default=default, kw_only=True, metadata={"help": help, "params": params, "choices": choices, "least": least, "either": either, "key": True})


class BadKey(ValueError):
    """A key's value found wrong by `Layer.check`; the message is told behind the key, with the line of it."""

    def __init__(self, field_name: str, message: str):
        super().__init__(message)
        self.field_name = field_name


def layer(*kinds: str):
    """Registers a class under its `type=` words."""

    def register(cls: type[Layer]) -> type[Layer]:
        cls = dataclass(cls)
        for kind in kinds:
            LAYERS[kind] = cls
        return cls

    return register


@dataclass(frozen=True)
class Limits:
    """Within what the columns of weights, their filters, are held after each update. A limit of 0 is none.

    least, most    of their spread, where most > 0
    norm, exactly  the largest norm; with `exactly`, that of every column
    matrices       how many of these the weights are, one below the other: local has filters for each pixel
    """

    least: float = 0.0
    most: float = 0.0
    norm: float = 0.0
    exactly: bool = False
    matrices: int = 1


@dataclass(frozen=True)
class Weights:
    """A tensor that a layer learns.

    shape     outputs fastest: conv (channels, y, x, filters), fc (inputs, outputs), biases (n,)
    stdev     of the normal distribution it starts from, and `constant` its mean
    period    passes from one update to the next; 0: as few as possible
    source    whose they are, as conv1.W0, where they are not its own
    counts    name of the layer's fixed tensor that says how many others share a column, for `tree_update`; "": none do
    limits    of its columns
    function  that makes them; None: they are drawn
    epsilon   of `adaptive_update`; 0: the update is `sgd_update`
    """

    shape: tuple[int, ...]
    stdev: float
    constant: float
    rate: Schedule
    momentum: float
    decay: float
    period: int = 0
    source: str = ""
    counts: str = ""
    limits: Limits = Limits()
    function: InitFunction | None = None
    epsilon: float = 0.0

    @property
    def kept(self) -> tuple[str, ...]:
        """What of the same shape the updates leave for the next one, in the order in which the op takes it."""
        return ("means", "squares", "inc") if self.epsilon else ("inc",)


@dataclass(frozen=True)
class Fixed:
    """A tensor that a layer needs and does not learn: made once, with the weights, and kept with them.

    draw, function: -> its values; the function, where there is one. `random`: they are drawn, and do not follow from config and data.
    """

    shape: tuple[int, ...]
    draw: Callable[[np.random.Generator], np.ndarray]
    function: InitFunction | None = None
    random: bool = True


@dataclass
class Layer:
    """What every layer has. `kind` is its type= word."""

    name: str
    kind: str
    inputs: tuple[str, ...] = key((), "the layers it reads, all defined above it")
    gpu: tuple[int, ...] = key((), "device it lives on, or those of its replicas; default, or -1: those of its first input that is not data, else 0", least=-1)
    quant_f: str = key("default", "how its acts cross to another device; half: in half precision", params=True, choices=("default", "half"))
    quant_b: str = key("default", "how the gradient of its acts crosses back", params=True, choices=("default", "half"))
    dropout: float = key(0.0, "probability of dropping a unit of its output, before its neuron: makes a layer NAME_dropout of type hs "
                              "behind it (cuda-convnet 1)", params=True)
    where: str = field(default="", kw_only=True)  # file:line of its section
    strict_legacy: bool = field(default=False, kw_only=True, repr=False)  # old spellings are refused
    dialect: str = field(default="A12", kw_only=True)  # of the family's programs, whose config it is: see config.dialect_of
    warnings: list[tuple[str, str]] = field(default_factory=list, kw_only=True, repr=False)  # (field, text)

    needs_params: ClassVar[bool] = False  # a section in the params file is required
    input_count: ClassVar[int | None] = 1  # None: one or more
    is_cost: ClassVar[bool] = False
    on_host: ClassVar[bool] = False  # data layers live on no device
    reads_class_tree: ClassVar[bool] = False  # the graph sets its class_tree to that of the data (Provider)
    has_gradient: ClassVar[bool] = True  # False: nothing below it may learn

    def title(self) -> str:
        """What it is called where the net is described, in the original's words."""
        return f"{self.kind} layer"

    def check(self) -> None:
        """Raises BadKey, or ValueError where several keys contradict each other; may add to `warnings`."""

    def shape(self, *inputs: Shape) -> Shape:
        raise NotImplementedError

    def weights(self, *inputs: Shape) -> dict[str, Weights]:
        return {}

    def fixed(self, *inputs: Shape) -> dict[str, Fixed]:
        return {}

    def saved(self, *inputs: Shape) -> dict[str, Shape]:
        """Tensors beside the acts that forward leaves for backward, by name."""
        return {}

    def saved_weights(self, *inputs: Shape) -> dict[str, tuple[int, ...]]:
        """The same of tensors that are made of the weights, of any shape."""
        return {}

    def forward(self, ops, t, training: bool) -> None:
        raise NotImplementedError

    def backward(self, ops, t) -> None:
        raise NotImplementedError


def same_shapes(*inputs: Shape) -> Shape:
    """The shape that all inputs have; ValueError where they differ."""
    for shape in inputs:
        if shape != inputs[0]:
            raise ValueError(f"inputs of {' and '.join(describe(s) for s in inputs)}, expected equal ones")
    return inputs[0]


def describe(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# The order is that of the config reference.
from . import (  # noqa: E402, F401
    conv,
    cost,
    data,
    dropout,
    fc,
    image,
    join,
    local,
    neuron,
    norm,
    own,
    pool,
    softmax,
    tree,
)

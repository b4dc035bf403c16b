"""Nonlinearities. `neuron=relu` on any layer makes a layer of this type behind it, named <layer>_neuron."""
from __future__ import annotations

import re

from . import Layer, Shape, key, layer

PARAMETERS = {"ident": 0, "relu": 0, "nrelu": 0, "logistic": 0, "softrelu": 0, "abs": 0, "square": 0, "sqrt": 0, "tanh": 2, "linear": 2, "brelu": 1,
              "drelu": 1, "log": 1}
READ_INPUTS = ("abs", "square", "softrelu", "drelu", "log")  # their gradient is a function of the inputs, the others' of the acts


def parse_neuron(text: str) -> tuple[str, float, float]:
    """relu -> (relu, 1, 1); tanh[1.7,0.6] -> (tanh, 1.7, 0.6). ValueError says what was expected."""
    match = re.fullmatch(r"(\w+)\s*(?:\[(.*)\])?", text.strip())
    kind = match[1].lower() if match else ""
    if kind not in PARAMETERS:
        raise ValueError(f"neuron={text}, expected one of {', '.join(PARAMETERS)}")
    words = [w.strip() for w in match[2].split(",")] if match[2] else []
    if len(words) != PARAMETERS[kind]:
        raise ValueError(f"neuron={text}, expected {PARAMETERS[kind]} numbers in [ ]")
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"neuron={text}, expected numbers in [ ]") from None
    if kind == "tanh":
        numbers[1] = abs(numbers[1])
    if kind in ("tanh", "drelu") and numbers[0] == 0:
        raise ValueError(f"neuron={text}, expected a number other than 0: it is divided by")
    a, b = [*numbers, 1.0, 1.0][:2]
    return kind, a, b


@layer("neuron")
class NeuronLayer(Layer):
    """A nonlinearity, element by element. nrelu is relu with noise in training, of the unit's value as standard deviation."""

    neuron: str = key(help=f"{', '.join(PARAMETERS)}; tanh[a,b], linear[a,b], brelu[a], drelu[a] and log[a] with numbers")

    def check(self) -> None:
        parse_neuron(self.neuron)

    def shape(self, image: Shape) -> Shape:
        return image

    def constants(self) -> dict:
        kind, a, b = parse_neuron(self.neuron)
        return {"neuron": "relu" if kind == "nrelu" else kind, "a": a, "b": b}

    def forward(self, ops, t, training: bool) -> None:
        if training and parse_neuron(self.neuron)[0] == "nrelu":
            ops.noisy_relu(t.inputs[0], t.state, t.acts, **t.random("noise"))
        else:
            ops.neuron_forward(t.inputs[0], t.acts, **self.constants())

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            saved = t.inputs[0] if self.constants()["neuron"] in READ_INPUTS else t.acts
            ops.neuron_backward(saved, t.acts_grad, t.inputs_grad[0], **self.constants())

"""What layers with weights have in common."""
from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from ..initial import InitFunction
from ..schedule import Schedule, parse_schedule
from . import BadKey, Layer, Limits, Shape, Weights, key


@dataclass
class WeightLayer(Layer):
    """Weights W0, W1, ... of the inputs, and biases b shared by the images."""

    needs_params = True

    init_w: tuple[float, ...] = key((0.01,), "standard deviation of the initial weights")
    init_b: tuple[float, ...] = key((0.0,), "initial biases, which the inputs share")
    init_w_func: str = key("", "function of a Python file beside the config that makes the initial weights, as module.function(p1,p2); needs --allow-code. "
                               "initw.makew(layer) takes them from --init-from")
    init_b_func: str = key("", "the same for the biases: initw.makeb(layer)")
    eps_w: tuple[str, ...] = key(help="learning rate of the weights: a number or a schedule", params=True)
    eps_b: str = key(help="learning rate of the biases: a number or a schedule", params=True)
    mom_w: tuple[float, ...] = key(help="momentum of the weights", params=True)
    mom_b: float = key(help="momentum of the biases", params=True)
    wc: tuple[float, ...] = key((0.0,), "weight decay", params=True)
    weight_source: tuple[str, ...] = key((), "shares the weights of another layer, as conv1[0]: those of its first input; empty: has its own")
    update_period: int = key(0, "passes from one update to the next; 0: as few as possible", params=True, least=0)
    wball: tuple[float, ...] = key((0.0,), "limit of the norm of a filter: times its number of weights in the 2012 program; cuda-convnet2 takes it as it is, "
                                           "and sets the norm to it but in local layers; 0: none", params=True, least=0)
    super_eps: float = key(0.0, "adaptive learning rates: gradients of the weights are divided by sqrt(their variance of late + superEps); 0: they are not; "
                                "not in cuda-convnet2", params=True, least=0)
    super_mom: float = key(0.0, "no program ever used it; ignored", params=True)
    sched_w: tuple[str, ...] = key((), "schedule of epsW, as the 2012 program spells it: dexp[tgtFactor=250,numSteps=4]", params=True)
    sched_b: str = key("", "schedule of epsB", params=True)

    def weight_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        raise NotImplementedError

    def bias_count(self, *inputs: Shape) -> int:
        raise NotImplementedError

    def rates(self) -> dict[str, Schedule]:
        """Name of a tensor -> its learning rate; BadKey where a schedule cannot be read."""
        schedules = self.sched_w or ("",) * len(self.eps_w)
        rates = {f"W{i}": self.rate(f"W{i}", "eps_w", text, "sched_w", schedules[i]) for i, text in enumerate(self.eps_w)}
        return {**rates, "b": self.rate("b", "eps_b", self.eps_b, "sched_b", self.sched_b)}

    def rate(self, name: str, eps: str, text: str, sched: str, schedule: str) -> Schedule:
        field_name, label = eps, f"{self.name}.{name}"
        try:
            rate = parse_schedule(text, name=label, strict_legacy=self.strict_legacy)
            if schedule:  # the 2012 program's spelling; the rate beside it is a number
                field_name = sched
                rate = parse_schedule(schedule, rate.base, name=label, strict_legacy=self.strict_legacy)
        except ValueError as error:
            raise BadKey(field_name, str(error)) from None
        return rate

    def source(self, index: int) -> str:
        """Whose weights those of an input are, as conv1.W0; "": its own. BadKey where it cannot be read."""
        text = self.weight_source[index] if self.weight_source else ""
        match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+)\])?", text) if text else None
        if text and not match:
            raise BadKey("weight_source", f"{text}: expected a layer and one of its inputs, as conv1[0]")
        return f"{match[1]}.W{int(match[2] or 0)}" if match else ""

    def limits(self, index: int, shape: tuple[int, ...], matrices: int = 1) -> Limits:
        """Those of an input's weights of that shape, which are one matrix or several (SEMANTICS 7.6)."""
        if self.dialect == "V2":
            return Limits(norm=self.wball[index], exactly=matrices == 1, matrices=matrices)
        return Limits(norm=self.wball[index] * (prod(shape[:-1]) // matrices), matrices=matrices)

    def function(self, field_name: str, shape: tuple[int, ...], index: int | None = None) -> InitFunction | None:
        """What a key such as initWFunc says of a tensor, which has that shape in the originals; BadKey where it cannot be read."""
        if not (text := getattr(self, field_name)):
            return None
        try:
            return InitFunction({"init_w_func": "initWFunc", "init_b_func": "initBFunc", "init_c_func": "initCFunc"}[field_name], text, shape, index)
        except ValueError as error:
            raise BadKey(field_name, str(error)) from None

    def bias_matrix(self, count: int) -> tuple[int, int]:
        """The biases' shape in the originals."""
        return (1, count)

    def biases(self, count: int, rate: Schedule) -> Weights:
        return Weights((count,), 0.0, self.init_b[0], rate, self.mom_b, 0.0, self.update_period, function=self.function("init_b_func", self.bias_matrix(count)))

    def check(self) -> None:
        for name in ("init_w_func", "init_b_func"):
            self.function(name, ())
        if len(set(self.init_b)) > 1:
            raise BadKey("init_b", f"found {', '.join(f'{value:g}' for value in self.init_b)}, expected one value: the inputs share the biases")
        if self.super_eps and self.dialect == "V2":
            self.warnings.append(("super_eps", "ignored, as by cuda-convnet2"))
        for i in range(len(self.inputs)):
            self.source(i)
        for name, schedule in self.rates().items():
            letter = "b" if name == "b" else "w"
            told = (f"sched_{letter}" if getattr(self, f"sched_{letter}") else f"eps_{letter}", schedule.warning)
            if schedule.warning and told not in self.warnings:
                self.warnings.append(told)

    def weights(self, *inputs: Shape) -> dict[str, Weights]:
        rates = self.rates()
        shapes = [self.weight_shape(i, shape) for i, shape in enumerate(inputs)]
        epsilon = 0.0 if self.dialect == "V2" else self.super_eps
        weights = {f"W{i}": Weights(shape, self.init_w[i], 0.0, rates[f"W{i}"], self.mom_w[i], self.wc[i], self.update_period, self.source(i),
                                    limits=self.limits(i, shape), function=self.function("init_w_func", (prod(shape[:-1]), shape[-1]), i), epsilon=epsilon)
                   for i, shape in enumerate(shapes)}
        weights["b"] = self.biases(self.bias_count(*inputs), rates["b"])
        return weights

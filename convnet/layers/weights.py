"""What layers with weights have in common."""
from __future__ import annotations

from dataclasses import dataclass

from ..schedule import Schedule, parse_schedule
from . import BadKey, Layer, Shape, Weights, key

NOT_BUILT = {"wball": "0", "superEps": "0", "superMom": "0", "wcNormMin": "0", "wcNormMax": "0", "randSparse": "0",
             "weightSource": "", "initWFunc": "", "initBFunc": "", "initCFunc": "", "updatePeriod": "0"}


@dataclass
class WeightLayer(Layer):
    """Weights W0, W1, ... of the inputs, and biases b shared by the images."""

    needs_params = True

    init_w: tuple[float, ...] = key((0.01,), "standard deviation of the initial weights")
    init_b: float = key(0.0, "initial biases")
    eps_w: tuple[str, ...] = key(help="learning rate of the weights: a number or a schedule", params=True)
    eps_b: str = key(help="learning rate of the biases: a number or a schedule", params=True)
    mom_w: tuple[float, ...] = key(help="momentum of the weights", params=True)
    mom_b: float = key(help="momentum of the biases", params=True)
    wc: tuple[float, ...] = key((0.0,), "weight decay", params=True)
    sched_w: str = key("", "schedule of epsW, as the 2012 program spells it: dexp[tgtFactor=250,numSteps=4]", params=True)
    sched_b: str = key("", "schedule of epsB", params=True)

    def weight_shape(self, index: int, shape: Shape) -> tuple[int, ...]:
        raise NotImplementedError

    def bias_count(self, *inputs: Shape) -> int:
        raise NotImplementedError

    def rates(self) -> dict[str, Schedule]:
        """Name of a tensor -> its learning rate; BadKey where a schedule cannot be read."""
        rates = {f"W{i}": self.rate(f"W{i}", "eps_w", text, "sched_w") for i, text in enumerate(self.eps_w)}
        return {**rates, "b": self.rate("b", "eps_b", self.eps_b, "sched_b")}

    def rate(self, name: str, eps: str, text: str, sched: str) -> Schedule:
        field_name, label = eps, f"{self.name}.{name}"
        try:
            rate = parse_schedule(text, name=label)
            if schedule := getattr(self, sched):  # the 2012 program's spelling; the rate beside it is a number
                field_name = sched
                rate = parse_schedule(schedule, rate.base, name=label)
        except ValueError as error:
            raise BadKey(field_name, str(error)) from None
        return rate

    def check(self) -> None:
        for name, schedule in self.rates().items():
            if schedule.warning:
                self.warnings.append(("eps_b" if name == "b" else "eps_w", schedule.warning))

    def weights(self, *inputs: Shape) -> dict[str, Weights]:
        rates = self.rates()
        weights = {f"W{i}": Weights(self.weight_shape(i, shape), self.init_w[i], 0.0, rates[f"W{i}"], self.mom_w[i], self.wc[i])
                   for i, shape in enumerate(inputs)}
        weights["b"] = Weights((self.bias_count(*inputs),), 0.0, self.init_b, rates["b"], self.mom_b, 0.0)
        return weights

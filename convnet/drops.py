"""Learning rates lowered during a run, as people did by hand: by a written plan, or when the test error stops improving.

Both multiply whatever rates the params file gives, so that a layer keeps its share of the others' rates.
"""
from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

from .errors import CommandLineError

NUMBER = re.compile(r"(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def parse_steps(text: str | None) -> list[tuple[int, float]]:
    """`23:0.1,51:0.1` -> [(23, 0.1), (51, 0.1)]: from epoch 23 on all rates times 0.1, from 51 on times 0.1 again."""
    steps = []
    for word in text.split(",") if text else ():
        epoch, _, factor = (part.strip() for part in word.partition(":"))
        if not (re.fullmatch(r"[1-9]\d{0,8}", epoch) and NUMBER.fullmatch(factor) and 0 < float(factor) < math.inf):
            raise CommandLineError(f"--lr-steps {text}: {word.strip()!r}, expected an epoch and a factor above 0, as 23:0.1,51:0.1")
        steps.append((int(epoch), float(factor)))
    if [epoch for epoch, _ in steps] != sorted({epoch for epoch, _ in steps}):
        raise CommandLineError(f"--lr-steps {text}: expected each epoch once, in rising order")
    return steps


def factor_at(steps: list[tuple[int, float]], epoch: int) -> float:
    """The product of the factors of the steps that have come."""
    return math.prod(factor for first, factor in steps if first <= epoch)


@dataclass
class Plateau:
    """Divides the rates by `factor` after each `patience` tests without an error below the least so far, `drops` times at most.

    best, waited, dropped, scale: its state: the least error, tests since then or since the last drop, drops so far, and
    what the rates are multiplied with.
    """

    patience: int = 5
    factor: float = 10.0
    drops: int = 3
    best: float | None = None
    waited: int = 0
    dropped: int = 0
    scale: float = 1.0

    def see(self, error: float) -> bool:
        """Takes the error of a test; whether the rates drop now."""
        if self.best is None or error < self.best:
            self.best, self.waited = error, 0
            return False
        self.waited += 1
        if self.waited < self.patience or self.dropped >= self.drops:
            return False
        self.waited, self.dropped, self.scale = 0, self.dropped + 1, self.scale / self.factor
        return True

    def state(self) -> dict:
        return {name: asdict(self)[name] for name in ("best", "waited", "dropped", "scale")}


def parse_drop(text: str | None) -> Plateau | None:
    """`plateau`, or with some of its numbers as `plateau:patience=5,factor=10,drops=3`; None where nothing is asked for."""
    if text in (None, "", "none"):
        return None
    kind, _, words = text.partition(":")
    found = dict(word.split("=", 1) for word in words.split(",") if "=" in word)
    expected = f"--lr-drop {text}: expected plateau or none, or as plateau:patience=5,factor=10,drops=3"
    if kind != "plateau" or not found.keys() <= {"patience", "factor", "drops"} or len(found) != (words.count(",") + 1 if words else 0):
        raise CommandLineError(expected)
    for name, value in found.items():
        if not (NUMBER.fullmatch(value) if name == "factor" else re.fullmatch(r"\d{1,9}", value)):
            raise CommandLineError(f"{expected}; {name}={value} is no number that fits")
    plateau = Plateau(int(found.get("patience", 5)), float(found.get("factor", 10)), int(found.get("drops", 3)))
    if plateau.patience < 1 or not 1 < plateau.factor < math.inf:
        raise CommandLineError(f"{expected}; patience is 1 or more, factor above 1")
    return plateau

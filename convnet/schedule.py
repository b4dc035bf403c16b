"""Learning-rate schedules: the rate as a function of how much of the run is done.

Sources: A12 lr.cu 40-190, layer.py:68-92,1411-1415; V2 lr.cu 30-140, layer.py:847-853, as told in
SEMANTICS 2.3. With p the progress, b the base rate, f = tgtFactor, n = numSteps:

    const    b                      (A12 calls it `default`)
    linear   b (1 - p) + p b / f
    exp      b f^-p                 (V2's closed form; A12's is equal but degenerate at b = 1)
    dexp     r_i = b f^-(i/(n-1)) for the first i with p <= (i+1)/n
    jdexp    as dexp in the first half of a step; in the second half, if i > 0 and 0.2 < p < 0.9,
             the geometric mean of r_i and r_(i-1)
    any      with noiseStdev s (A12): times 1 + |z| s, z standard normal, drawn anew at each step

Spellings: `dexp[tgtFactor=250,noiseStdev=0,numSteps=4]` beside a base rate (A12),
`dexp[base=0.01;tgtFactor=250;numSteps=4]` or a plain number (V2), and the positional
`dexp[250,0,4]` of old configs, which A12's released parser refuses.
"""

import math
import re
import zlib
from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

from convnet.cfgfile import normalise, suggest

MAX_STEPS = 1_000_000

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_CALL = re.compile(r"([A-Za-z]\w*)\s*(?:\[(.*)\])?", re.DOTALL)
_NAMES = {normalise(name): name for name in ("base", "tgtFactor", "numSteps", "noiseStdev")}
_NEEDS = {
    "const": (),
    "linear": ("tgtFactor",),
    "exp": ("tgtFactor",),
    "dexp": ("tgtFactor", "numSteps"),
    "jdexp": ("tgtFactor", "numSteps"),
}
_KINDS = (*_NEEDS, "default")


@dataclass(frozen=True)
class Schedule:
    """One tensor's learning rate over the run; `warning` is for the user, empty as a rule."""

    kind: str
    base: float
    tgt_factor: float = 1.0
    num_steps: int = 1
    noise_stdev: float = 0.0
    name: str = field(default="", compare=False)  # of the tensor: keys the noise
    warning: str = field(default="", compare=False)

    @property
    def falls(self) -> bool:
        """Whether the rate depends on progress, and so on the planned number of epochs."""
        return (self.base > 0 and self.kind != "const" and self.tgt_factor != 1
                and (self.num_steps > 1 or "numSteps" not in _NEEDS[self.kind]))

    def rate(self, progress: float, step: int = 0, seed: int = 0) -> float:
        """The rate at `progress` in [0, 1]; `step` and `seed` only matter where there is noise."""
        rate = self.noiseless(progress)
        if self.noise_stdev > 0:
            rate *= 1 + _abs_normal(seed, self.name, step) * self.noise_stdev
        return rate

    def noiseless(self, p: float) -> float:
        """The rate at progress `p`, of which noise makes a larger one."""
        if not self.falls:
            return self.base
        if self.kind == "linear":
            return self.base * (1 - p) + p * self.base / self.tgt_factor
        if self.kind == "exp":
            return self._exp(p)
        n = self.num_steps
        i = min(bisect_left(range(n), p, key=lambda i: (i + 1) / n), n - 1)
        jumps = self.kind == "jdexp" and i > 0 and p > (i + 0.5) / n and 0.2 < p < 0.9
        # The geometric mean of two neighbours is the exponential halfway between them.
        return self._exp((i - 0.5 if jumps else i) / (n - 1))

    def _exp(self, p: float) -> float:
        return self.base * self.tgt_factor ** -p

    def __str__(self) -> str:
        """In V2's spelling, which says everything; `parse_schedule` reads it back."""
        values = {"base": self.base, "tgtFactor": self.tgt_factor, "numSteps": self.num_steps}
        words = [f"{name}={values[name]!r}" for name in ("base", *_NEEDS[self.kind])]
        if self.noise_stdev:
            words.append(f"noiseStdev={self.noise_stdev!r}")
        return f"{self.kind}[{';'.join(words)}]"


def progress(batches_done: int, epochs: int, batches_per_epoch: int) -> float:
    """p = clip((batches_done - 1) / (epochs * batches_per_epoch), 0, 1) (A12 convnet.py:104-108).

    Batches are data batches (files), not minibatches, and the one that is training counts as
    done: the first batch of a run has batches_done = 1 and p = 0.
    """
    total = epochs * batches_per_epoch
    return min(max((batches_done - 1) / total, 0.0), 1.0) if total > 0 else 0.0


def split_list(text: str) -> list[str]:
    """The items of a comma-separated list; commas inside brackets belong to the item."""
    if not text.strip():
        return []
    items, last, inside = [], 0, False
    for mark in re.finditer(r"[\[\],]", text):
        if mark[0] == "," and not inside:
            items.append(text[last : mark.start()].strip())
            last = mark.end()
        inside = mark[0] == "[" or (mark[0] == "," and inside)
    return [*items, text[last:].strip()]


def parse_schedule(text: str, base: float | None = None, *, name: str = "",
                   strict_legacy: bool = False) -> Schedule:
    """The schedule that a config means; ValueError says what was expected.

    A12's `schedW` comes with its `epsW` as `base`. V2's `epsW` has no `base` beside it: it is a
    number, or a schedule with `base=` inside. Positional parameters are taken as their author
    meant them, with a warning; `strict_legacy` refuses them, as A12's released parser did.
    (The old key `sched=` is the caller's: with strict_legacy it is ignored, unread.)
    """
    text = text.strip()
    if base is not None:
        _check("base rate", base, base >= 0, "0 or more")
    if base is None and _NUMBER.fullmatch(text):
        return Schedule("const", _rate(text), name=name)

    kind, words = _split_call(text, base)
    given, warning = _parameters(text, kind, words, strict_legacy)
    if base is not None and "base" in given:
        raise ValueError(f"{text}: base= inside the schedule, and the rate {base:g} beside it; "
                         "expected one of them")
    for needed in ("base", *_NEEDS[kind]):
        if needed not in given and not (needed == "base" and base is not None):
            raise ValueError(f"{text}: no {needed}; expected {_expected(kind, base)}")

    rate = _rate(given["base"]) if base is None else float(base)
    factor = _number("tgtFactor", given.get("tgtFactor", "1"))
    _check("tgtFactor", factor, factor > 0, "a number above 0, by which the rate ends divided")
    if not (math.isfinite(1 / factor) and math.isfinite(rate / factor)):
        raise ValueError(f"tgtFactor={factor!r}: the rate {rate:g} divided by it is not finite")
    steps = _number("numSteps", given.get("numSteps", "1"))
    _check("numSteps", steps, steps == int(steps) and 1 <= steps <= MAX_STEPS,
           f"a whole number from 1 to {MAX_STEPS}")
    noise = _number("noiseStdev", given.get("noiseStdev", "0"))
    _check("noiseStdev", noise, noise >= 0, "a number of 0 or more")
    return Schedule(kind, rate, factor, int(steps), noise, name, warning)


def with_names(text: str) -> str:
    """A schedule without a base, its parameters with the names that they have by their places; what cannot be read stays."""
    try:
        kind, words = _split_call(text.strip(), 0.0)
        given, warning = _parameters(text, kind, words, strict_legacy=False)
    except ValueError:
        return text
    return f"{kind}[{','.join(f'{key}={value}' for key, value in given.items())}]" if warning else text


def _split_call(text: str, base: float | None) -> tuple[str, list[str]]:
    """`dexp[a,b]` as its kind and the texts of its parameters; A12 divides by `,`, V2 by `;`."""
    call = _CALL.fullmatch(text)
    kind = call[1].lower() if call else ""
    if kind not in _KINDS:
        number = "" if base is not None else "a number or "
        hint = suggest(kind, _KINDS) if kind else ""
        raise ValueError(f"{text!r}: no learning-rate schedule; expected {number}one of "
                         f"{', '.join(_KINDS)} with its parameters in [ ]{hint}")
    words = [word.strip() for word in re.split("[,;]", call[2])] if (call[2] or "").strip() else []
    return ("const" if kind == "default" else kind), words


def _parameters(text: str, kind: str, words: list[str],
                strict_legacy: bool) -> tuple[dict[str, str], str]:
    """The parameters' texts by name, and a warning where they were positional."""
    if words and not any("=" in word for word in words):
        given = _positional(text, kind, words)
        named = f"{kind}[{','.join(f'{key}={value}' for key, value in given.items())}]"
        if strict_legacy:
            raise ValueError(f"{text}: parameters without names, which the released program "
                             f"refuses too; expected {named} (or no --strict-legacy)")
        return given, f"{text}: parameters without names, read as {named}"

    given = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise ValueError(f"{text}: {word!r} has no name; expected name=value everywhere")
        spelled = _NAMES.get(normalise(key))
        if spelled not in ("base", *_NEEDS[kind], "noiseStdev"):
            takes = ("base", *_NEEDS[kind], "noiseStdev")
            raise ValueError(f"{text}: {kind} has no parameter {key}; expected "
                             f"{', '.join(takes)}{suggest(key, takes)}")
        if spelled in given:
            raise ValueError(f"{text}: {spelled} is given twice; expected it once")
        given[spelled] = value
    return given, ""


def _positional(text: str, kind: str, words: list[str]) -> dict[str, str]:
    """What the authors of old configs meant: factor, then noise (may be left out), then steps."""
    needs = _NEEDS[kind]
    orders = [] if kind == "const" else [needs, (needs[0], "noiseStdev", *needs[1:])]
    for order in orders:
        if len(order) == len(words):
            return dict(zip(order, words, strict=True))
    raise ValueError(f"{text}: {len(words)} parameters without names; expected "
                     f"{_expected(kind, 0.0)}")


def _expected(kind: str, base: float | None) -> str:
    words = ("base", *_NEEDS[kind]) if base is None else _NEEDS[kind]
    return kind + (f"[{';'.join(f'{word}=NUMBER' for word in words)}]" if words else "")


def _number(name: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name}={text}: expected a number")
    value = float(text)
    _check(name, value, True, "a finite number")
    return value


def _rate(text: str) -> float:
    rate = _number("base rate", text)
    _check("base rate", rate, rate >= 0, "0 or more")
    return rate


def _check(name: str, value: float, holds: bool, expected: str):
    if not (holds and math.isfinite(value)):
        raise ValueError(f"{name}={value:g}: expected {expected}")


def _abs_normal(seed: int, name: str, step: int) -> float:
    """|z|, z standard normal, a function of its arguments alone: the same after a resume.

    Philox's raw words and Box-Muller, not Generator.normal(), whose stream NumPy may change.
    """
    key = np.array([seed % 2**64, zlib.crc32(f"schedule noise {name}".encode())], np.uint64)
    counter = np.array([step, 0, 0, 0], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(2)
    u, v = ((int(word) // 2**11 + 0.5) * 2.0**-53 for word in words)
    return math.sqrt(-2 * math.log(u)) * abs(math.cos(2 * math.pi * v))

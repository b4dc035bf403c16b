"""cuda-convnet's old configs for CIFAR-10, unmodified, against the errors that their names promise: 26% in 80 seconds, 19, 18, 13, 12, 11%.

    python benchmarks/revival.py example-layers --data-path cifar10
    python benchmarks/revival.py layers-80sec.cfg layer-params-80sec.cfg --data-path cifar10 --json revival.json

A folder stands for all pairs layers-NAME.cfg, layer-params-NAME.cfg in it that make such a promise.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from environment import machine, run_through_go

run_through_go()

import convnet  # noqa: E402
from convnet.cli import run_command  # noqa: E402
from convnet.cli.train import train  # noqa: E402
from convnet.data import Provider, format_range, open_provider  # noqa: E402
from convnet.errors import CommandLineError, MissingInput  # noqa: E402
from convnet.profile import write  # noqa: E402
from convnet.testing import error_of, predictions  # noqa: E402
from convnet.trainer import NotFinite  # noqa: E402

FETCH = ("no CIFAR-10. `./go convnet-data cifar10 DIR` fetches it from its published address (163 MB), or takes the archive with --from FILE; "
         "then --data-path DIR. A folder with its Python version, data_batch_1 to data_batch_5 and test_batch, does too")
SLACK = 0.5  # points by which nets of other seeds may be worse than their name


@dataclass(frozen=True)
class Leg:
    """Some epochs at rates that are `factor` times those of the file; `held_out`: the last training batch is kept for validation."""

    epochs: int
    factor: float = 1.0
    held_out: bool = False


@dataclass(frozen=True)
class Plan:
    """What a name promises, and how its authors trained. `source` says where that stands."""

    error: float
    legs: tuple[Leg, ...]
    crops: bool
    source: str
    seconds: float | None = None


SHORT = (Leg(120), Leg(10, 0.1), Leg(10, 0.01))
LONG = (Leg(350, held_out=True), Leg(150), Leg(10, 0.1), Leg(10, 0.01))
PLANS = {
    "80sec": Plan(26, (Leg(8), Leg(2, 0.1)), False, "comment in the file: a tenth after 8 epochs; 2 epochs after that are our choice", 80),
    "19pct": Plan(19, SHORT, False, "as the 18% net, whose comment has the plan"),
    "18pct": Plan(18, SHORT, False, "comment in the file: a tenth after 120 epochs, and again after 10; 10 epochs after that are our choice", 20 * 60),
    "13pct": Plan(13, LONG, True, "as the 11% net, whose comment has the plan"),
    "12pct": Plan(12, LONG, True, "as the 11% net, whose comment has the plan"),
    "11pct": Plan(11, LONG, True, "comment in the file: batches 1-4 for 350 epochs, all for 150, a tenth for 10, a hundredth for 10; ten views"),
}


@dataclass
class Result:
    """Errors of the test batches in percent; `views`: averaged over ten views, where the plan says so. seconds: of training alone.

    failed: why there are no such numbers, or why they are no answer.
    """

    config: str
    promised: float
    promised_seconds: float | None
    centre: float
    views: float | None
    seconds: float
    epochs: int
    failed: str = ""

    @property
    def verdict(self) -> str:
        if self.failed:
            return self.failed
        reached = min(self.centre, self.views if self.views is not None else self.centre)
        if reached > self.promised + SLACK:
            return f"misses it by {reached - self.promised:.1f} points"
        late = self.promised_seconds is not None and self.seconds > self.promised_seconds
        return "keeps it, but for the time" if late else "keeps it"


def find_pairs(paths: list[str]) -> list[tuple[Path, Path, str]]:
    """(layers file, params file, key of PLANS)."""
    pairs = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(each for each in path.iterdir() if re.match(r"layers-.*\.cfg", each.name) and promise_of(each))
            if not files:
                raise MissingInput(f"{path}: no layers-NAME.cfg in it whose name has one of {', '.join(PLANS)}")
            pairs += [pair_of(each) for each in files]
        elif not path.name.startswith("layer-params"):
            pairs.append(pair_of(path))
    return pairs


def promise_of(layers: Path) -> str | None:
    return next((name for name in PLANS if name in layers.name), None)


def pair_of(layers: Path) -> tuple[Path, Path, str]:
    params = layers.with_name(layers.name.replace("layers-", "layer-params-", 1))
    for file in (layers, params):
        if not file.is_file():
            raise MissingInput(f"{file}: no such file; expected layers-NAME.cfg and layer-params-NAME.cfg side by side")
    if not (name := promise_of(layers)):
        raise CommandLineError(f"{layers}: its name promises no error; expected one of {', '.join(PLANS)} in it")
    return layers, params, name


def ranges(provider: Provider) -> tuple[list[int], list[int]]:
    """The batches to train and to test on: as the folder says, else the last is for testing."""
    training, test = provider.groups.get("training"), provider.groups.get("test") or provider.groups.get("validation")
    numbers = provider.numbers
    if not (training and test) and len(numbers) < 2:
        raise MissingInput(f"{provider.name}: a single batch; expected CIFAR-10's five for training and one for testing")
    return (training, test) if training and test else (numbers[:-1], numbers[-1:])


def revive(layers: Path, params: Path, plan: Plan, asked: argparse.Namespace, folder: Path) -> Result:
    """Trains a net by its plan, in a folder for its checkpoints."""
    border = ["--crop-border", "4"] if plan.crops else []
    provider = open_provider("cifar", asked.data_path, crop_border=4 if plan.crops else 0)
    training, test = ranges(provider)
    files, resume = [str(layers), str(params)], []
    epochs, steps, factor, seconds = 0, [], 1.0, 0.0
    for leg in plan.legs:
        if leg.factor != factor:
            steps.append(f"{epochs + 1}:{leg.factor / factor:.6g}")
            factor = leg.factor
        epochs += max(1, leg.epochs // asked.shorten)
        held_out = leg.held_out and len(training) > 1
        learned, judged = (training[:-1], training[-1:]) if held_out else (training, test)
        rates = ["--lr-steps", ",".join(steps)] if steps else []
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # the table alone is the output
            train([*files, *resume, "--data-path", asked.data_path, *border, "--train-range", format_range(learned), "--test-range", format_range(judged), "--epochs", str(epochs),
                   "--test-freq", str(10 * len(learned)), "--seed", str(asked.seed), "--backend", asked.backend, "--save-path", str(folder), *rates])
        seconds += time.perf_counter() - start
        resume = ["--resume", str(folder)]
    with convnet.load(folder, asked.backend) as net:
        errors = [100 * float(error_of(found.probs, found.labels).mean())
                  for found in (predictions(net, provider, test, multiview) for multiview in ((False, True) if plan.crops else (False,)))]
    return Result(layers.name, plan.error, plan.seconds, errors[0], errors[1] if plan.crops else None, seconds, epochs, "shortened: no answer" if asked.shorten > 1 else "")


def tabulate(results: list[Result]) -> str:
    lines = ["| config | its name promises | error, centre | ten views | epochs | training | |", "|---|---|---|---|---|---|---|"]
    for each in results:
        promised = f"{each.promised:g}%" + (f" in {each.promised_seconds:g} s" if each.promised_seconds else "")
        views = "" if each.views is None else f"{each.views:.2f}%"
        lines.append(f"| {each.config} | {promised} | {each.centre:.2f}% | {views} | {each.epochs} | {each.seconds:.0f} s | {each.verdict} |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Trains cuda-convnet's old configs for CIFAR-10 as they are, and compares their errors with those that their names promise.")
    parser.add_argument("configs", nargs="+", metavar="PATH", help="folders of configs, or files layers-NAME.cfg")
    parser.add_argument("--data-path", metavar="DIR", help="CIFAR-10")
    parser.add_argument("--backend", default="auto", help="of convnet-train")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shorten", type=int, default=1, metavar="N", help="an N-th of the epochs, at least one a leg: to try the program, not the promise")
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    return parser


def main(argv: list[str] | None = None) -> int:
    asked = build_parser().parse_intermixed_args(argv)
    pairs = find_pairs(asked.configs)
    if asked.shorten < 1:
        raise CommandLineError(f"--shorten {asked.shorten}: expected 1 or more")
    if asked.data_path is None:
        raise MissingInput(FETCH)
    results = []
    for layers, params, name in pairs:
        plan = PLANS[name]
        legs = ", ".join(f"{leg.epochs} epochs at {leg.factor:g} times the rates" + (" with a batch held out" if leg.held_out else "") for leg in plan.legs)
        print(f"{layers.name}: {plan.error:g}% promised; {legs} ({plan.source})", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="convnet-") as folder:
            try:
                results.append(revive(layers, params, plan, asked, Path(folder)))
            except NotFinite as error:
                print(f"{layers}: {error}", file=sys.stderr)
                results.append(Result(layers.name, plan.error, plan.seconds, 100.0, None, 0.0, 0, "diverges"))
    print(tabulate(results))
    if asked.json:
        record = {"command": shlex.join(["python", "benchmarks/revival.py", *(argv or sys.argv[1:])]), "machine": machine(),
                  "results": [asdict(each) | {"verdict": each.verdict} for each in results]}
        write("--json", asked.json, (json.dumps(record, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    run_command("revival.py", main)

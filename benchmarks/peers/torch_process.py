"""PyTorch as a contestant: its processes, the ways to train that are tried, and the search for the fastest."""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

WARM_UP = 2  # steps: in the second, too, memory is new
TURNS, TURN_SECONDS = 3, 0.2  # of the search; a turn has at least one step
HOPELESS = 2  # a way whose warm-up takes that many times as long as the fastest is not timed any further
TOLERANCES = {"exact": 1e-4, "tf32": 1e-2, "bf16": 1e-1}  # of costs and scores, by precision, relative

# As one would write it: nn.LocalResponseNorm, torch.optim.SGD as it comes, the default layout, the system's allocator.
AS_WRITTEN = {"layout": "NCHW", "lrn": "module", "columns": "merged", "update": "default", "allocator": "default", "waiting": "spinning", "compile": False}
# What is tried: all of LAYOUTS and LRNS with these settings, then these changes to the best so far, one after the other.
TUNED = {**AS_WRITTEN, "update": "fused", "allocator": "tuned"}
LAYOUTS, LRNS = ("NHWC", "NCHW"), ("band", "shifts")
CHANGES = ({"waiting": "passive"}, {"lrn": "band by column"}, {"lrn": "module"}, {"columns": "apart"}, {"update": "foreach"}, {"allocator": "huge pages"})

# By default glibc gives the memory of large tensors back and takes it again, page by page, in every step.
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**36), "MALLOC_TOP_PAD_": str(2**28)}
ENVIRONMENTS = {"allocator": {"default": {}, "tuned": KEEPS_MEMORY, "huge pages": {**KEEPS_MEMORY, "THP_MEM_ALLOC_ENABLE": "1"}},
                "waiting": {"spinning": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}}


class Worker:
    """A process of PyTorch that runs a program beside this file, and answers in JSON, a line to a line. `answer`: what it said first.

    settings  what the program is told
    way       of these, what the process's environment is made of: choices of ENVIRONMENTS
    """

    def __init__(self, program: str, settings: dict, way: dict, folder: Path):
        self.name, environment = describe(way), {}
        path = folder / "settings.json"
        path.write_text(json.dumps(settings))
        for name, choices in ENVIRONMENTS.items():
            environment |= choices[way[name]]
        command = [sys.executable, str(Path(__file__).with_name(program)), str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.answer = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"PyTorch ({self.name}) has ended with exit code {self.process.wait()}; above is why")
        return json.loads(line)

    def ask(self, line: str) -> dict:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Torch(Worker):
    """A process that trains. `task`: what is the same for all, `way`: how this one does it (torch_train.py tells of both).

    seconds      of a step, by turn
    answer       what the process said first: see torch_train.py
    difference   largest one of its costs and scores from ours, relative
    """

    def __init__(self, task: dict, way: dict, folder: Path):
        self.way, self.seconds, self.difference = way, [], 0.0
        super().__init__("torch_train.py", {**task, **{name: value for name, value in way.items() if name not in ENVIRONMENTS}}, way, folder)

    def turn(self, steps: int) -> None:
        """So many training steps in a row."""
        self.seconds.append(self.ask(str(steps))["seconds"])

    def check(self, costs: dict[str, np.ndarray], acts: dict[str, np.ndarray]) -> None:
        """Ends the run where it does not compute what our net does: our costs of the first minibatch, and the acts that they judge."""
        differences = [abs(self.answer["costs"][name] / values[0] - 1) for name, values in costs.items()]
        for name, theirs in self.answer["scores"].items():
            ours = acts[name][..., 0].ravel()
            differences.append(abs(ours - theirs).max() / abs(ours).max())
        self.difference = float(max(differences))
        tolerance = TOLERANCES[self.way.get("precision", "exact")]
        if not self.difference < tolerance:
            sys.exit(f"PyTorch ({describe(self.way)}) computes something else: of the costs {self.answer['costs']} and the acts of {', '.join(acts)} "
                     f"the largest relative difference from ours is {self.difference:.1e}, expected less than {tolerance:g}")


def describe(way: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in way.items() if name != "compile") + ", torch.compile" * way.get("compile", False)


def fastest(open_torch: Callable[[dict], Torch], left_out: list[str], compiled: bool) -> tuple[dict, list[dict]]:
    """The fastest way, and the times of all that were tried, one process after the other; prints them as they come.

    left_out: names of settings that mean nothing here
    """
    tried: list[dict] = []

    def seconds(way: dict) -> float:
        torch = open_torch(way)
        torch.turn(WARM_UP)
        quickest = min((statistics.median(other["seconds"]) for other in tried), default=torch.seconds[0])
        if way["compile"] or torch.seconds[0] < HOPELESS * quickest:
            for _ in range(TURNS):
                torch.turn(1 + int(TURN_SECONDS / torch.seconds[0]))
            del torch.seconds[0]
        torch.close()
        tried.append({**way, "seconds": torch.seconds})
        taken = statistics.median(torch.seconds)
        print(f"{taken * 1e3:10.1f} ms  {describe(way)}", flush=True)
        return taken

    start = {name: AS_WRITTEN[name] if name in left_out else value for name, value in TUNED.items()}
    ways = [{**start, "layout": layout, "lrn": lrn} for layout in LAYOUTS for lrn in (("module",) if "lrn" in left_out else LRNS)]
    times = [seconds(way) for way in ways]
    least, best = min(zip(times, ways, strict=True), key=lambda pair: pair[0])
    for change in (*CHANGES, *([{"compile": True}] if compiled else [])):
        if not any(name in left_out for name in change):
            taken = seconds(best | change)
            least, best = (taken, best | change) if taken < least else (least, best)
    return best, tried

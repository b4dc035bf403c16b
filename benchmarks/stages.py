"""A long job in stages: each a command with a time limit, recorded as it ends, and not run again once it has finished.

report.json holds the machine, and of each stage: state, command, exit code, seconds, limit, when it began, its last line,
and the GPU before and after (clocks, temperature, power). What a stage prints goes to NAME.txt beside it.
"""
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from environment import ROOT, gpu, machine

UNFINISHED = 3  # exit status: not all stages are finished
PATIENCE = 10  # seconds from asking a stage to end until it is made to
FINISHED = ("passed", "failed")  # what is known, and not run again; "out of time" and "interrupted" are
SOURCES = ("src", "bindings", "build_backend", "convnet", "tests", "benchmarks", "CMakeLists.txt", "pyproject.toml", "go")


@dataclass(frozen=True)
class Stage:
    """`limit` in seconds. always: also where it has passed, since the machine may be another, without what it built.
    after: the stage that must have passed.
    """

    name: str
    command: list[str]
    limit: float
    always: bool = False
    after: str = ""


def portable(command: list[str]) -> list[str]:
    """As anyone would type it: without the place of this Python."""
    return ["python" if word == sys.executable else word for word in command]


def source_hash(root: Path = ROOT) -> str:
    """Of all that decides what a stage finds: a stage is finished for this and nothing else."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = root / name
        paths = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for path in paths:
            relative = path.relative_to(root)
            if "__pycache__" not in relative.parts and relative.parts[:2] != ("benchmarks", "results"):
                digest.update(f"{relative}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Report:
    """The folder of a device's results, and what is known of the stages for these sources, in NAME.json."""

    def __init__(self, folder: Path, source: str, backend: str = "cuda", name: str = "report"):
        self.folder, self.path, self.source, self.backend = folder, folder / f"{name}.json", source, backend
        self.stages = self.stored()
        self.machine: dict = {}

    def stored(self) -> dict[str, dict]:
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return content["stages"] if content.get("source") == self.source else {}

    def state(self, stage: Stage) -> str:
        """ "" : never begun. One that never ended was interrupted, with all that ran it."""
        state = self.stages.get(stage.name, {}).get("state", "")
        return "interrupted" if state == "running" else state

    def is_finished(self, stage: Stage) -> bool:
        return self.state(stage) in FINISHED and self.stages[stage.name]["command"] == portable(stage.command)

    def store(self, name: str) -> None:
        """What is known of a stage: whole or not at all, as a call may be cut off at any time, and beside what other calls know of theirs."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self.stages = {**self.stages, **self.stored(), name: self.stages[name]}
            content = {"machine": self.machine, "backend": self.backend, "source": self.source, "stages": self.stages}
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(content, indent=1) + "\n")
            new.replace(self.path)
        finally:
            os.close(folder)

    def run(self, stages: Iterable[Stage], again: bool = False, budget: float = float("inf")) -> bool:
        """Runs what is not finished; whether all is. Begins no stage whose limit is beyond the budget, in seconds."""
        end = time.monotonic() + budget
        self.folder.mkdir(parents=True, exist_ok=True)
        self.machine = machine()
        for stage in stages:
            if self.is_finished(stage) and not again and not stage.always:
                print(f"{stage.name}: {self.state(stage)} before", flush=True)
            elif stage.after and self.stages.get(stage.after, {}).get("state") != "passed":
                print(f"{stage.name}: not run, {stage.after} has not passed", flush=True)
            elif time.monotonic() + stage.limit > end:
                print(f"{stage.name}: not begun, {max(0, end - time.monotonic()):.0f} s are left of the budget and its limit is {stage.limit:.0f} s", flush=True)
                return False
            else:
                self.run_stage(stage)
        return all(self.is_finished(stage) for stage in stages)

    def run_stage(self, stage: Stage) -> None:
        record = {"state": "running", "command": portable(stage.command), "limit": stage.limit, "began": time.strftime("%Y-%m-%d %H:%M:%S"), "last_line": "", "gpu_before": gpu()}
        self.stages[stage.name] = record
        self.store(stage.name)
        start, output = time.monotonic(), self.folder / f"{stage.name}.txt"
        try:
            record["exit"] = run_limited(stage.command, stage.limit, output)
            record["state"] = {0: "passed", None: "out of time"}.get(record["exit"], "failed")
        except BaseException:
            record["state"] = "interrupted"
            raise
        finally:
            lines = output.read_text(errors="replace").split("\n") if output.exists() else []
            record["last_line"] = next((line.strip() for line in reversed(lines) if line.strip()), "")[:200]
            record |= {"seconds": round(time.monotonic() - start, 1), "gpu_after": gpu()}
            self.stages[stage.name] = record
            self.store(stage.name)
            print(f"{stage.name}: {record['state']} after {record['seconds']} s: {record['last_line']}", flush=True)


def run_and_tell(report: Report, chosen: list[Stage], again: bool, budget: float, hint: str) -> int:
    """Runs stages and says what came of them, and `hint`; the exit status of the command."""
    finished = report.run(chosen, again, budget)
    failed = [stage.name for stage in chosen if report.state(stage) not in ("passed", "")]
    print(f"{len(chosen)} stages, {len([s for s in chosen if report.state(s) == 'passed'])} passed" + (f", not so {', '.join(failed)}" if failed else ""))
    print(hint)
    return (1 if failed else 0) if finished else UNFINISHED


def print_list(report: Report, planned: list[Stage]) -> None:
    for stage in planned:
        record = report.stages.get(stage.name, {})
        seconds = f"{record['seconds']:.0f} s" if "seconds" in record else ""
        print(f"{stage.name:24} {report.state(stage) or 'not begun':12} {seconds:>6} of {stage.limit:.0f} s  {record.get('last_line', '')}")


def run_limited(command: list[str], limit: float, output: Path) -> int | None:
    """Exit code; None: it took longer than so many seconds, and was ended with all that it had started."""
    with open(output, "w") as file:
        try:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            file.write(f"{command[0]}: {error.strerror}\n")
            return 127
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                end(process)


def end(process: subprocess.Popen) -> None:
    """The process and its descendants, which are a group of their own: those that do not end when asked are killed."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

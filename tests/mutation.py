"""Mutants of the shipped kernels: does a test fail for each of them?

    ./go python tests/mutation.py                          all: half an hour of two cores, the second time minutes
    ./go python tests/mutation.py pool.cuh pool.h          those of some files
    ./go python tests/mutation.py --kinds barrier          those of some kinds
    ./go python tests/mutation.py --sample 20              every twentieth

The kernels are compiled once, with all mutants in them (tests/mutants/instrument.py says which there are); backend simt
runs that build. First every test runs with no mutant and notes what it reaches. Then children of this process switch on
one mutant after the other and run the tests that reach it until one fails. A crash counts as a failure, and so does a
test that takes many times as long as it should. A mutant without a barrier gets more orders of the threads.

Prints a table, the survivors and why they are let be (tests/mutants/equivalent.txt). Exit status 1: a survivor without
a reason, a reason without a survivor, a barrier that is not missed, or fewer than 95% found. Verdicts are kept in .venv/simt for as
long as kernels and tests stay what they are; after that the test that found a mutant is tried first.
"""
from __future__ import annotations

import argparse
import collections
import ctypes
import gc
import hashlib
import importlib
import json
import mmap
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from _pytest.runner import runtestprotocol

from convnet.backends import Device
from mutants.build import FLAGS, SOURCES, build, kernel_files
from mutants.instrument import Mutant
from simt_build import BUILDS

HERE = Path(__file__).resolve().parent
# The tests that run kernels on simt. Those of test_ops.py find nearly all; the others are of layers and of errors.
TESTS = ["test_ops.py", "test_backends.py", "test_bfloat16.py", "test_constraints.py", "test_costs.py", "test_fc.py", "test_fused.py", "test_join.py", "test_layers_image.py",
         "test_layers_norm.py", "test_local.py", "test_neurons.py", "test_pool.py", "test_refusals.py", "test_tensor_cores.py", "test_tiles.py", "test_tree.py", "test_workspaces.py"]
# What all tests are made of.
SHARED = [*(HERE / name for name in ("test_ops.py", "ops/__init__.py", "guarded.py", "conftest.py")), *sorted(HERE.glob("*_net*.py"))]
MODULES = {case.id: path.stem for path in sorted((HERE / "ops").glob("[a-z]*.py")) for case in importlib.import_module(f"ops.{path.stem}").CASES}
WATCHED = 255
# Of the threads, as SIMT_ORDER has them: forward; what survives that, reverse; and for barriers two random ones.
ORDERS = ("0", "1", "7", "1234567")
LONGEST = 2  # seconds of the processor: tests that take longer are of whole layers
MOST_SECONDS = 5  # of tests for a mutant, the quickest first: some code is reached by all tests
WANTED = 0.95
BATCH = 25  # mutants for one child, as forking takes longer than most tests
SURVIVED = -1  # what a child writes down of a mutant that no test found
STALLED = 300  # seconds without a new test: a child that waits for ever uses no time of a processor


class Verdicts:
    """What earlier runs found. It holds for as long as the kernels and the tests that it came from are what they were."""

    def __init__(self, path: Path, kernels: str):
        self.path, self.kernels = path, kernels
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.reach: dict[str, list] = kept.get("reach", {}) if kept.get("kernels") == kernels else {}  # test -> its key, seconds, sites
        self.verdicts: dict[str, list] = kept.get("verdicts", {})  # mutant -> verdict, its key, the test that found it

    def key(self, tests: list[str]) -> str:
        """Stands for the kernels and what these tests are."""
        return digest(self.kernels, *sorted({self.reach[test][0] for test in tests}))

    def of(self, mutant: str, reaching: list[str]) -> str | None:
        verdict, key, test = self.verdicts.get(mutant, (None, "", ""))
        tests = [test] if test else reaching
        return verdict if all(test in self.reach for test in tests) and key == self.key(tests) else None

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"kernels": self.kernels, "reach": self.reach, "verdicts": self.verdicts}))
        new.replace(self.path)


def digest(*parts: str | Path) -> str:
    """Of texts and of files."""
    hash_ = hashlib.sha256()
    for part in parts:
        hash_.update((part.read_bytes() if isinstance(part, Path) else part.encode()) + b"\0")
    return hash_.hexdigest()[:16]


def by_key(mutants: list[Mutant]) -> dict[str, Mutant]:
    """By label, and a number: a file may have the same line twice."""
    seen: collections.Counter[str] = collections.Counter()
    keyed = {}
    for mutant in mutants:
        seen[mutant.label] += 1
        keyed[f"{mutant.label} #{seen[mutant.label]}"] = mutant
    return keyed


def file_of(item) -> Path:
    """Where a test is written: a case of an op in its op's file."""
    case = getattr(item, "callspec", None) and item.callspec.params.get("case")
    return HERE / "ops" / f"{MODULES[case.id]}.py" if item.path.name == "test_ops.py" else item.path


class KeptDevice:
    """In the place of the Device of the fixture: one for all tests of a child, as a new one makes 1024 stacks, which takes 0.1 s."""

    kept: Device | None = None

    def __init__(self, backend: str, threads: int):
        self.new = lambda: Device(backend, threads=threads)

    def __enter__(self) -> Device:
        KeptDevice.kept = KeptDevice.kept or self.new()
        return KeptDevice.kept

    def __exit__(self, *_) -> None:
        try:
            for ptr in list(KeptDevice.kept._buffers):
                KeptDevice.kept.free(ptr)
        except (RuntimeError, ValueError):  # of a mutant; it may have left anything behind
            KeptDevice.kept = None


class Run:
    """A pytest plugin that runs its own loop over the tests."""

    def __init__(self, module: Path, sites: int, mutants: dict[str, Mutant], verdicts: Verdicts, jobs: int):
        self.mutants, self.verdicts, self.jobs = mutants, verdicts, jobs
        library = ctypes.CDLL(str(module))
        self.states = (ctypes.c_uint8 * (sites + 1)).in_dll(library, "PyInit_mutation_states")
        self.variants = (ctypes.c_uint8 * (sites + 1)).in_dll(library, "PyInit_mutation_variants")
        # What each child writes down: which mutant it is at, which test, and of each mutant: 0, SURVIVED, or 1 + the test that found it.
        self.progress = np.frombuffer(mmap.mmap(-1, 8 * (2 + BATCH) * jobs), np.int64).reshape(jobs, 2 + BATCH)
        self.recent: dict[str, collections.deque[str]] = collections.defaultdict(lambda: collections.deque(maxlen=12))

    def pytest_configure(self, config):
        config.option.tbstyle = "native"  # nobody reads how a mutant failed, and to print it takes longer than the test

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if "simt" in item.nodeid]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        self.items = {item.nodeid: item for item in session.items}
        self.names = list(self.items)
        self.number = {name: at for at, name in enumerate(self.names)}
        gc.freeze()
        shared = digest(*SHARED)
        files = {name: file_of(item) for name, item in self.items.items()}
        keys = {file: digest(shared, file) for file in set(files.values())}
        self.note_reach({name: keys[file] for name, file in files.items()})
        self.reached_by = collections.defaultdict(list)
        possible = collections.defaultdict(int)
        for name in sorted(self.items, key=lambda name: self.verdicts.reach[name][1]):
            if self.verdicts.reach[name][1] > LONGEST:
                continue
            for site, variants in self.verdicts.reach[name][2]:
                self.reached_by[site].append(name)
                possible[site] |= variants
        # What turns out to be no number, or to know no +=, has no mutant.
        for key in [k for k, m in self.mutants.items() if m.site in self.reached_by and not possible[m.site] >> m.variant & 1]:
            del self.mutants[key]
        self.judge_all()
        return True

    # ---- children ----

    def limited(self, name: str, seconds: float) -> bool:
        """Runs a test in this child, for a limited time of the processor; whether it passed."""
        signal.setitimer(signal.ITIMER_PROF, 0.5 + 10 * seconds)
        reports = runtestprotocol(self.items[name], nextitem=None, log=False)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return not any(report.failed for report in reports)

    def fork(self, slot: int, body) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if "conftest" in sys.modules:
                sys.modules["conftest"].Device = KeptDevice
            os._exit(body(slot))
        finally:
            os._exit(99)

    def note_reach(self, keys: dict[str, str]) -> None:
        """Runs every test that is new with no mutant, and notes the sites that it meets."""
        reach = self.verdicts.reach = {name: entry for name, entry in self.verdicts.reach.items() if keys.get(name) == entry[0]}
        names = [name for name in self.items if name not in reach]
        files = [self.verdicts.path.with_name(f"mutants-reach-{slot}.json") for slot in range(self.jobs)]

        def body(slot: int) -> int:
            found, failed = {}, []
            for name in names[slot :: self.jobs]:
                ctypes.memset(self.states, WATCHED, len(self.states))
                ctypes.memset(self.variants, 0, len(self.variants))
                start = time.process_time()  # others on the machine must not decide which tests are quick
                if not self.limited(name, 60):
                    failed.append(name)
                seconds = round(time.process_time() - start, 4)
                states, variants = bytes(self.states), bytes(self.variants)
                found[name] = [keys[name], seconds, [(site, variants[site]) for site, state in enumerate(states) if site and state == 0]]
            files[slot].write_text(json.dumps({"found": found, "failed": failed}))
            return 0

        children = [self.fork(slot, body) for slot in range(self.jobs)]
        for pid, file in zip(children, files, strict=True):
            if os.waitpid(pid, 0)[1]:
                raise SystemExit("a child that ran the tests without a mutant died")
            result = json.loads(file.read_text())
            file.unlink()
            if result["failed"]:
                raise SystemExit("these tests fail without a mutant: " + ", ".join(result["failed"]))
            reach.update(result["found"])
        self.verdicts.save()

    def judge_all(self) -> None:
        self.judged: dict[str, str] = {}
        todo = []
        for key, mutant in self.mutants.items():
            reaching = self.reached_by.get(mutant.site, [])
            known = self.verdicts.of(key, reaching) if reaching else "unreached"
            if known:
                self.judged[key] = known
            else:
                todo.append((key, 0, False))
        # Barriers first; the others mixed, so that a run that is cut short has seen something of each file.
        self.todo = collections.deque(sorted(todo, key=lambda entry: (self.mutants[entry[0]].kind != "barrier", digest(entry[0]))))
        running, free, saved, told = {}, list(range(self.jobs)), time.monotonic(), 0
        while self.todo or running:
            while self.todo and free:
                batch, slot = self.next_batch(), free.pop()
                self.progress[slot] = 0
                running[self.fork(slot, self.judge(batch))] = batch, slot, [time.monotonic(), 0, 0]
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                self.end_stalled(running)
                time.sleep(0.01)
                continue
            batch, slot, _ = running.pop(pid)
            free.append(slot)
            self.take(batch, self.progress[slot], status)
            if len(self.judged) - told >= 100:
                told = len(self.judged)
                print(f"{told} of {len(self.mutants)} mutants", file=sys.stderr, flush=True)
            if time.monotonic() - saved > 20:
                self.verdicts.save()
                saved = time.monotonic()
        self.verdicts.save()

    def next_batch(self) -> list[tuple[str, int, bool]]:
        """Some of the mutants left, for the same order of the threads; one that has to be alone is."""
        batch = [self.todo.popleft()]
        while self.todo and len(batch) < BATCH and not batch[0][2] and self.todo[0][1:] == batch[0][1:]:
            batch.append(self.todo.popleft())
        return batch

    def take(self, batch: list[tuple[str, int, bool]], progress: np.ndarray, status: int) -> None:
        """Takes over what a child found out. Where it ended early the mutant it was at did that, if it was the first; else it gets a
        child of its own."""
        for at, (key, order, alone) in enumerate(batch):
            found = progress[2 + at]
            if found == SURVIVED:
                if order + 1 < (len(ORDERS) if self.mutants[key].kind == "barrier" else 2):
                    self.todo.append((key, order + 1, alone))
                else:
                    self.settle(key, "survived", "")
            elif found:
                self.settle(key, "failed", self.names[found - 1])
            elif at == progress[0] and os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGKILL):
                self.settle(key, "hung", self.names[progress[1]])
            elif at == progress[0] == 0:
                self.settle(key, "crashed", self.names[progress[1]])
            else:
                self.todo.appendleft((key, order, at == progress[0]))

    def settle(self, key: str, verdict: str, killer: str) -> None:
        self.judged[key] = verdict
        self.verdicts.verdicts[key] = [verdict, self.verdicts.key([killer] if killer else self.reached_by[self.mutants[key].site]), killer]
        if killer:
            self.note(key, killer)

    def note(self, key: str, killer: str) -> None:
        """What found one mutant of a file may find others."""
        recent = self.recent[self.mutants[key].file]
        if killer in recent:
            recent.remove(killer)
        recent.appendleft(killer)

    def tests_of(self, key: str) -> list[str]:
        """The tests that a mutant gets: of those that reach it the one that found it before, those that found others of its
        file, and the quickest."""
        reaching = self.reached_by[self.mutants[key].site]
        first = [self.verdicts.verdicts.get(key, ["", "", ""])[2], *self.recent[self.mutants[key].file]]
        known = set(reaching)
        names, seconds = [], 0.0
        for name in dict.fromkeys([*(name for name in first if name in known), *reaching]):
            seconds += self.verdicts.reach[name][1]
            if names and seconds > MOST_SECONDS:
                break
            names.append(name)
        return names

    def judge(self, batch: list[tuple[str, int, bool]]):
        """What a child does: one mutant after the other, for as long as the last one has left no trace."""

        def body(slot: int) -> int:
            os.environ["SIMT_ORDER"] = ORDERS[batch[0][1]]
            progress = self.progress[slot]
            for at, (key, _, _) in enumerate(batch):
                mutant = self.mutants[key]
                progress[0] = at
                self.states[mutant.site] = mutant.variant
                found = next((name for name in self.tests_of(key) if not self.passes(name, progress)), "")
                self.states[mutant.site] = 0
                if found and not self.passes(found, progress):
                    # It wrote where it should not, or an earlier one did, which nothing noticed: then it is not to blame.
                    progress[2 + at] = 0 if at else 1 + self.number[found]
                    return 1
                progress[2 + at] = 1 + self.number[found] if found else SURVIVED
                if found:
                    self.note(key, found)
            return 0

        return body

    def passes(self, name: str, progress: np.ndarray) -> bool:
        progress[1] = self.number[name]
        return self.limited(name, self.verdicts.reach[name][1])

    def end_stalled(self, running: dict) -> None:
        for pid, (_, slot, seen) in running.items():
            now = list(self.progress[slot, :2])
            if now != seen[1:]:
                seen[:] = time.monotonic(), *now
            elif time.monotonic() - seen[0] > STALLED:
                os.kill(pid, signal.SIGKILL)


def judge(module: Path, sites: int, mutants: dict[str, Mutant], tests: list[Path], verdicts: Verdicts, jobs: int) -> dict[str, str]:
    """Verdict of each mutant, some of a module with so many sites; takes out of `mutants` what the types say is none."""
    run = Run(module, sites, mutants, verdicts, jobs)
    options = ["-s", "-o", "addopts=", "--assert=plain", *(word for name in ("cacheprovider", "terminal", "faulthandler") for word in ("-p", f"no:{name}"))]
    status = pytest.main([*options, *map(str, tests)], plugins=[run])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {status!r}")
    return run.judged


# ---- the report ----


def read_reasons(path: Path) -> dict[str, str]:
    """Label of a mutant -> why it may survive. A reason is a paragraph; the mutants below it are indented."""
    reasons: dict[str, str] = {}
    reason, open_ = "", False
    for line in path.read_text().splitlines():
        if line.startswith("    "):
            reasons[line.strip()] = reason
            open_ = False
        elif line.strip() and not line.startswith("#"):
            reason = f"{reason} {line.strip()}" if open_ else line.strip()
            open_ = True
    return reasons


def table(mutants: dict[str, Mutant], verdicts: dict[str, str], by) -> list[str]:
    rows = collections.defaultdict(collections.Counter)
    for key, mutant in mutants.items():
        for row in (by(mutant), "all"):
            rows[row][verdicts[key]] += 1
            rows[row]["made"] += 1
    lines = [f"{'':22}{'made':>7}{'killed':>8}{'':>8}{'crashed':>9}{'hung':>6}{'survived':>10}{'unreached':>11}"]
    for name in sorted(rows, key=lambda name: (name == "all", name)):
        row = rows[name]
        killed = row["failed"] + row["crashed"] + row["hung"]
        lines.append(f"{name:22}{row['made']:7}{killed:8}{killed / row['made']:8.1%}{row['crashed']:9}{row['hung']:6}{row['survived']:10}{row['unreached']:11}")
    return lines


def report(mutants: dict[str, Mutant], verdicts: dict[str, str], reasons: dict[str, str], whole: bool) -> bool:
    """Prints the tables and the survivors; whether all is well."""
    print("\n".join(["", *table(mutants, verdicts, lambda mutant: mutant.kind), "", *table(mutants, verdicts, lambda mutant: mutant.file)]))
    left = {key: mutant for key, mutant in mutants.items() if verdicts[key] in ("survived", "unreached")}
    explained = collections.defaultdict(list)
    for key, mutant in left.items():
        explained[reasons.get(mutant.label, "")].append((mutant, verdicts[key]))
    for reason in sorted(explained, key=lambda reason: reason == ""):
        print(f"\n{reason or 'WITHOUT A REASON (a test is missing, or a line in tests/mutants/equivalent.txt):'}")
        for mutant, verdict in explained[reason]:
            print(f"    {mutant.file}: {mutant.text}    (line {mutant.line}, {mutant.kind}, {verdict})")
    stale = sorted(set(reasons) - {mutant.label for mutant in left.values()}) if whole else []
    if stale:
        print("\nReasons for mutants that do not survive, in tests/mutants/equivalent.txt:", *stale, sep="\n    ")
    barriers = [mutant for mutant in left.values() if mutant.kind == "barrier"]
    killed = 1 - len(left) / max(1, len(mutants))
    print(f"\n{len(mutants)} mutants, {killed:.2%} killed; {len(left)} are left, {len(explained[''])} without a reason; "
          f"barriers that nothing misses: {len(barriers)}")
    return not (barriers or stale or explained[""]) and (killed >= WANTED or not whole)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", help="kernel files, such as pool.cuh")
    parser.add_argument("--kinds", default="", help="barrier, bound, index, edge, swap, assignment: some of them, with commas")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="every N-th mutant")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="children at a time (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="judge anew what is known to survive")
    options = parser.parse_args()
    unknown = set(options.files) - {path.name for path in kernel_files()}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no kernel file; expected names such as pool.cuh")

    start = time.monotonic()
    module, found = build()
    os.environ["CONVNET_SIMT_MODULE"] = str(module)
    mutants = by_key(found)
    chosen = [key for key, mutant in mutants.items() if (not options.files or mutant.file in options.files)
              and (not options.kinds or mutant.kind in options.kinds.split(","))]
    mutants = {key: mutants[key] for key in chosen[:: options.sample]}
    kernels = digest(*sorted(path for path in SOURCES.iterdir() if path.is_file() and not path.is_symlink()), HERE / "mutants" / "schemata.h", FLAGS)
    verdicts = Verdicts(BUILDS / "mutants-verdicts.json", kernels)
    if options.again:
        verdicts.verdicts = {key: verdict for key, verdict in verdicts.verdicts.items() if verdict[0] != "survived"}
    judged = judge(module, max(mutant.site for mutant in found), mutants, [HERE / name for name in TESTS], verdicts, options.jobs)
    whole = not (options.files or options.kinds or options.sample > 1)
    good = report(mutants, judged, read_reasons(HERE / "mutants" / "equivalent.txt"), whole)
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

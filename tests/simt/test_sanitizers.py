"""The kernels under the sanitizers: the cases of tests/ops again, in builds that find what values do not show.

By default a choice of calls that still launches every instance of every kernel, each build in one order of threads. All
calls, in three orders: `./go pytest -m sanitizers`.
"""
from __future__ import annotations

import functools
import json
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sanitizers import REPORT, SANITIZERS, module, readable, run_python

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "src" / "kernels"
BUILDS = {"asan": ("asan", ""), "race-threads": ("race", "threads"), "race-blocks": ("race", "blocks")}
ORDERS = {"forward": "0", "reverse": "1", "random": "12345"}


@functools.cache
def build_modules() -> None:
    """Side by side: each is mostly one file."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(module, SANITIZERS))


def run(build: str, calls: list | str | None, order: str = "0") -> tuple[list[dict], str]:
    """What the calls did, None for all calls; and what the sanitizer said."""
    name, races = BUILDS.get(build, ("plain", ""))
    if name != "plain":
        build_modules()
    with tempfile.TemporaryDirectory() as folder:
        given, results = Path(folder, "calls.json"), Path(folder, "results.json")
        given.write_text(json.dumps(calls))
        output = run_python(name, str(HERE / "sanitized.py"), str(given), str(results), SIMT_ORDER=order, SIMT_RACES=races)
        assert output.returncode == 0, output.stderr[-5000:]
        said = readable(output.stderr, module(name)) if name != "plain" and REPORT.search(output.stderr) else output.stderr
        return json.loads(results.read_text()), said


@functools.cache
def all_calls() -> list[dict]:
    results, _ = run("plain", None)
    assert not [r for r in results if r["wrong"]]
    return results


def instances(result: dict) -> set[str]:
    return {line.partition("\t")[0] for line in result["kernels"]}


def choice() -> list:
    """The quickest call of each instance of a kernel, and nothing twice."""
    wanted, chosen = set().union(*map(instances, all_calls())), []
    for result in sorted(all_calls(), key=lambda r: r["seconds"] / (1 + len(instances(r)))):
        if new := instances(result) & wanted:
            wanted -= new
            chosen.append(result["call"])
    return chosen


def kernels_in_the_sources() -> set[str]:
    """Names of all __global__ functions that an op's file has."""
    text = "\n".join(path.read_text() for path in sorted(KERNELS.glob("*.cuh")))
    names = re.findall(r"__global__ void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s+)?(\w+)\(", text)
    assert len(names) == text.count("__global__")
    return set(names)


def check(build: str, order: str, calls: list | None) -> None:
    start = time.perf_counter()
    results, said = run(build, calls, ORDERS[order])
    reports = [part for part in re.split(r"^==== ", said, flags=re.M) if REPORT.search(part)]
    assert not reports, f"{len(reports)} calls with reports; the first:\n==== {reports[0][:6000]}"
    assert not [r for r in results if r["wrong"]]
    launched = set().union(*(r["kernels"] for r in results))
    assert {line.split("<")[0].partition("\t")[0] for line in launched} == kernels_in_the_sources()
    print(f"{build}, {order}: {len(results)} calls, {len({line.partition(chr(9))[0] for line in launched})} instances of "
          f"{len(kernels_in_the_sources())} kernels, {len(launched)} with grids, no report, {time.perf_counter() - start:.0f} s")


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_the_order_of_threads_and_blocks_changes_no_bit(order):
    results, _ = run("plain", None, ORDERS[order])
    assert [r["call"] for r, forward in zip(results, all_calls(), strict=True) if r["bits"] != forward["bits"]] == []


@pytest.mark.parametrize(("build", "control"), [("asan", "too long"), ("race-threads", "overlapping"), ("race-blocks", "overlapping")])
def test_a_wrong_call_of_a_sound_kernel_is_reported(build, control):
    _, said = run(build, control)
    assert REPORT.search(said) and re.search(r"#0 .* src/kernels/.*runs\.cuh:\d+.*\n *#1 .*scaled_copy_kernel.* src/kernels/.*copy\.cuh:\d+", said), said[-3000:]


@pytest.mark.parametrize(("build", "order"), [("asan", "reverse"), ("race-threads", "random"), ("race-blocks", "forward")])
def test_every_kernel_under_a_sanitizer(build, order):
    check(build, order, choice())


@pytest.mark.sanitizers
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("build", BUILDS)
def test_every_case_under_a_sanitizer(build, order):
    check(build, order, None)

"""Runs calls of ops on backend simt: the program that sanitizers watch, and that tells which kernels a call launches.

    python tests/simt/sanitized.py CALLS RESULTS

CALLS: JSON, [[case, dtype, tight], ...], null for all there are, or the name of a control: a wrong call of a sound kernel. RESULTS: JSON, for each call the kernels launched with
their grids, seconds, what went wrong, "" if nothing, and a hash of each output. On stderr, between the sanitizer's reports, "==== " and the call.
"""
from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
LAUNCHES = os.environ["SIMT_LAUNCHES"] = tempfile.mkstemp()[1]  # before the module reads it

import numpy as np

import guarded
from convnet.arrays import Stream
from convnet.backends import Device, Tensor, load_module
from test_ops import CASES, check


def all_calls() -> list[tuple[str, str, bool]]:
    calls = [(case.id, dtype, tight) for case in CASES for dtype, tight in (("float32", False), ("float64", False), ("float32", True))]
    return calls + [(case.id, "bfloat16", tight) for case in CASES if guarded.is_narrow(case) for tight in (False, True)]


def copy(source: np.ndarray, target: np.ndarray, rows: int) -> None:
    tensors = [Tensor(array.ctypes.data, (rows, 32), pitch=32) for array in (source, target)]
    load_module("simt").scaled_copy(Stream(0, 0), *tensors, factor=1.0)


def too_long() -> None:
    """A tensor of one row more than its array has."""
    copy(np.ones((20, 32), np.float32), np.ones((19, 32), np.float32), 20)


def overlapping() -> None:
    """Each row is read and becomes the next one: who comes first?"""
    rows = np.ones((201, 32), np.float32)
    copy(rows, rows[1:], 200)


def main(calls_path: str, results_path: str) -> None:
    load_module("simt")  # before the first report, which fixes where the sanitizer looks for lines
    cases = {case.id: case for case in CASES}
    calls = json.loads(Path(calls_path).read_text()) or all_calls()
    if isinstance(calls, str):
        {"too long": too_long, "overlapping": overlapping}[calls]()
        calls = []
    guarded.GUARD = 0  # an allocation ends where its tensor ends
    results = []
    with Device("simt", threads=1) as device, open(LAUNCHES) as log:
        for case_id, dtype, tight in calls:
            print(f"==== {case_id} {dtype}{' tight' * tight}", file=sys.stderr, flush=True)
            start, wrong, bits = time.perf_counter(), "", 0
            try:
                outputs = guarded.call(device, cases[case_id], dtype, tight=tight)
                bits = [zlib.crc32(output.tobytes()) for output in outputs]
                if dtype != "bfloat16":  # whose values test_bfloat16.py knows
                    check(cases[case_id], dtype, outputs)
            except (AssertionError, RuntimeError) as error:
                wrong = str(error)
            seconds = time.perf_counter() - start
            while device._buffers:
                device.free(device._buffers[-1])
            kernels = sorted({line.rstrip("\n") for line in log})
            results.append({"call": [case_id, dtype, tight], "kernels": kernels, "seconds": seconds, "wrong": wrong, "bits": bits})
    Path(results_path).write_text(json.dumps(results))
    os.unlink(LAUNCHES)


if __name__ == "__main__":
    main(*sys.argv[1:])

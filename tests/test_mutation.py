"""The tool that mutates the kernels: what it makes of a source, and what it says of mutants that are known."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from mutants.build import FLAGS, KERNELS, write_sources
from mutants.instrument import instrument
from mutation import HERE, by_key, read_reasons, report

SOURCE = """\
#include "device.cuh"
constexpr int lanes = 32;
template <class T, int size>
__global__ void sum_kernel(Rows<const T> inputs, Rows<T> sums, int stride, int padding) {
  SMEM(T, parts, [lanes][32]);
  T values[size], total = 0;
  for (int row = threadIdx.y; row < inputs.rows; row += lanes) total += inputs.row(row)[0];
  parts[threadIdx.y][0] = total;
  __syncthreads();
  if constexpr (size > 1) values[1] = T(min(stride, 3));
#ifdef __CUDA_ARCH__
  total += 1;
#endif
}
consteval bool is_even(int size) { return size % 2 == 0; }
namespace checks {
void sum(int size) { CHECK(size > 0); }
}
struct Sum {
  Sum() = default;
};
"""


def texts(kind):
    return {mutant.text for mutant in instrument("sum.cuh", SOURCE)[1] if mutant.kind == kind}


def test_each_kind_of_mutant_is_made_where_it_can_be():
    loop = "for (int row = {}; row < {}; row += {}) {} inputs.row({})[{}];"
    assert texts("barrier") == {"«__syncthreads() dropped»;"}
    assert texts("bound") == {
        *(loop.format(*parts) for sign in ("+1", "-1") for parts in (
            (f"«threadIdx.y {sign}»", "inputs.rows", "lanes", "total +=", "row", "0"),
            ("threadIdx.y", f"«inputs.rows {sign}»", "lanes", "total +=", "row", "0"),
            ("threadIdx.y", "inputs.rows", f"«lanes {sign}»", "total +=", "row", "0"))),
        *(f"if constexpr (size > 1) values[1] = T(min({arguments}));" for arguments in ("«stride +1», 3", "«stride -1», 3", "stride, «3 +1»", "stride, «3 -1»")),
    }
    assert texts("swap") == {"if constexpr (size > 1) values[1] = T(min(«stride -> padding», 3));"}
    assert texts("assignment") == {
        loop.format("threadIdx.y", "inputs.rows", "lanes", "«total =» +=", "row", "0"),
        "«parts[threadIdx.y][0] +=» = total;",
        "if constexpr (size > 1) «values[1] +=» = T(min(stride, 3));",
    }
    assert loop.format("threadIdx.y", "inputs.rows", "lanes", "total +=", "«row -1»", "0") in texts("index")
    assert "parts[«threadIdx.y +1»][0] = total;" in texts("index")


def test_what_is_no_running_code_of_a_kernel_stays():
    mutated = {mutant.line for mutant in instrument("sum.cuh", SOURCE)[1]}
    assert mutated == {7, 8, 9, 10}


def test_the_instrumented_source_says_the_same_when_its_switches_are_taken_out():
    code, mutants = instrument("copy.cuh", "void f(int* x, int n) {\n  for (int i = 0; i < n; ++i) x[i] = 2;\n}\n", 7)
    assert code == ("void f(int* x, int n) {\n  for (int i = ::mutation::shifted(7, 0); i < ::mutation::shifted(8, n); ++i) "
                    "::mutation::target(9, x[::mutation::shifted(10, i)]) = 2;\n}\n")
    assert [(mutant.site, mutant.variant) for mutant in mutants] == [(7, 1), (7, 2), (8, 1), (8, 2), (9, 1), (10, 1), (10, 2)]


@pytest.mark.parametrize(("verdicts", "reasons", "good"), [
    (["failed", "crashed", "hung"], [], True),
    (["failed", "survived", "failed"], [], False),  # without a reason
    (["failed", "survived", "failed"], [1], False),  # explained, but too many
    (["failed", "failed", "failed"], [1], False),  # explained, and found
    (["unreached", "failed", "failed"], [], False),
])
def test_survivors_need_reasons_and_reasons_survivors(tmp_path, capsys, verdicts, reasons, good):
    _, made = instrument("copy.cuh", "void f(int* x, int n) {\n  for (int i = 0; i < n; ++i) x[i] = 2;\n}\n")
    mutants = {mutant.label: mutant for mutant in made[:3]}
    file = tmp_path / "equivalent.txt"
    file.write_text("# what may survive\n\nFor a\nreason.\n" + "".join(f"    {made[i].label}\n" for i in reasons))
    read = read_reasons(file)
    assert read == {made[i].label: "For a reason." for i in reasons}
    assert report(mutants, dict(zip(mutants, verdicts, strict=True)), read, whole=True) is good
    assert f"{made[0].file}" in capsys.readouterr().out


PROBE = """\
#include "pool.h"
extern "C" int window_begin(int start, int stride, int o) { return convnet::Windows{3, stride, start, 10, 4}.begin(o); }
"""
TESTS = """\
import ctypes, os
library = ctypes.CDLL(os.environ["PROBE"])
def test_a_window_begins_where_it_should_simt(): assert [library.window_begin(-1, 2, o) for o in range(4)] == [0, 1, 3, 5]
def test_a_window_may_begin_at_one_simt(): assert library.window_begin(1, 2, 0) == 1
"""
PROGRAM = """\
import json, os, sys
from pathlib import Path
from mutation import Verdicts, by_key, judge
from mutants.build import write_sources, KERNELS
folder = Path(sys.argv[1])
mutants = by_key(write_sources(folder / "kernels", {"pool.h": (KERNELS / "pool.h").read_text(), "probe.cu": (folder / "probe.cu").read_text()}))
verdicts = Verdicts(folder / "verdicts.json", "kernels")
judged = judge(Path(os.environ["PROBE"]), max(mutant.site for mutant in mutants.values()), mutants, [folder / "test_probe.py"], verdicts, 2)
print(json.dumps([judged, {key: kept[2] for key, kept in verdicts.verdicts.items()}]))
"""


def test_mutants_of_a_shipped_formula_are_judged_by_the_tests_that_reach_it(tmp_path):
    (tmp_path / "probe.cu").write_text(PROBE)
    (tmp_path / "test_probe.py").write_text(TESTS)
    sources = {"pool.h": (KERNELS / "pool.h").read_text(), "probe.cu": PROBE}
    mutants = by_key(write_sources(tmp_path / "kernels", sources))
    module = tmp_path / "probe.so"
    compiler = shutil.which("c++") or shutil.which("g++")
    subprocess.run([compiler, "-std=c++20", "-shared", "-fPIC", *FLAGS.split(), "-x", "c++", "-I", tmp_path / "kernels", tmp_path / "kernels" / "probe.cu",
                    KERNELS / "shapes.cpp", "-o", module], check=True)
    environment = {"PROBE": str(module), "PYTHONPATH": str(HERE), "PATH": ""}
    result = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    judged, found_by = json.loads(result.stdout.splitlines()[-1])

    def verdict(text):
        (key,) = [key for key, mutant in mutants.items() if mutant.text == text]
        return judged[key], bool(found_by.get(key))

    assert verdict("const int first = «start -> stride» + o * stride;") == ("failed", True)
    assert verdict("return first > «0 +1» ? first : 0;") == ("failed", True)
    assert verdict("return first > «0 -1» ? first : 0;") == ("survived", False)  # the same for every window
    assert verdict("return last < «pixels +1» ? last : pixels;") == ("unreached", False)

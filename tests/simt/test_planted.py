"""The checkers are checked: every bug planted in planted.cu is reported with its line by the build that is to find it,
and nothing is said of the sound kernels."""
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sanitizers
from sanitizers import REPORT, SANITIZERS, Sanitizer

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "src" / "kernels"
SOURCE = (HERE / "planted.cu").read_text()
NAMES = re.findall(r'(?:KERNEL\(|^    {")(\w+)', SOURCE.partition("kernels = {")[2], re.M)
PLAIN = Sanitizer("-O1 -g", "", "", (), ())

# What finds which: the build, what SIMT_RACES says, the kernels by the first word of their names.
FINDERS = {
    "threads": ("race", "shared global misuse sound"),
    "blocks": ("race", "blocks misuse sound"),
    "asan": ("asan", "bounds index_product misuse sound"),
    "plain": ("plain", "index_cut misuse sound"),
}


def bug_lines(name: str) -> set[int]:
    """Lines of the source that a report of this kernel must name."""
    inside, lines = False, set()
    for number, line in enumerate(SOURCE.splitlines(), 1):
        inside = (inside and line != "}") or f" {name}(" in line
        mark = line.partition("// BUG")[2]
        if "// BUG" in line and (name in mark.split() if mark else inside):
            lines.add(number)
    return lines


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What each finder said of each of its kernels."""
    folder = tmp_path_factory.mktemp("planted")
    ccache = [shutil.which("ccache")] if shutil.which("ccache") else []

    def build(name: str) -> Path:
        sanitizer, objects = SANITIZERS.get(name, PLAIN), []
        sanitizers.require(sanitizer)
        for source in [*sorted((KERNELS / "simt").glob("*.cpp")), HERE / "planted.cu"]:
            flags = sanitizer.kernel_flags if source.suffix == ".cu" else sanitizer.runtime_flags
            objects.append(folder / f"{name}_{source.stem}.o")
            command = [*ccache, *sanitizers.compiler(), "-std=c++20", *sanitizer.flags.split(), *flags.split(), f"-I{KERNELS}", "-Wno-unknown-pragmas"]
            subprocess.run([*command, "-x", "c++", "-c", source, "-o", objects[-1]], check=True)
        link = re.findall(r"-fsanitize=\S+", f"{sanitizer.flags} {sanitizer.kernel_flags}")
        subprocess.run([*sanitizers.compiler(), *link, *objects, "-o", folder / name, "-pthread"], check=True)
        return folder / name

    programs = {name: build(name) for name in ("plain", "race", "asan")}
    found = {}
    for finder, (name, words) in FINDERS.items():
        names = [n for n in NAMES if n.startswith(tuple(words.split()))]
        environment = SANITIZERS.get(name, PLAIN).environment(SIMT_RACES=finder if name == "race" else "")
        output = subprocess.run([programs[name], *names], env=environment, capture_output=True, text=True)
        assert output.returncode == 0, output.stderr[-3000:]
        parts = re.split(r"^==== (\w+)\n", output.stderr, flags=re.M)
        found |= {(finder, name): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def pairs(*first_words: str):
    return [(finder, name) for finder, (_, words) in FINDERS.items() for name in NAMES
            if name.startswith(tuple(words.split())) and name.startswith(first_words)]


def test_every_planted_bug_has_a_finder():
    assert {name for finder, name in pairs("")} == set(NAMES) and len(set(NAMES)) == len(NAMES) > 30


@pytest.mark.parametrize(("finder", "name"), pairs("shared", "global", "blocks", "bounds", "index_product"))
def test_a_planted_bug_is_reported_with_its_lines(reports, finder, name):
    report = reports[finder, name]
    assert bug_lines(name) and REPORT.search(report), report
    assert bug_lines(name) <= {int(n) for n in re.findall(r"planted\.cu:(\d+)", report)}, report
    assert "threw" not in report


@pytest.mark.parametrize(("finder", "name"), pairs("misuse"))
def test_misuse_of_barriers_is_an_exception_that_names_kernel_block_thread_and_lines(reports, finder, name):
    report = reports[finder, name]
    assert re.match(rf"threw {name}: block \(\d,0,0\), thread \(\d+,0,0\): ", report), report
    assert bug_lines(name) == {int(n) for n in re.findall(r"planted\.cu:(\d+)", report)}
    assert report.count("\n") == 1 and not REPORT.search(report)


def test_an_index_of_32_bits_gives_wrong_values_where_rows_are_far_apart(reports):
    assert reports["plain", "index_cut_to_32_bits"] == "threw row 8 is wrong\n"


@pytest.mark.parametrize(("finder", "name"), pairs("sound"))
def test_nothing_is_said_of_a_sound_kernel(reports, finder, name):
    assert reports[finder, name] == ""

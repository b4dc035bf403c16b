"""The builds that sanitizers watch, and programs run under them.

asan  AddressSanitizer and UndefinedBehaviorSanitizer: out of bounds, freed memory, overflow, misalignment
race  ThreadSanitizer, for which each thread of a block is a thread of its own (SIMT_RACES=threads), or each block
      (SIMT_RACES=blocks)
"""
from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program
from simt_build import ROOT, build_simt


@dataclass(frozen=True)
class Sanitizer:
    """flags: of all that is compiled; kernel_flags, runtime_flags: more of them; libraries: to be loaded first."""

    flags: str
    kernel_flags: str
    runtime_flags: str
    libraries: tuple[str, ...]
    options: tuple[tuple[str, str], ...]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, **dict(self.options), **more}


COMMON = "-O1 -g1 -ffp-contract=off -fno-omit-frame-pointer"
SANITIZERS = {
    "asan": Sanitizer(
        f"{COMMON} -fsanitize=address,undefined -fsanitize-recover=all", "", "", ("asan", "ubsan"),
        # a report does not end the process; Python itself leaks
        (("ASAN_OPTIONS", "halt_on_error=0:detect_leaks=0"), ("UBSAN_OPTIONS", "print_stacktrace=1"))),
    "race": Sanitizer(
        COMMON, "-fsanitize=thread -Wno-tsan", "-O2 -DSIMT_RACE", ("tsan",),
        # a race is shown where an earlier one was at the same address: memory is used again by another kernel
        # and OpenBLAS has threads that it knows nothing of
        (("TSAN_OPTIONS", "exitcode=0:suppress_equal_addresses=0"), ("OPENBLAS_NUM_THREADS", "1"))),
}  # fmt: skip
REPORT = re.compile(r"ERROR: AddressSanitizer|runtime error: |WARNING: ThreadSanitizer|FATAL: ThreadSanitizer|AddressSanitizer:DEADLYSIGNAL|ThreadSanitizer:DEADLYSIGNAL")


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "g++"))


@functools.cache
def library(name: str) -> str:
    """Path of a sanitizer's runtime; "" where the compiler has none."""
    command = [*compiler(), f"-print-file-name=lib{name}.so"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) else ""


def require(sanitizer: Sanitizer) -> None:
    if missing := [f"lib{name}.so" for name in sanitizer.libraries if not library(name)]:
        pytest.skip(f"{' '.join(compiler())} has no {', '.join(missing)}: g++ has, by itself or as a package of its distribution")


def module(name: str) -> Path:
    """The module _simt with this sanitizer."""
    sanitizer = SANITIZERS[name]
    require(sanitizer)
    link = next((flag for flag in f"{sanitizer.flags} {sanitizer.kernel_flags}".split() if flag.startswith("-fsanitize=")), "")
    return build_simt(name, f"{sanitizer.flags} {sanitizer.kernel_flags}", link_flags=link,
                      runtime_flags=f"{sanitizer.runtime_flags} {'-fno-sanitize=thread' if name == 'race' else ''}")


def run_python(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Python with backend simt under a sanitizer; `plain`: under none."""
    if name == "plain":
        return subprocess.run([sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True)
    sanitizer = SANITIZERS[name]
    # libstdc++ too, or the sanitizer finds no __cxa_throw to intercept
    preload = ":".join(library(lib) for lib in (*sanitizer.libraries, "stdc++"))
    env = sanitizer.environment(CONVNET_SIMT_MODULE=str(module(name)), LD_PRELOAD=preload, **environment)
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)


def readable(said: str, module_path: Path) -> str:
    """A sanitizer's report with the source lines of the module's frames: what reads them for it fails in large modules."""
    frame = re.compile(rf"(?:<null> )?\([^()]*{re.escape(module_path.name)}\+(0x[0-9a-f]+)\)")
    offsets = sorted(set(frame.findall(said)))
    if not offsets:
        return said
    output = subprocess.run(["addr2line", "-Caie", module_path], input="\n".join(offsets), check=True, capture_output=True, text=True).stdout
    lines: dict[int, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("0x"):
            lines[here := int(line, 16)] = []
        else:
            lines[here].append(os.path.normpath(line.partition(" (")[0]).removeprefix(f"{ROOT}/"))
    return frame.sub(lambda match: ", inlined at ".join(lines[int(match[1], 16)]), said)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(module(name))

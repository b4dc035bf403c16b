"""What the benchmarks share: the environment that ./go makes, and the machine."""
from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"torch": "torch", "plot": "matplotlib"}  # what an extra brings


def run_through_go(*extras: str) -> None:
    """Runs this program again through ./go, if the library or an extra is not here; returns if all are."""
    missing = [name for name in ("convnet", *map(MODULES.get, extras)) if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if os.environ.get("CONVNET_THROUGH_GO"):
        sys.exit(f"./go has run, and there is still no {', '.join(missing)}")
    options = ["--with", ",".join(extras)] if extras else []
    command = [sys.executable, str(ROOT / "go"), *options, "python", os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    os.execve(sys.executable, command, dict(os.environ, CONVNET_THROUGH_GO="1"))


def cores() -> int:
    """How many this process may use: fewer than there are under `taskset` and in containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_quietly(*command: str) -> str:
    """What a command prints, or "" if there is no such command or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def gpu() -> dict | None:
    """Name, driver, memory and, as they are now, clocks, temperature and power of the first GPU; None: there is none."""
    fields = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw")
    line = run_quietly("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader").partition("\n")[0]
    values = [value.strip() for value in line.split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else None


def commit() -> str:
    """Of the checkout, and whether its files differ from it: results are no part of what is measured."""
    name = run_quietly("git", "rev-parse", "--short", "HEAD")
    changed = name and run_quietly("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    return f"{name}-dirty" if changed else name


def machine() -> dict:
    """What a stored result must tell of where and when it was measured."""
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = match.group(1) if match else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "commit": commit(), "date": time.strftime("%Y-%m-%d"),
            "load": os.getloadavg()[0], "gpu": gpu()}


def device_of(machine: dict, backend: str) -> str:
    """What a result of this backend was measured on: the GPU, or the CPU and its number of cores."""
    return machine["gpu"]["name"] if backend == "cuda" else f"{machine['cpu']}, {machine['cores']} cores"


def device_folder(device: str) -> str:
    """The name of its folder in results/."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")

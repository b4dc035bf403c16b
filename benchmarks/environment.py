"""What the benchmarks share: the environment that ./go makes, the machine, and how times vary."""
from __future__ import annotations

import importlib.util
import os
import platform
import re
import statistics
import subprocess
import sys
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


def machine() -> dict:
    """What a stored result must tell of where it was measured."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False)
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = match.group(1) if match else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "commit": commit.stdout.strip(), "load": os.getloadavg()[0]}


def spread(times: list[float]) -> float:
    """Half the distance of the quartiles, as a share of the median."""
    if len(times) < 4:
        return (max(times) - min(times)) / 2 / statistics.median(times)
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / middle

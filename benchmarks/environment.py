"""Where the benchmarks run: in the environment that ./go makes."""
from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

MODULES = {"torch": "torch", "plot": "matplotlib"}  # what an extra brings


def run_through_go(*extras: str) -> None:
    """Runs this program again through ./go, if the library or an extra is not here; returns if all are."""
    missing = [name for name in ("convnet", *map(MODULES.get, extras)) if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if os.environ.get("CONVNET_THROUGH_GO"):
        sys.exit(f"./go has run, and there is still no {', '.join(missing)}")
    options = ["--with", ",".join(extras)] if extras else []
    go = Path(__file__).resolve().parents[1] / "go"
    command = [sys.executable, str(go), *options, "python", os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    os.execve(sys.executable, command, dict(os.environ, CONVNET_THROUGH_GO="1"))

"""Builds of the simt backend with other flags or other kernel sources: what sanitizers, coverage and mutants run on.

    module = build_simt("asan", "-O1 -g -fsanitize=address")
    environment = {**os.environ, "CONVNET_SIMT_MODULE": str(module)}      # in this process `--backend simt` is that module

A build is kept in the environment's folder (`.venv/simt/NAME`) and brought up to date when asked for again.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[1]
BUILDS = Path(sys.prefix) / "simt"


def installed_bindings() -> Path | str:
    """The compiled bindings of the installation, half a minute's work; "" where there are none, or a source is younger."""
    compiled = Path(sys.prefix) / "build/CMakeFiles/bindings.dir/bindings/module.cpp.o"
    sources = [*(ROOT / "bindings").iterdir(), *(ROOT / "src/kernels").glob("*.h")]
    return compiled if compiled.exists() and all(source.stat().st_mtime < compiled.stat().st_mtime for source in sources) else ""


def build_simt(name: str, flags: str, kernels: Path | None = None, link_flags: str = "", runtime_flags: str = "") -> Path:
    """The module `_simt` whose CUDA sources, and the runtime under them, were compiled with these flags.

    kernels: a complete folder in the place of src/kernels, for the simt sources alone; link_flags: for the module;
    runtime_flags: more flags, for the runtime (src/kernels/simt/*.cpp) alone.
    Raises RuntimeError with the compiler's messages.
    """
    folder = BUILDS / name
    environment = {**os.environ, "CONVNET_CUDA": "off"}
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))
    if cmake is None:
        raise RuntimeError("cmake was not found, neither beside Python nor on PATH; run the command through ./go, which brings it")
    settings = {
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "CONVNET_SIMT_FLAGS": ";".join(flags.split()),
        "CONVNET_SIMT_RUNTIME_FLAGS": ";".join(runtime_flags.split()),
        "CONVNET_SIMT_LINK_FLAGS": ";".join(link_flags.split()),
        "CONVNET_SIMT_KERNELS": kernels or ROOT / "src/kernels",
        "CONVNET_BINDINGS": installed_bindings(),
    }
    commands = (
        [cmake, "-S", ROOT, "-B", folder, *(["-G", "Ninja"] if shutil.which("ninja") else []), *(f"-D{key}={value}" for key, value in settings.items())],
        [cmake, "--build", folder, "--target", "_simt", "--parallel"],
    )
    for command in commands:
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"simt build {name}: {result.stdout[-4000:]}{result.stderr[-4000:]}")
    (module,) = folder.glob("_simt.*so")
    return module

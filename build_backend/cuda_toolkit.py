"""The build's one decision: whether `_cuda` is built, by which nvcc, for which GPUs.

CMake runs this file and reads the JSON object it prints; convnet_build.py asks it what to fetch
from PyPI. Standard library only.

CONVNET_CUDA        auto (default)  where a GPU is visible; nvcc from the system, else from PyPI
                    require         always; the same nvcc; it is an error if it cannot be
                    system, pypi    as require, with the nvcc of that place only
                    off             never
CONVNET_CUDA_ARCHS  all, native, or a list such as "80;90a"; native where a GPU is visible, else all
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

MODES = ("auto", "require", "system", "pypi", "off")
ARCHITECTURES = ("75", "80", "86", "89", "90a", "100")  # PTX of the newest serves what comes later
OLDEST_CUDA = 12  # the first with C++20

# The metapackage pins versions that match. nvcc alone will not do: the runtime's headers need cccl.
PYPI_CUDA = 13
PYPI_TOOLKIT = [f"cuda-toolkit[nvcc,cudart,cccl]=={PYPI_CUDA}.0.*"]


NO_NVCC = "no nvcc found: set CUDA_HOME, or let CONVNET_CUDA=pypi fetch it from PyPI"


class Unavailable(Exception):
    """Why `_cuda` is not built, and what would change that."""


def mode() -> str:
    mode = os.environ.get("CONVNET_CUDA", "").lower() or "auto"
    if mode not in MODES:
        raise SystemExit(f"CONVNET_CUDA={mode}: expected one of {', '.join(MODES)}")
    return mode


def driver() -> tuple[int, list[str]]:
    """The CUDA version of the driver (0: there is none), and the architecture of each GPU."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, []
    version, count = ctypes.c_int(), ctypes.c_int()
    failed = cuda.cuInit(0)
    failed = failed or cuda.cuDriverGetVersion(ctypes.byref(version))
    failed = failed or cuda.cuDeviceGetCount(ctypes.byref(count))
    if failed:
        return 0, []
    major_attribute, minor_attribute = 75, 76
    gpus = []
    for device in range(count.value):
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(major), major_attribute, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), minor_attribute, device)
        gpu = f"{major.value}{minor.value}"
        gpus.append("90a" if gpu == "90" else gpu)  # the kernels for Hopper need what only 90a has
    return version.value // 1000, gpus


def system_nvcc() -> str:
    """What the user points at, then PATH, then the usual place (often not on PATH)."""
    roots = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH", "CUDAToolkit_ROOT")]
    candidates = [os.environ.get("CUDACXX"), *(f"{root}/bin/nvcc" for root in roots if root)]
    candidates += ["nvcc", "/usr/local/cuda/bin/nvcc"]
    return next(filter(None, map(shutil.which, filter(None, candidates))), "")


def pypi_nvcc() -> str:
    try:
        from nvidia import cu13
    except ImportError:
        return ""
    root = Path(next(iter(cu13.__path__)))
    if (root / "lib").is_dir() and not (root / "lib64").exists():
        (root / "lib64").symlink_to("lib")  # the wheels have lib, nvcc links with lib64
    return shutil.which(str(root / "bin" / "nvcc")) or ""


def requires() -> list[str]:
    """What the build needs from PyPI: 100 MB, fetched only where there is a GPU and no nvcc."""
    wanted = mode()
    if wanted == "pypi":
        return PYPI_TOOLKIT
    if wanted in ("auto", "require") and not system_nvcc():
        version, gpus = driver()
        if wanted == "require" or (gpus and version >= PYPI_CUDA):
            return PYPI_TOOLKIT
    return []


def ask(nvcc: str, option: str) -> str:
    try:
        return subprocess.run([nvcc, option], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{nvcc} does not run: {error}") from None


def toolkit_root(nvcc: str) -> Path:
    """Where its headers are; the nvcc on PATH may be a script that calls another."""
    dry_run = subprocess.run(
        [nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True
    )
    top = re.search(r"^#\$ TOP=(.*)$", dry_run.stderr, re.M)
    return Path(top[1] if top else Path(nvcc).resolve().parent.parent).resolve()


def cmake_architectures(wanted: str, listed: list[str], gpus: list[str]) -> list[str]:
    """`wanted` as CMake writes architectures, less what this nvcc does not know."""
    if wanted not in ("all", "native"):
        return [
            arch if "-" in arch else f"{arch}-real" for arch in re.split(r"[;,\s]+", wanted) if arch
        ]
    if wanted == "native" and not gpus:
        raise Unavailable("CONVNET_CUDA_ARCHS=native, but no GPU is visible")
    candidates = ARCHITECTURES if wanted == "all" else sorted(set(gpus))
    known = [arch for arch in candidates if arch.rstrip("a") in listed]
    if not known:
        raise Unavailable(
            f"this nvcc compiles for {', '.join(listed)}, but not for the GPU ({', '.join(gpus)}): "
            f"set CUDA_HOME to a toolkit that does (CUDA {OLDEST_CUDA} or newer)"
        )
    ptx = [f"{known[-1].rstrip('a')}-virtual"] if wanted == "all" else []
    return [f"{arch}-real" for arch in known] + ptx


def choose() -> dict[str, str]:
    """nvcc, its version and the architectures; or no nvcc, and why: raised where it is required."""
    choice = {"mode": mode(), "nvcc": "", "version": "", "architectures": "", "why": ""}
    try:
        if choice["mode"] == "off":
            raise Unavailable("CONVNET_CUDA=off")
        driver_version, gpus = driver()
        if choice["mode"] == "auto" and not gpus:
            raise Unavailable("no GPU is visible")
        nvcc = system_nvcc() if choice["mode"] != "pypi" else ""
        nvcc = nvcc or (pypi_nvcc() if choice["mode"] != "system" else "")
        if not nvcc:
            raise Unavailable(NO_NVCC)
        version = re.search(r"release ([\d.]+)", ask(nvcc, "--version"))
        major = int(version[1].split(".")[0]) if version else 0
        if major < OLDEST_CUDA:
            found = version[1] if version else "unknown version"
            raise Unavailable(
                f"{nvcc} is of CUDA {found}; CUDA {OLDEST_CUDA} is the oldest that will do"
            )
        if gpus and driver_version < major:
            raise Unavailable(
                f"the driver is for CUDA {driver_version} and {nvcc} is of CUDA {version[1]}: "
                "update the driver, or set CUDA_HOME to an older toolkit"
            )
        listed = re.findall(r"compute_(\d+)", ask(nvcc, "--list-gpu-arch"))
        wanted = os.environ.get("CONVNET_CUDA_ARCHS", "").lower() or ("native" if gpus else "all")
        architectures = ";".join(cmake_architectures(wanted, listed, gpus))
        return {**choice, "nvcc": nvcc, "version": version[1], "architectures": architectures}
    except Unavailable as error:
        if choice["mode"] in ("require", "system", "pypi"):
            raise
        return {**choice, "why": str(error)}


if __name__ == "__main__":
    try:
        print(json.dumps(choose()))
    except Unavailable as error:
        sys.exit(f"CONVNET_CUDA={mode()}: {error}")

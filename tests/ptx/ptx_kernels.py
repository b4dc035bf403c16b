"""The kernels of this folder as shared libraries: by the C++ compiler for simt, by nvcc for a GPU."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KERNELS = ROOT / "src" / "kernels"
SOURCES = [HERE / "instructions.cu", HERE / "gemm.cu"]  # what a GPU can run
SIMT_SOURCES = [*SOURCES, HERE / "misuse.cu"]

sys.path.insert(0, str(ROOT / "build_backend"))
import cuda_toolkit  # noqa: E402

SIMT_FLAGS = "-std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wno-unknown-pragmas"
CUDA_FLAGS = "-std=c++20 -O3 -lineinfo -Werror all-warnings"


def compiler() -> list[str]:
    """The command of the C++ compiler; empty if there is none."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    return next(([name] for name in ("g++", "c++", "clang++") if shutil.which(name)), [])


def nvcc() -> str:
    """nvcc's path; empty if there is none."""
    return cuda_toolkit.system_nvcc() or cuda_toolkit.pypi_nvcc()


def gpu() -> str:
    """The architecture of the first GPU, as "90a"; empty if there is none."""
    return next(iter(cuda_toolkit.driver()[1]), "")


def build_simt(
    folder: Path, flags: str = "-O2", kernel_flags: str = "", runtime_flags: str = ""
) -> Path:
    """The library of all kernels and the simt runtime; kernel_flags, runtime_flags: more of either."""
    tools = [*filter(None, [shutil.which("ccache")]), *compiler()]

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        own = kernel_flags if source.suffix == ".cu" else runtime_flags
        command = [*tools, *f"{SIMT_FLAGS} {flags} {own}".split(), f"-I{KERNELS}", "-x", "c++"]
        subprocess.run([*command, "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        sources = [*SIMT_SOURCES, *sorted((KERNELS / "simt").glob("*.cpp"))]
        objects = list(pool.map(compile_one, sources))
    library = folder / "libptx_simt.so"
    link = [flag for flag in f"{flags} {kernel_flags}".split() if flag.startswith("-fsanitize=")]
    subprocess.run([*compiler(), "-shared", *link, *objects, "-o", library, "-pthread"], check=True)
    return library


def build_cuda(folder: Path, *architectures: str) -> Path:
    """The library for GPUs of these architectures, as "90a"."""
    library = folder / "libptx_cuda.so"
    command = [nvcc(), *CUDA_FLAGS.split(), f"-I{KERNELS}", "-shared"]
    command += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    command += ["-cudart=static", "-Xcompiler=-fPIC,-fvisibility=hidden", *SOURCES, "-o", library]
    subprocess.run(command, check=True)
    return library


class Library:
    """The C functions of the kernels, called with numpy arrays and integers.

    What a launch throws becomes a RuntimeError.
    """

    def __init__(self, path: Path):
        self._functions = ctypes.CDLL(str(path))

    def __getattr__(self, name):
        function = self._functions[name]
        function.restype = ctypes.c_char_p

        def call(*arguments):
            for argument in arguments:
                if isinstance(argument, np.ndarray):
                    assert argument.flags.c_contiguous
            error = function(
                *(
                    a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a
                    for a in arguments
                )
            )
            if error:
                raise RuntimeError(error.decode())

        return call

    def set_options(self, order: int, async_: str) -> None:
        """Of simt: the order of the threads, and when copies land, "late" or "early"."""
        self.__getattr__("set_options")(ctypes.c_uint64(order), int(async_ == "early"))

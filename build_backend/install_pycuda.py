"""Installs pycuda, which does not find by itself what it needs. Run by ./go.

pycuda comes as source only. It finds CUDA through `nvcc` on PATH alone, wants cuRAND's headers
unless told otherwise, and links with -lcuda, a name that the driver and the toolkit of PyPI need
not have.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cuda_toolkit


def link_name_of_driver(folder: str) -> None:
    """libcuda.so, for the linker: the driver's, or where there is none an empty library."""
    link = Path(folder, "libcuda.so")
    driver = next((line.split()[-1] for line in loaded_libraries() if "libcuda.so" in line), None)
    if driver:
        link.symlink_to(driver)
    else:
        source = Path(folder, "stub.c")
        source.write_text("int cuInit(unsigned flags) { return 100; }\n")
        flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
        subprocess.run(
            [os.environ.get("CC", "cc"), *flags, str(source), "-o", str(link)], check=True
        )


def loaded_libraries() -> list[str]:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    return Path("/proc/self/maps").read_text().splitlines()


def main() -> int:
    nvcc = cuda_toolkit.system_nvcc() or cuda_toolkit.pypi_nvcc()
    if not nvcc:
        print(f"error: {cuda_toolkit.NO_NVCC}")
        return 1
    binaries = cuda_toolkit.toolkit_root(nvcc) / "bin"
    with tempfile.TemporaryDirectory() as folder:
        link_name_of_driver(folder)
        libraries = [folder, os.environ.get("LIBRARY_PATH", "")]
        env = {
            **os.environ,
            "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
            "LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        }
        without_curand = "--config-settings=--build-option=--conf:CUDA_ENABLE_CURAND=False"
        # numpy is missing from pycuda's own requirements.
        return subprocess.call(
            [sys.executable, "-m", "pip", "install", without_curand, "pycuda>=2025.1", "numpy<3"],
            env=env,
        )


if __name__ == "__main__":
    sys.exit(main())

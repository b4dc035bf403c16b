"""Every op on small shapes under a tool of NVIDIA's compute-sanitizer, which first shows that it sees anything at all.

    python benchmarks/sanitize.py memcheck       # or racecheck, initcheck, synccheck

Before the library, the tool gets a kernel with the bug that it is there to find, and one without: it must report the
first and not the second, else it is blind here and its verdict on our kernels would mean nothing. Needs a GPU and nvcc.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from environment import ROOT, run_through_go

PLANTED = {"memcheck": "out_of_bounds_kernel", "racecheck": "race_kernel", "initcheck": "uninitialised_kernel", "synccheck": "divergent_barrier_kernel"}
SOUND = "sound_kernel"
FOUND = 86  # the exit code that we ask for where errors are found; no program here ends with it by itself
# Each op with each of its shapes, once.
WORKLOAD = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_ops.py", "-k", "cuda and value and float32"]


def toolkit() -> tuple[str, str]:
    """nvcc, and compute-sanitizer: on PATH, or in nvcc's toolkit."""
    sys.path.insert(0, str(ROOT / "build_backend"))
    import cuda_toolkit

    nvcc = cuda_toolkit.system_nvcc()
    if not nvcc:
        sys.exit(f"sanitize: {cuda_toolkit.NO_NVCC}")
    root = cuda_toolkit.toolkit_root(nvcc)
    folders = os.pathsep.join([os.environ.get("PATH", ""), f"{root}/bin", f"{root}/compute-sanitizer"])
    sanitizer = shutil.which("compute-sanitizer", path=folders)
    if not sanitizer:
        sys.exit("sanitize: no compute-sanitizer on PATH or in the toolkit of nvcc: a whole CUDA toolkit has it")
    return nvcc, sanitizer


def finds(sanitizer: str, tool: str, command: list[str]) -> bool:
    """Whether the tool reports an error in a command; what both print goes to our output."""
    print("$", " ".join(command), flush=True)
    code = subprocess.run([sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), *command], cwd=ROOT).returncode
    if code not in (0, FOUND):
        sys.exit(f"sanitize: {tool}: {' '.join(command)} ended with {code}: neither found nor fault-free")
    return code == FOUND


def check(sanitizer: str, tool: str, planted: str, workload: list[str]) -> str:
    """What is wrong, or "" ."""
    if not finds(sanitizer, tool, [planted, PLANTED[tool]]):
        return f"{tool} is blind here: it does not report {PLANTED[tool]}"
    if finds(sanitizer, tool, [planted, SOUND]):
        return f"{tool} cannot be trusted here: it reports {SOUND}, which has no bug"
    if finds(sanitizer, tool, workload):
        return f"{tool} reports our kernels: see above"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=sorted(PLANTED))
    tool = parser.parse_args().tool
    run_through_go()
    nvcc, sanitizer = toolkit()
    with tempfile.TemporaryDirectory() as folder:
        planted = str(Path(folder) / "planted_bugs")
        subprocess.run([nvcc, "-std=c++20", "-lineinfo", "-arch=native", f"-I{ROOT / 'src/kernels'}", "-o", planted,
                        str(ROOT / "benchmarks/planted_bugs.cu")], check=True)
        if problem := check(sanitizer, tool, planted, [sys.executable, *WORKLOAD]):
            sys.exit(f"sanitize: {problem}")
    print(f"{tool} reports {PLANTED[tool]}, and nothing in our kernels")


if __name__ == "__main__":
    main()

"""The host backend on another processor: compiled for aarch64 without a warning, and its tests run under qemu.

    apt install g++-aarch64-linux-gnu qemu-user mmdebstrap
    ./go python tests/aarch64.py FOLDER                            # all that is there for the first time, then the ops' tests
    ./go python tests/aarch64.py FOLDER tests/test_plan.py -k host

FOLDER gets Debian's Python for arm64 (`root`, 130 MB), numpy and pytest for it (`site`), the build, with the flags of
CMakeLists.txt, and the package with its module (`tree`). A second call builds what has changed.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = "_host_baseline"
TOOLS = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user", "mmdebstrap": "mmdebstrap", "cmake": "cmake"}
SUITE, PYTHON = "bookworm", "python3.11"
DEBIAN = ["libc6", "libstdc++6", "libgcc-s1", PYTHON, f"lib{PYTHON}-dev"]
WHEELS = ["numpy", "pillow", "tqdm", "pytest"]
PLATFORMS = ["manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64"]
TESTS = ["tests/test_ops.py"]


def must(*command: object, **environment: str) -> None:
    print("$", *command, flush=True)
    if code := subprocess.run(list(map(str, command)), cwd=ROOT, env={**os.environ, **environment}).returncode:
        sys.exit(f"aarch64: {command[0]} has ended with exit code {code}; above is why")


def prepare(folder: Path) -> None:
    """What does not change: Python and packages."""
    root, site = folder / "root", folder / "site"
    if not (root / "usr/lib").exists():
        must("mmdebstrap", "--arch=arm64", "--variant=extract", f"--include={','.join(DEBIAN)}", SUITE, root)
    if not site.exists():
        part = folder / "site.part"
        must(sys.executable, "-m", "pip", "install", "--quiet", "--target", part, "--only-binary=:all:", "--python-version", PYTHON.removeprefix("python"),
             *(word for name in PLATFORMS for word in ("--platform", name)), *WHEELS)
        part.rename(site)


def build(folder: Path) -> None:
    """Compiles every source of the host backend, a warning being an error, and lays the package out."""
    import pybind11

    root, made, tree = folder / "root", folder / "build", folder / "tree"
    must("cmake", "-S", ROOT, "-B", made, "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
         f"-DCMAKE_CXX_FLAGS=-Werror -idirafter {root}/usr/include", f"-DPython_EXECUTABLE={sys.executable}", f"-DPython_INCLUDE_DIR={root}/usr/include/{PYTHON}",
         f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", "-DSKBUILD_PROJECT_VERSION_FULL=0", CONVNET_CUDA="off")
    must("cmake", "--build", made, "--parallel", os.cpu_count(), "--target", MODULE)
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("convnet", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    shutil.copy(made / "_build_info.py", tree / "convnet")
    module = next(path for path in made.glob(f"{MODULE}*.so"))
    shutil.copy(module, tree / "convnet" / f"{MODULE}.so")


def test(folder: Path, words: list[str]) -> int:
    root, tree = folder / "root", folder / "tree"
    path = f"PYTHONPATH={tree}:{tree / 'tests'}:{folder / 'site'}"
    os.chdir(tree)
    return subprocess.run(["qemu-aarch64", "-L", str(root), "-E", path, str(root / "usr/bin" / PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a few hundred megabytes; outside the checkout")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=f"of pytest (default: {' '.join(TESTS)} -k host)")
    arguments = parser.parse_args()
    if missing := [package for tool, package in TOOLS.items() if not shutil.which(tool)]:
        sys.exit(f"aarch64: on Debian and Ubuntu, apt install {' '.join(missing)} brings what is missing")
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    build(folder)
    return test(folder, arguments.words or [*TESTS, "-k", "host"])


if __name__ == "__main__":
    sys.exit(main())

"""Builds the simt backend with all mutants of the kernels in it."""
from __future__ import annotations

import shutil
from pathlib import Path

from mutants.instrument import Mutant, instrument
from simt_build import BUILDS, ROOT, build_simt

HERE = Path(__file__).resolve().parent
KERNELS = ROOT / "src" / "kernels"
SOURCES = BUILDS / "mutants-source"
# What declares the ops and checks their arguments, and what talks to CUDA's runtime, is not what is mutated.
NOT_KERNELS = {"ops.h", "runtime.h", "runtime.cu", "conv_problem.h", "local_problem.h"}
# A mutant that leaves an array, or reads what nobody has written, must not be saved by what happens to lie there.
FLAGS = ("-O2 -ffp-contract=off -fsanitize=bounds-strict,alignment -fsanitize-undefined-trap-on-error -ftrivial-auto-var-init=pattern -w "
         f"-include {HERE / 'schemata.h'}")

STATE = """
namespace mutation {{
__attribute__((visibility("default"))) unsigned char states[{count}] = {{}}, variants[{count}] = {{}};
int touched(int site, unsigned char possible) {{
  if (states[site] != watched) return states[site];
  states[site] = 0;
  variants[site] |= possible;
  return 0;
}}
}}  // namespace mutation
"""


def kernel_files() -> list[Path]:
    return sorted(path for path in KERNELS.iterdir() if path.suffix in (".cu", ".cuh", ".h") and path.name not in NOT_KERNELS)


def write_sources(folder: Path, sources: dict[str, str]) -> list[Mutant]:
    """Fills `folder` with what stands for src/kernels: instrumented `sources`, and links to the rest; gives the mutants."""
    mutants: list[Mutant] = []
    texts = {}
    sites = 1
    for name, source in sources.items():
        texts[name], found = instrument(name, source, sites)
        mutants += found
        sites = max([sites - 1, *(mutant.site for mutant in found)]) + 1
    definitions = next(name for name in texts if name.endswith(".cu"))
    texts[definitions] += STATE.format(count=sites)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in texts:
            path.unlink()
    for path in KERNELS.rglob("*"):  # file by file: from a link to a folder, its files would include what lies above the folder itself
        if path.is_file() and str(target := path.relative_to(KERNELS)) not in texts:
            (folder / target).parent.mkdir(exist_ok=True)
            (folder / target).symlink_to(path)
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # the others need not be compiled again
            path.unlink(missing_ok=True)
            path.write_text(text)
    return mutants


def build() -> tuple[Path, list[Mutant]]:
    """The module, and the mutants in it."""
    mutants = write_sources(SOURCES, {path.name: path.read_text() for path in kernel_files()})
    return build_simt("mutants", FLAGS, kernels=SOURCES), mutants

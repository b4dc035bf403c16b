"""Compares the instructions of src/kernels/ptx/, one a kernel, with a description of them in numpy (ptx_manual.py).

    python tests/ptx/conformance.py [--json FILE] [--seed N]

Always on simt, which shows that the emulation follows the manual as it was read. With a GPU of sm_80 or later and nvcc the
same kernels run on the GPU, which says of every instruction whether the emulation is confirmed. Exits with 1 if one
differs. Needs numpy and a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ptx_kernels
import ptx_manual as manual


class Case(NamedTuple):
    run: Callable[[ptx_kernels.Library], np.ndarray]
    expected: np.ndarray
    bound: np.ndarray | None = None  # none: the same bits


def special_floats() -> np.ndarray:
    """Zeros, infinities, NaNs with payloads high and low, denormals, ties, values next to the largest."""
    magnitudes = [0, 1, 0x1000, 0x1FFF, 0x7FFF, 0x8000, 0x7FEFFF, 0x7FF000, 0x7FFFFF, 0x800000]
    magnitudes += [0x3F800FFF, 0x3F801000, 0x3F801001, 0x3F802FFF, 0x3F803000, 0x3F807FFF]
    magnitudes += [0x3F808000, 0x3F808001, 0x3F817FFF, 0x3F818000, 0x3FFFF000, 0x3FFF8000]
    magnitudes += [0x7F7F0000, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FEFFF, 0x7F7FF000, 0x7F7FFFFF]
    magnitudes += [0x7F800000, 0x7F800001, 0x7F801FFF, 0x7F802000, 0x7FC00000, 0x7FFFFFFF]
    bits = np.array(magnitudes, np.uint32)
    return manual.floats_of(np.concatenate([bits, bits | np.uint32(0x80000000)]))


def conversions(rng: np.random.Generator, warps: int) -> dict[str, dict[str, Case]]:
    def tf32(values: np.ndarray) -> Case:
        def run(library):
            bits = np.zeros(len(values), np.uint32)
            library.to_tf32(values, bits, len(values) // 32)
            return bits

        return Case(run, manual.to_tf32(values))

    def bf16(low: np.ndarray, high: np.ndarray) -> Case:
        def run(library):
            bits = np.zeros(len(low), np.uint32)
            library.pack_bf16(low, high, bits, len(low) // 32)
            return bits

        return Case(run, manual.pack_bf16(low, high))

    special = special_floats()
    special = np.resize(special, -(-len(special) // 32) * 32)
    any_bits = [manual.floats_of(rng.integers(0, 2**32, warps * 32, np.uint32)) for _ in range(2)]
    return {
        "cvt.rna.tf32.f32": {"special values": tf32(special), "any bits": tf32(any_bits[0])},
        "cvt.rn.bf16x2.f32": {
            "special values": bf16(special, np.roll(special, 5)),
            "any bits": bf16(*any_bits),
        },
    }


def copies(rng: np.random.Generator, warps: int) -> dict[str, dict[str, Case]]:
    def copy(size: int, source_bytes: np.ndarray) -> Case:
        source = rng.integers(0, 256, (warps, 32, size), np.uint8)

        def run(library):
            target = np.zeros_like(source)
            getattr(library, f"cp_async_{size}")(source, source_bytes, target, warps)
            return target

        return Case(run, manual.cp_async(source, source_bytes))

    source = rng.standard_normal((warps, 4, 32), np.float32)

    def wait(library):
        target = np.zeros_like(source)
        library.cp_async_wait(source, target, warps)
        return target.view(np.uint32)

    found = {
        f"cp.async {size}": {
            "all bytes": copy(size, np.full((warps, 32), size, np.int32)),
            "the rest zero": copy(size, rng.integers(0, size + 1, (warps, 32), np.int32)),
        }
        for size in (4, 8, 16)
    }
    return {
        **found,
        "cp.async.wait_group": {"one group after the other": Case(wait, source.view(np.uint32))},
    }


def matrix_loads(rng: np.random.Generator, warps: int) -> dict[str, dict[str, Case]]:
    def load(matrices: int, transposed: bool, places: np.ndarray) -> Case:
        memory = rng.integers(0, 2**16, (warps, 32, 8), np.uint16)

        def run(library):
            registers = np.zeros((warps, 32, matrices), np.uint32)
            name = f"ldmatrix_x{matrices}" + ("_transposed" if transposed else "")
            getattr(library, name)(memory, places, registers, warps)
            return registers

        return Case(run, manual.ldmatrix(memory, places, matrices, transposed))

    in_order = np.tile(np.arange(32, dtype=np.int32), (warps, 1))
    anywhere = rng.integers(0, 32, (warps, 32), np.int32)
    return {
        f"ldmatrix.x{matrices}{'.trans' * transposed}": {
            "rows in order": load(matrices, transposed, in_order),
            "rows anywhere": load(matrices, transposed, anywhere),
        }
        for matrices in (1, 2, 4)
        for transposed in (False, True)
    }


def products(rng: np.random.Generator, warps: int) -> dict[str, dict[str, Case]]:
    def case(form: str, a: np.ndarray, b: np.ndarray, sums: np.ndarray, exact=False) -> Case:
        """a and b: float32 of (warps, 32, elements), which are rounded to the form's type."""
        if form == "bf16":
            a, b = (manual.pack_bf16(v[..., 0::2], v[..., 1::2]) for v in (a, b))
        else:
            a, b = manual.to_tf32(a), manual.to_tf32(b)
        return raw_case(form, a, b, sums, exact)

    def raw_case(form: str, a: np.ndarray, b: np.ndarray, sums: np.ndarray, exact=False) -> Case:
        name = {"tf32": "mma_m16n8k8_tf32", "bf16": "mma_m16n8k16_bf16"}[form]

        def run(library):
            result = sums.copy()
            getattr(library, name)(np.ascontiguousarray(a), np.ascontiguousarray(b), result, warps)
            return result

        expected, bound = manual.mma(form, a, b, sums)
        return Case(run, expected, np.zeros_like(bound) if exact else bound)

    def cases(form: str) -> dict[str, Case]:
        elements = 2 if form == "bf16" else 1  # of a register
        sizes = (4 * elements, 2 * elements, 4)

        def draw(function):
            return [function((warps, 32, size)).astype(np.float32) for size in sizes]

        def spread(exponents: int):
            return lambda shape: np.ldexp(
                rng.standard_normal(shape), rng.integers(-exponents, exponents + 1, shape)
            )

        def specials(shape):
            values = rng.integers(-4, 5, shape).astype(np.float32)
            chosen = rng.choice([np.inf, -np.inf, np.nan, 0.0], shape)
            return np.where(rng.random(shape) < 0.03, chosen, values)

        def denormals(shape):
            return manual.floats_of(
                rng.integers(0, 2**32, shape, np.uint32) & np.uint32(0x807FFFFF)
            )

        tiny_a, _, tiny_sums = draw(denormals)
        found = {
            "small integers, exactly": case(
                form, *draw(lambda s: rng.integers(-8, 9, s)), exact=True
            ),
            "random values": case(form, *draw(spread(4))),
            "values far apart": case(form, *draw(spread(40))),
            "denormal operands and sums": case(form, tiny_a, draw(spread(4))[1], tiny_sums),
            "infinities and NaN": case(form, *draw(specials)),
        }
        if form == "tf32":
            a, b, sums = draw(spread(4))
            found["operands that were not rounded"] = raw_case(
                form, manual.bits_of(a), manual.bits_of(b), sums
            )
        return found

    return {"mma.m16n8k8.tf32": cases("tf32"), "mma.m16n8k16.bf16": cases("bf16")}


def all_cases(seed: int = 1, warps: int = 64) -> dict[str, dict[str, Case]]:
    """The cases of each instruction, by name, each in so many warps."""
    rng = np.random.default_rng(seed)
    return {
        **conversions(rng, warps),
        **copies(rng, warps),
        **matrix_loads(rng, warps),
        **products(rng, warps),
    }


def judge(case: Case, result: np.ndarray) -> dict:
    """How many values are not as described, and the largest error as a fraction of its bound."""
    if case.bound is None:
        wrong = result != case.expected
        found = {"compared": result.size, "wrong": int(wrong.sum())}
    else:
        with np.errstate(invalid="ignore"):
            error = np.abs(result.astype(np.float64) - case.expected)
            good = np.where(
                np.isfinite(case.expected), error <= case.bound, result == case.expected
            )
        wrong = ~np.where(np.isnan(case.expected), np.isnan(result), good)
        found = {"compared": result.size, "wrong": int(wrong.sum())}
        bounded = np.isfinite(error) & (case.bound > 0)
        if bounded.any():
            found["largest_error_of_bound"] = float((error[bounded] / case.bound[bounded]).max())
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        found["first"] = {
            "at": first,
            "found": str(result[first]),
            "expected": str(case.expected[first]),
        }
    return found


def same_bits(a: np.ndarray, b: np.ndarray) -> float:
    """The share of values that are the same; two NaNs are."""
    same = a == b
    if a.dtype == np.float32:
        same |= np.isnan(a) & np.isnan(b)
    return float(same.mean())


def report(
    simt: ptx_kernels.Library, cuda: ptx_kernels.Library | None, seed: int = 1
) -> dict[str, dict]:
    """The verdict on each instruction: unconfirmed (no GPU), confirmed, or differs; with the comparisons behind it."""
    found = {}
    for instruction, cases in all_cases(seed).items():
        comparisons = {}
        for name, case in cases.items():
            emulated = case.run(simt)
            comparisons[name] = {"simt": judge(case, emulated)}
            if cuda:
                try:
                    computed = case.run(cuda)
                except RuntimeError as error:
                    comparisons[name]["cuda"] = {"wrong": emulated.size, "error": str(error)}
                else:
                    comparisons[name]["cuda"] = judge(case, computed)
                    comparisons[name]["same_bits"] = same_bits(emulated, computed)
        wrong = any(
            comparison.get(backend, {}).get("wrong")
            for comparison in comparisons.values()
            for backend in ("simt", "cuda")
        )
        verdict = "differs" if wrong else "confirmed" if cuda else "unconfirmed"
        found[instruction] = {"verdict": verdict, "cases": comparisons}
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--seed", type=int, default=1, help="of the operands (default 1)")
    options = parser.parse_args(arguments)
    if not ptx_kernels.compiler():
        parser.exit(2, "conformance: no C++ compiler found: set CXX\n")
    architecture = ptx_kernels.gpu()
    why_not = ""
    if not architecture:
        why_not = "no GPU"
    elif int(architecture.rstrip("a")) < 80:
        why_not = f"the GPU is sm_{architecture}; the instructions need sm_80"
    elif not ptx_kernels.nvcc():
        why_not = "no nvcc found: set CUDA_HOME"
    with tempfile.TemporaryDirectory() as folder:
        simt = ptx_kernels.Library(ptx_kernels.build_simt(Path(folder)))
        cuda = None
        if not why_not:
            cuda = ptx_kernels.Library(ptx_kernels.build_cuda(Path(folder), architecture))
        instructions = report(simt, cuda, options.seed)
    for instruction, found in instructions.items():
        compared = sum(c["simt"]["compared"] for c in found["cases"].values())
        line = f"{instruction:22}{found['verdict']:12}{compared:8} values in {len(found['cases'])} cases"
        shares = [c["same_bits"] for c in found["cases"].values() if "same_bits" in c]
        print(line + (f", {min(shares):.1%} or more have the emulation's bits" if shares else ""))
        for name, comparison in found["cases"].items():
            for backend in ("simt", "cuda"):
                if comparison.get(backend, {}).get("wrong"):
                    print(f"    {name}, {backend}: {comparison[backend]}")
    verdicts = {found["verdict"] for found in instructions.values()}
    verdict = next(v for v in ("differs", "unconfirmed", "confirmed") if v in verdicts)
    print(f"the emulation: {verdict}" + (f" ({why_not})" if why_not else f" (sm_{architecture})"))
    if options.json:
        whole = {
            "verdict": verdict,
            "architecture": architecture or None,
            "why_not_on_gpu": why_not or None,
            "seed": options.seed,
            "instructions": instructions,
        }
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return int(verdict == "differs")


if __name__ == "__main__":
    sys.exit(main())

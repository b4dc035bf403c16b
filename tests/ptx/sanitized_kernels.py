"""Runs the kernels of this folder, which are sound: the program that sanitizers watch.

    python tests/ptx/sanitized_kernels.py LIBRARY

Each instruction alone and the products of matrices, with copies that land late and early. A wrong value ends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import conformance
import ptx_kernels
import test_ptx

library = ptx_kernels.Library(Path(sys.argv[1]))
for landing in ("late", "early"):
    library.set_options(test_ptx.FORWARD, landing)
    for cases in conformance.all_cases(warps=4).values():
        for name, case in cases.items():
            assert conformance.judge(case, case.run(library))["wrong"] == 0, name
    for gemm in (test_ptx.gemm_tf32, test_ptx.gemm_bf16):
        for size in (4, 8, 16):
            sums, expected = gemm(library, 40, 37, 100, size)
            assert (sums == expected).all(), gemm

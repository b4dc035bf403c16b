"""Sound kernels made of the instructions of src/kernels/ptx/ under the sanitizers: nothing is said of them.

What is said of unsound ones: tests/simt/test_planted.py.
"""

from __future__ import annotations

import subprocess
import sys

import ptx_kernels
import pytest

sys.path.insert(0, str(ptx_kernels.ROOT / "tests" / "simt"))
import sanitizers


@pytest.mark.sanitizers
@pytest.mark.parametrize("name", ["asan", "race"])
def test_nothing_is_said_of_sound_kernels(name, tmp_path):
    sanitizer = sanitizers.SANITIZERS[name]
    path = ptx_kernels.build_simt(
        tmp_path, sanitizer.flags, sanitizer.kernel_flags, sanitizer.runtime_flags
    )
    preload = ":".join(sanitizers.library(lib) for lib in (*sanitizer.libraries, "stdc++"))
    program = [sys.executable, ptx_kernels.HERE / "sanitized_kernels.py", path]
    environment = sanitizer.environment(LD_PRELOAD=preload, SIMT_RACES="threads")
    output = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert output.returncode == 0 and output.stderr == "", output.stderr[-5000:]

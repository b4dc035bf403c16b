"""No op of host reads or writes beyond its tensors, not even what it does not use."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from convnet.backends import machine_isas

HERE = Path(__file__).parent


@pytest.mark.parametrize("isa", machine_isas())
def test_nothing_beyond_a_tensor_is_touched(isa):
    ended = subprocess.run([sys.executable, HERE / "at_the_edge.py", f"host_{isa}"], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{ended.stdout.splitlines()[-1:]} ended with {ended.returncode}\n{ended.stderr[-2000:]}"
    assert len(ended.stdout.splitlines()) > 1000

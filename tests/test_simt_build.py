"""CONVNET_SIMT_MODULE: the file that backend simt loads."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys

from convnet.backends import load_module


def test_simt_can_be_another_build(tmp_path):
    copy = tmp_path / "_simt.so"
    shutil.copy(load_module("simt").__file__, copy)
    program = "from convnet.backends import load_module; print(load_module('simt').__file__)"
    environment = {**os.environ, "CONVNET_SIMT_MODULE": str(copy)}
    output = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True).stdout
    assert output.strip() == str(copy)

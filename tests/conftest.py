"""The fixtures: a test that takes `device` runs on every backend of this machine, one that takes `place` in a folder
with config files."""
from __future__ import annotations

import os

import pytest

from convnet.backends import Device, choose_backend, cuda_problem, machine_isas
from workplace import Workplace

os.environ["CONVNET_TILES"] = "off"  # not what somebody has measured on this machine
HOSTS = [f"host_{isa}" for isa in machine_isas()]
AVAILABLE = [*HOSTS, "simt"] + ([] if cuda_problem() else ["cuda"])


@pytest.fixture(params=AVAILABLE)
def device(request):
    with Device(choose_backend(request.param), threads=2) as device:
        yield device


@pytest.fixture
def place(tmp_path, capsys, monkeypatch):
    return Workplace(tmp_path, capsys, monkeypatch)

"""The `device` fixture: every test that takes it runs on every backend of this machine."""
from __future__ import annotations

import pytest

from convnet.backends import Device, choose_backend, cuda_problem, machine_isas

HOSTS = [f"host_{isa}" for isa in machine_isas()]
AVAILABLE = [*HOSTS, "simt"] + ([] if cuda_problem() else ["cuda"])


@pytest.fixture(params=AVAILABLE)
def device(request):
    with Device(choose_backend(request.param), threads=2) as device:
        yield device

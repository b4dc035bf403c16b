"""Layers of one's own, type=cuda: their sources compiled and loaded (docs/own_layers.md).

On cuda by nvcc; on the CPU by the C++ compiler over the emulation that the tests run our kernels on (docs/simt.md).
"""
from __future__ import annotations

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from .backends import Device, Tensor
from .errors import ConfigError, NoSuchDevice
from .layers import Layer
from .layers.own import MOST_NUMBERS, OwnKernels
from .recorder import Step

FUNCTIONS = {"own_forward": "convnet_layer_forward", "own_backward": "convnet_layer_backward"}
MOST_BYTES = 1 << 20  # of a source
MOST_LINES = 20  # of what a compiler says


def read_sources(layers: Iterable[Layer], folder: Path, allow_code: bool, known: Mapping[str, str] = {}) -> dict[str, str]:
    """The texts of the sources that layers name, from beside the config, or as a checkpoint has them.

    Raises ConfigError where code may not run, or a file is missing.
    """
    sources: dict[str, str] = {}
    for layer in layers:
        if not isinstance(layer, OwnKernels) or layer.source in sources:
            continue
        where, path = f"{layer.where}: [{layer.name}] source={layer.source}", folder / layer.source
        if not allow_code:
            raise ConfigError(f"{where}: compiles and runs {path}, for which --allow-code is needed on the command line")
        if isinstance(known, Mapping) and layer.source in known:
            if not isinstance(known[layer.source], str):
                raise ConfigError(f"{where}: the checkpoint's is a {type(known[layer.source]).__name__}, expected a text")
            sources[layer.source] = known[layer.source]
            continue
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ConfigError(f"{where}: {path} has {path.stat().st_size} bytes, expected at most {MOST_BYTES}")
            sources[layer.source] = path.read_text()
        except OSError as error:
            raise ConfigError(f"{where}: {path}: {error.strerror}; expected it beside the config") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where}: {path} is not a text in UTF-8") from None
    return sources


class Libraries:
    """The compiled sources of a net, loaded into this process for good; `backend`: cuda, or one of the CPU."""

    def __init__(self, sources: Mapping[str, str], backend: str):
        self.sources = dict(sources)
        self._libraries: dict[str, ctypes.CDLL] = {}
        for name, text in sources.items():
            with tempfile.TemporaryDirectory(prefix="convnet-") as folder:
                # once loaded it needs no file
                self._libraries[name] = ctypes.CDLL(str(build(name, text, Path(folder), backend == "cuda")))

    def call(self, step: Step, device: Device, tensors: list[Tensor]) -> Callable[[], None]:
        """What queues a step on these tensors."""
        function = getattr(self._libraries[step.scalars["source"]], FUNCTIONS[step.op])
        numbers = np.zeros(MOST_NUMBERS)
        numbers[: len(step.scalars["numbers"])] = step.scalars["numbers"]
        packed = b"".join(map(device.ops.pack, tensors))
        return partial(device.ops.call, device, ctypes.cast(function, ctypes.c_void_p).value, packed, numbers.tobytes())


def build(name: str, text: str, folder: Path, by_nvcc: bool, architecture: str = "native") -> Path:
    """The library of a source, made in `folder`. Raises ConfigError with what the compiler says, NoSuchDevice where there is none."""
    source, library, kernels = folder / Path(name).name, folder / "layer.so", kernels_folder()
    source.write_text(text)
    common = ["-std=c++20", "-O2", "-shared", "-I", str(kernels / "own"), "-D", f'CONVNET_LAYER="{source}"', "-o", str(library)]
    if by_nvcc:
        command = [nvcc(), "-x", "cu", f"-arch={architecture}", "-lineinfo", "-Xcompiler", "-fPIC,-fvisibility=hidden", *common, str(kernels / "own/layer.cu"),
                   "-Xlinker", str(kernels / "libconvnet_layer.a")]
    else:
        command = [*compiler(), "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wno-unknown-pragmas", *common, "-x", "c++", str(kernels / "own/layer.cu"),
                   "-x", "none", str(kernels / "libconvnet_layer.a"), "-pthread"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr + result.stdout).replace(str(source), name).splitlines()
        wrong = [line for line in said if "error" in line] or said
        raise ConfigError("\n  ".join([f"{name} does not compile ({Path(command[0]).name}):", *wrong[:MOST_LINES]]))
    return library


def kernels_folder() -> Path:
    """Where the headers and the emulation's runtime are, beside the compiled modules."""
    spec = importlib.util.find_spec("convnet._build_info")
    folder = Path(spec.origin).parent / "kernels" if spec and spec.origin else None
    if folder is None or not (folder / "own/layer.cu").is_file():
        raise NoSuchDevice("type=cuda: this installation has no kernel headers; run the command through ./go, which installs them")
    return folder


def nvcc() -> str:
    from . import _build_info  # not there in a checkout that was never built

    roots = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [*(f"{root}/bin/nvcc" for root in roots if root), "nvcc", _build_info.cuda["nvcc"], "/usr/local/cuda/bin/nvcc"]
    found = next(filter(None, map(shutil.which, filter(None, candidates))), None)
    if not found:
        raise NoSuchDevice("type=cuda: on backend cuda nvcc compiles the layer's source, and none was found: set CUDA_HOME, or put it on PATH")
    return found


def compiler() -> list[str]:
    words = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if not shutil.which(words[0]):
        raise NoSuchDevice(f"type=cuda: on the CPU a C++ compiler makes the layer, and {words[0]} was not found: install g++, or set CXX")
    return words

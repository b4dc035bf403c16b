"""Initial weights that are not drawn: made by a Python function beside the config, or taken from a checkpoint."""
from __future__ import annotations

import importlib.util
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .cfgfile import suggest
from .errors import CommandLineError, ConfigError, DataError

# What the originals' initw.py had; here they read the checkpoint of --init-from (SEMANTICS 7.7).
BUILT_IN = ("makew", "makeb", "makec", "makewcat", "makebcat", "makeb_vec")


@dataclass(frozen=True)
class InitFunction:
    """A key such as initWFunc=module.function(p1,p2).

    shape   in which the original keeps the tensor: a matrix of weights, with filters as columns; (filters, 1) or (1, outputs)
            biases; connections (groups, channels, channels that a group reads)
    index   of the layer's input; None of biases
    """

    key: str
    text: str
    shape: tuple[int, ...]
    index: int | None = None

    def __post_init__(self) -> None:
        parse_function(self.text)

    @property
    def parts(self) -> tuple[str, str, list[str]]:
        return parse_function(self.text)

    @property
    def built_in(self) -> bool:
        module, function, _ = self.parts
        return module == "initw" and function in BUILT_IN


def parse_function(text: str) -> tuple[str, str, list[str]]:
    """Module, function and parameters; ValueError where it is not so."""
    match = re.fullmatch(r"\s*(\w+)\.(\w+)\s*(?:\(([^()]*)\))?\s*", text)
    if not match:
        raise ValueError(f"{text}: expected module.function or module.function(p1,p2)")
    return match[1], match[2], [word.strip() for word in match[3].split(",")] if match[3] else []


def split_init_from(text: str) -> tuple[str, dict[str, str]]:
    """`CHECKPOINT[:layer=layer,...]` -> the checkpoint, and for layers of this net those of the checkpoint, or "random"."""
    path, colon, pairs = text.rpartition(":")
    if not colon or "=" not in pairs:
        return text, {}
    renamed = dict(pair.split("=", 1) for pair in pairs.split(",") if pair.count("=") == 1)
    if len(renamed) != len(pairs.split(",")) or not all((*renamed, *renamed.values())):
        raise CommandLineError(f"--init-from {text}: expected CHECKPOINT:layer=layer,..., for some layers of this net those of the checkpoint or random, each once")
    return path, renamed


class Initial:
    """What a new net's tensors begin with where the seed does not say.

    folder       of the config's files
    allow_code   whether functions beside the config may run
    source       where --init-from has it: the checkpoint's file and tensors, None for "random" or where nothing is given
    renamed      layer of this net -> layer of the checkpoint, or "random": the seed says
    """

    def __init__(self, folder: Path, allow_code: bool = False, init_from: str = "", tensors: dict[str, np.ndarray] | None = None,
                 renamed: dict[str, str] | None = None):
        self.folder, self.allow_code, self.init_from, self.tensors, self.renamed = folder, allow_code, init_from, tensors, renamed or {}
        self.warnings: list[str] = []
        self.taken: dict[str, str] = {}  # tensors of the net by tensors of the checkpoint
        self.left: dict[str, str] = {}  # those that have the seed's values -> why
        self._modules: dict[Path, Any] = {}

    def check(self, layers: list[str]) -> None:
        """CommandLineError where --init-from names layers that the net has not."""
        for name in self.renamed:
            if name not in layers:
                raise CommandLineError(f"--init-from: no layer {name} in this net{suggest(name, layers)}")

    def report(self) -> list[str]:
        """What was taken from the checkpoint, and what not; CommandLineError where nothing was."""
        if self.tensors is None:
            return []
        if not self.taken:
            raise CommandLineError(f"--init-from {self.init_from}: nothing in it is for this net: {'; '.join(self.left.values()) or 'no layer asks for it'}")
        lines = [f"From {self.init_from}: {', '.join(name if name == source else f'{name} (its {source})' for name, source in self.taken.items())}"]
        return lines + [f"Not from there, but from the seed: {name}: {why}" for name, why in self.left.items()]

    def values(self, layer, full: str, function: InitFunction | None, shape: tuple[int, ...], by_name: bool) -> np.ndarray | None:
        """Those of a tensor, layer.W0, of that shape; None: the seed says. `by_name`: a checkpoint's of the same name will do."""
        if function is None:
            return self._of_same_name(layer, full, shape) if self.tensors is not None and (by_name or layer.name in self.renamed) else None
        where = f"{layer.where}: [{layer.name}] {function.key}={function.text}"
        array = self._built_in(layer, full, function, where) if function.built_in else self._call(layer, function, where)
        if array is None:
            return None
        if function.key == "initCFunc":
            return connections(array, function.shape, where)
        if array.shape != function.shape:
            raise ConfigError(f"{where}: gave the shape {array.shape}, expected {function.shape}")
        return array.reshape(shape)

    # ---- a checkpoint ----------------------------------------------------------------------------------------

    def _of_same_name(self, layer, full: str, shape: tuple[int, ...]) -> np.ndarray | None:
        if self.renamed.get(layer.name) == "random":
            self.left[full] = "as --init-from says"
            return None
        name = self.renamed.get(layer.name, layer.name) + full[len(layer.name):]
        found = self.tensors.get(name)
        if found is not None and found.shape == shape:
            self.taken[full] = name
            return found
        why = f"the checkpoint has no {name}" if found is None else f"{name} has shape {found.shape}, expected {shape}"
        if layer.name in self.renamed:
            raise DataError(f"--init-from {self.init_from}: for {full}, {why}")
        self.left[full] = why
        return None

    def _built_in(self, layer, full: str, function: InitFunction, where: str) -> np.ndarray | None:
        _, name, params = function.parts
        if name == "makeb_vec":
            try:
                return np.array([[float(word) for word in params]], np.float32)
            except ValueError:
                raise ConfigError(f"{where}: expected numbers") from None
        if self.init_from == "random":
            self.warnings.append(f"{where}: --init-from random: drawn at random instead of taken from a checkpoint")
            return None
        if self.tensors is None:
            raise ConfigError(f"{where}: takes values from a checkpoint; expected --init-from CHECKPOINT on the command line, or --init-from random")
        if name == "makew" and (layer.name, function.index) == ("localcombine", 2):
            return None  # drawn, by an exception in the 2012 program's file
        kind = {"W": f"W{function.index}", "B": "b", "C": f"conns{function.index}"}[function.key[4]]
        if name.endswith("cat"):
            sources = params[1:]  # the first one is a file
        elif layer.dialect == "V2":
            sources = [self.renamed.get(layer.name, layer.name)]  # the parameter is a file
        else:
            sources = params[:1]
        if not sources:
            raise ConfigError(f"{where}: expected the name of a layer of the checkpoint in ( )")
        array = np.concatenate([self._matrix(source, kind, where) for source in sources], axis=-1)
        self.taken[full] = ", ".join(f"{source}.{kind}" for source in sources)
        return array.reshape(function.shape) if kind == "b" and array.size == prod(function.shape) else array

    def _matrix(self, source: str, kind: str, where: str) -> np.ndarray:
        """A tensor of the checkpoint; weights as a matrix whose columns are the filters."""
        if f"{source}.{kind}" not in self.tensors:
            layers = sorted({name.partition(".")[0] for name in self.tensors if name.endswith(f".{kind}")})
            raise ConfigError(f"{where}: the checkpoint {self.init_from} has no {source}.{kind}; expected one of {', '.join(layers) or 'none'}")
        tensor = self.tensors[f"{source}.{kind}"]
        return tensor.reshape(-1, tensor.shape[-1]) if kind.startswith("W") else tensor

    # ---- a function beside the config ------------------------------------------------------------------------

    def _call(self, layer, function: InitFunction, where: str) -> np.ndarray:
        module, name, params = function.parts
        path = self.folder / f"{module}.py"
        if not self.allow_code:
            raise ConfigError(f"{where}: runs {path}, for which --allow-code is needed on the command line")
        callee = self._function(path, name, where)
        place = (layer.name, function.shape) if function.index is None else (layer.name, function.index, function.shape)
        result = self._run(lambda: callee(*place, params=params), path, f"{name}()", where)
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(result, np.float32)
        except (TypeError, ValueError):
            array = None
        if array is None or result is None:  # of which numpy makes a NaN
            raise ConfigError(f"{where}: {path}: {name}() gave a {type(result).__name__}, expected an array of numbers of the shape {function.shape}") from None
        if not np.isfinite(array).all():
            raise ConfigError(f"{where}: {path}: {name}() gave numbers that are not finite")
        return array

    def _function(self, path: Path, name: str, where: str) -> Callable:
        if path not in self._modules:
            if not path.is_file():
                raise ConfigError(f"{where}: no file {path}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            self._modules[path] = importlib.util.module_from_spec(spec)
            self._run(lambda: spec.loader.exec_module(self._modules[path]), path, "it", where)
        function = getattr(self._modules[path], name, None)
        if not callable(function):
            raise ConfigError(f"{where}: {path} has no function {name}")
        return function

    def _run(self, call: Callable[[], Any], path: Path, what: str, where: str) -> Any:
        """Runs the user's code; ConfigError says in which line of it something went wrong."""
        try:
            return call()
        except (Exception, SystemExit) as error:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == os.path.abspath(path)]
            line = lines[-1] if lines else getattr(error, "lineno", None)
            raise ConfigError(f"{where}: {path}{f':{line}' if line else ''}: {what} failed: {type(error).__name__}: {error}") from None


def connections(array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Which channels the groups read, one after the other."""
    groups, channels, each = shape
    if array.size != groups * each:
        raise ConfigError(f"{where}: gave {array.size} numbers, expected {groups * each}, for {groups} groups the {each} channels that they read")
    if not np.isin(array, np.arange(channels)).all():
        raise ConfigError(f"{where}: gave {array[~np.isin(array, np.arange(channels))].flat[0]:g}, expected whole numbers from 0 to {channels - 1}, the channels")
    return array.reshape(-1)

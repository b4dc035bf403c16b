"""Nets to experiment with: config files taken apart, changed, and trained as convnet-train does."""
from __future__ import annotations

import contextlib
import copy
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convnet import checkpoint
from convnet.cfgfile import read_cfg
from convnet.cli.train import train
from convnet.errors import MissingInput
from convnet.trainer import NotFinite

Sections = dict[str, dict[str, str]]


@dataclass
class Recipe:
    """The sections of the two config files, and the further words of the command."""

    layers: Sections
    params: Sections
    words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, **words: str | int | Path) -> Recipe:
        """Of a folder with layers.cfg and params.cfg. Its channels= are left out, so that layers can be taken out."""
        layers, params = (sections(folder / name) for name in ("layers.cfg", "params.cfg"))
        for keys in layers.values():
            keys.pop("channels", None)
        params.pop("convnet-train", None)
        return cls(layers, params).told(**words)

    def told(self, **words: str | int | Path) -> Recipe:
        """With other options of the command: `crop_border=4` is --crop-border 4."""
        changed = copy.deepcopy(self)
        changed.words |= {name: str(value) for name, value in words.items()}
        return changed

    def changed(self, name: str, **keys: str | int) -> Recipe:
        """With other keys in a layer; what the params file has of it is changed there."""
        changed = copy.deepcopy(self)
        for key, value in keys.items():
            place = changed.params if key in changed.params.get(name, {}) else changed.layers
            place[name][key] = str(value)
        return changed

    def everywhere(self, **keys: str | float) -> Recipe:
        """With these keys changed in all sections that have them."""
        changed = copy.deepcopy(self)
        for section in (*changed.layers.values(), *changed.params.values()):
            section |= {key: str(value) for key, value in keys.items() if key in section}
        return changed

    def without(self, *names: str) -> Recipe:
        """Without layers: who read one reads what it read."""
        changed = copy.deepcopy(self)
        for name in names:
            below = changed.layers.pop(name)["inputs"].split(",")
            changed.params.pop(name, None)
            for keys in changed.layers.values():
                inputs = keys.get("inputs", "").split(",")
                if name in inputs:
                    connect(keys, [source for each in inputs for source in (below if each == name else [each])])
        return changed

    def unplugged(self, *names: str) -> Recipe:
        """Without layers: who read one among others reads the others."""
        changed = copy.deepcopy(self)
        for name in names:
            del changed.layers[name]
            changed.params.pop(name, None)
        for keys in changed.layers.values():
            if "inputs" in keys:
                connect(keys, [source for source in keys["inputs"].split(",") if source not in names])
        return changed

    def text(self, of: Sections) -> str:
        return "".join(f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()) for name, keys in of.items())

    def of_kind(self, kind: str) -> list[str]:
        return [name for name, keys in self.layers.items() if keys["type"] == kind]


def connect(keys: dict[str, str], inputs: list[str]) -> None:
    """Makes a layer read these, each once; lists of a value for each input get the right length."""
    before, inputs = keys["inputs"].count(","), list(dict.fromkeys(inputs))
    for key, value in keys.items():
        if value.count(",") == before > 0:
            keys[key] = ",".join((value.split(",") * len(inputs))[: len(inputs)])
    keys["inputs"] = ",".join(inputs)


def sections(path: Path) -> Sections:
    return {section.name: {value.key: value.text for value in section.keys.values()} for section in read_cfg(path)}


@dataclass(frozen=True)
class Trained:
    """A run that has ended: the file and the header of its last checkpoint, no file where it diverged."""

    path: Path | None
    header: dict
    seconds: float

    def errors(self, kind: str) -> np.ndarray:
        """(epochs done, share of errors) of its training batches ("train") or tests ("test")."""
        return np.array([(epochs, costs["logprob"][1]) for epochs, costs in self.header["history"][kind]]).reshape(-1, 2)

    @property
    def error(self) -> float:
        """That of the last test."""
        return self.header["test"]["logprob"][1] if self.path else 1.0


class Kitchen:
    """Trains recipes, each with each seed once, and keeps the checkpoints until it is closed.

    jobs: processes, each with its share of the cores. A small net is trained fastest on one core.
    """

    def __init__(self, jobs: int):
        self._folder = tempfile.TemporaryDirectory(prefix="convnet-")
        context = multiprocessing.get_context("spawn")
        shares = context.SimpleQueue()
        everything = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for job in range(jobs):
            shares.put(everything[job :: jobs])
        self._pool = ProcessPoolExecutor(jobs, context, settle, (shares,))
        self._done: dict[tuple, Future] = {}

    def __enter__(self) -> Kitchen:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def train(self, wanted: Sequence[tuple[Recipe, int, str]]) -> list[Trained]:
        """Of each recipe and seed; the text says on stderr which it is."""
        keys = [(recipe.text(recipe.layers), recipe.text(recipe.params), *recipe.words.items(), seed) for recipe, seed, _ in wanted]
        new = dict.fromkeys(key for key in keys if key not in self._done)
        for key, (recipe, seed, _) in zip(keys, wanted, strict=True):
            if key not in self._done:
                self._done[key] = self._pool.submit(run, recipe, seed, Path(self._folder.name, str(len(self._done))))
        for key, (_, seed, what) in zip(keys, wanted, strict=True):
            if key in new:
                trained = self._done[key].result()
                print(f"{what}, seed {seed}: " + (f"error {trained.error:.2%} ({trained.seconds:.1f} s)" if trained.path else "diverged"), file=sys.stderr, flush=True)
        return [self._done[key].result() for key in keys]


def settle(shares) -> None:
    """In a new process: keeps it to its share of the cores."""
    if share := shares.get():
        os.sched_setaffinity(0, share)


def run(recipe: Recipe, seed: int, folder: Path) -> Trained:
    """Trains one net; the folder gets config files, checkpoints and what convnet-train printed."""
    start = time.perf_counter()
    folder.mkdir(parents=True)
    for name, of in (("layers.cfg", recipe.layers), ("params.cfg", recipe.params)):
        (folder / name).write_text(recipe.text(of))
    words = [word for name, value in recipe.words.items() for word in (f"--{name.replace('_', '-')}", value)]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            train([str(folder / "layers.cfg"), str(folder / "params.cfg"), "--seed", str(seed), "--save-path", str(folder / "runs"), *words])
    except NotFinite:
        return Trained(None, {"history": {"train": [], "test": []}}, time.perf_counter() - start)
    finally:
        (folder / "printed.txt").write_text(printed.getvalue())
    path, _ = checkpoint.newest_valid(next((folder / "runs").iterdir()))
    if path is None:
        raise MissingInput(f"{folder}: the run left no checkpoint")
    return Trained(path, checkpoint.load(path)[0], time.perf_counter() - start)

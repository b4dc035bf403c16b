"""The options of convnet-train: from the command line, from the params file's section [convnet-train], from a checkpoint."""
# ruff: noqa: RUF009 (option() makes a dataclass field)
from __future__ import annotations

import dataclasses
import itertools
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cfgfile import Value, suggest
from .data import NOISE_RULES, parse_range
from .drops import parse_drop, parse_steps
from .errors import CommandLineError, ConfigError
from .passes import PRECISIONS

MOST_THREADS = 1024
GRAPHS = ("auto", "on", "off")
FLAG_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
THIS_TIME = {"resume", "max_steps", "log", "save_path", "save_file", "test_only", "check_grads", "plan", "profile", "trace", "timeline", "init_from", "allow_code",
             "multiview_test", "test_out", "logreg_name", "write_features", "feature_path", "data_in_memory", "loader_threads", "conv_to_local", "unshare_weights", "stages"}  # what to do now, not how to train
COMMAND_LINE_ONLY = THIS_TIME - {"max_steps", "log", "save_path", "data_in_memory", "loader_threads"} | {"strict_legacy"}


def option(default: Any, help: str, *, kind: str = "text", metavar: str = "") -> Any:
    """kind: text, int, number, flag, path, range, devices or names."""
    return field(default=default, metadata={"help": help, "kind": kind, "metavar": metavar or kind.upper()})


@dataclass
class Options:
    """Every option, with its default. An option `--data-path` is the field data_path."""

    data_path: str | None = option(None, "folder of the data batches", kind="path", metavar="DIR")
    data_provider: str | None = option(None, "image or cifar (the batches in --data-path, the default), cifar-cropped (with a border of 4), dummy:CxHxW[:CLASSES] or dummy-lr-D")
    data_in_memory: bool = option(False, "keep the batches in memory once they are read, as pixels", kind="flag")
    loader_threads: int | None = option(None, "threads that decode images, while the net trains on those before; 0: none, nothing is read ahead; default: half of the cores, "
                                              "at most 8", kind="int", metavar="N")
    train_range: list[int] | None = option(None, "batches to train on, as 1-5", kind="range")
    test_range: list[int] | None = option(None, "batches to test on, as 6", kind="range")
    epochs: int = option(50000, "times through the training batches", kind="int", metavar="N")
    max_steps: int = option(0, "stop after so many minibatches, counted from now, and save; 0: never", kind="int", metavar="N")
    test_freq: int = option(50, "test and save every N batches", kind="int", metavar="N")
    mini: int = option(128, "images in a minibatch", kind="int", metavar="N")
    wupdate_freq: int = option(1, "minibatches whose gradients are summed for one update, where a layer has no updatePeriod", kind="int", metavar="N")
    crop_border: int | None = option(None, "pixels cropped off each side of the images, at random in training, with mirroring", kind="int", metavar="N")
    inner_size: int | None = option(None, "side of the square that crops have, in place of --crop-border", kind="int", metavar="N")
    scalar_mean: float | None = option(None, "subtract this number from every pixel instead of the data's mean image; -1: the mean image", kind="number", metavar="X")
    lr_steps: str | None = option(None, "multiply all learning rates from given epochs on, as 23:0.1,51:0.1; each on top of those before", metavar="EPOCH:FACTOR,...")
    lr_drop: str | None = option(None, "plateau: divide all learning rates by 10 when the test error stops improving; plateau:patience=5,factor=10,drops=3 are "
                                       "its defaults, in tests", metavar="RULE")
    stages: str | None = option(None, "train with several params files, one after the other, in place of params.cfg: a file that lists them, with their epochs",
                                kind="path", metavar="FILE")
    images_per_crop: int = option(1, "images, one after the other in a minibatch, that are cropped and mirrored alike; the 2012 program: 32", kind="int", metavar="N")
    color_noise: float = option(0.0, "strength of the colour noise in training; the paper: 0.1", kind="number", metavar="C")
    noise_rule: str = option("program", "program: the noise has the covariance of the training images' colours, and what comes of it is divided by 1 + C; "
                                              "paper: the formula of the paper, with eigenvalues, not divided", metavar="RULE")
    save_path: str | None = option(None, "folder for the runs' folders of checkpoints; default: nothing is saved", kind="path", metavar="DIR")
    save_file: str | None = option(None, "this very folder for the checkpoints; a run that is there goes on", kind="path", metavar="DIR")
    keep: int = option(2, "checkpoints to keep, beside the best", kind="int", metavar="N")
    seed: int = option(1, "of initial weights, dropout, crops and random data", kind="int", metavar="N")
    backend: str = option("auto", "auto, cuda, host or simt; auto: cuda where there is a GPU, else host")
    gpu: list[int] | None = option(None, "the GPU of each of the config's devices 0, 1, ..., as 0,1; on host and simt any numbers", kind="devices", metavar="LIST")
    precision: str = option("exact", "exact; on host fast: convolutions with fewer multiplications and somewhat larger rounding errors; on cuda bf16x3, tf32 or bf16: products on tensor cores, of rounded operands", metavar="NAME")
    graphs: str = option("auto", "on: the steps of a minibatch are captured once, and then run by one call; off: a call each; auto: on, but on cuda", metavar="WHEN")
    streams: int = option(1, "2: on cuda and simt the gradients of weights and the updates run in a second queue of each device, beside the rest of backward", kind="int", metavar="N")
    conserve_mem: bool = option(False, "take less memory: compute some activities again in backward instead of keeping them", kind="flag")
    strict_legacy: bool = option(False, "old spellings in the config files are ignored or refused, as by the programs that were released", kind="flag")
    log: str | None = option(None, "write one JSON object a line into this file", kind="path", metavar="FILE")
    resume: str | None = option(None, "go on with the newest valid checkpoint of a run, or of the newest run in a --save-path, or with this file", kind="path", metavar="DIR")
    init_from: str | None = option(None, "begin with the weights of a checkpoint, by the names of layers or as :layer=layer,... says; where the config has initw.makew: "
                                         "those that it names, or, with `random`, random ones", metavar="CHECKPOINT")
    allow_code: bool = option(False, "run the Python functions beside the config that initWFunc, initBFunc and initCFunc name, and the CUDA sources of layers of type cuda", kind="flag")
    conv_to_local: list[str] | None = option(None, "make conv layers local ones, each pixel with a copy of the filters", kind="names", metavar="LAYERS")
    unshare_weights: list[str] | None = option(None, "give layers with weightSource a copy of the weights: as conv2, or conv2[0] for one input", kind="names", metavar="LAYERS")
    test_only: bool = option(False, "test the checkpoint of --resume and stop", kind="flag")
    test_one: bool = option(False, "test on one batch of the test range at a time, the next time on the next", kind="flag")
    multiview_test: bool = option(False, "with --test-only, average over ten views of an image: centre and corners of the crops that it was trained on, and mirrored", kind="flag")
    test_out: str | None = option(None, "write the probabilities of the images of each test batch N into test_preds_N there", kind="path", metavar="DIR")
    logreg_name: str | None = option(None, "the cost whose probabilities --test-out writes; default: the first with labels", metavar="COST")
    write_features: str | None = option(None, "write what this layer of the checkpoint of --resume computes of the test range as data batches, and stop", metavar="LAYER")
    feature_path: str | None = option(None, "folder for --write-features", kind="path", metavar="DIR")
    check_grads: bool = option(False, "compare the net's gradients with finite differences and stop", kind="flag")
    plan: bool = option(False, "print the steps of a minibatch and stop", kind="flag")
    profile: bool = option(False, "print the plan with time, GFLOP/s, GB/s and share of the peak of each step", kind="flag")
    trace: str | None = option(None, "write when each step of a minibatch ran on each device, for Perfetto", kind="path", metavar="FILE.json")
    timeline: str | None = option(None, "draw when each step of a minibatch ran on each device", kind="path", metavar="FILE.png")

    given: set[str] = field(default_factory=set)  # names that somebody set
    commanded: set[str] = field(default_factory=set)  # those of them on a command line, of this run or of the one resumed

    @classmethod
    def fields(cls) -> dict[str, dataclasses.Field]:
        return {f.name: f for f in dataclasses.fields(cls) if f.metadata}

    @property
    def profiles(self) -> bool:
        """Whether minibatches are run only to be timed."""
        return self.profile or bool(self.trace or self.timeline)

    def set(self, name: str, text: Any, where: str, base: Path | None = None) -> None:
        """Sets an option from its text; `where` names it in the message of a CommandLineError."""
        kind = self.fields()[name].metadata["kind"]
        setattr(self, name, parse_option(text, kind, where, base))
        self.given.add(name)

    def command(self, words: dict[str, Any]) -> None:
        """Takes what the command line says: name -> text, None where it says nothing."""
        for name, text in words.items():
            if text is not None:
                self.set(name, text, f"--{name.replace('_', '-')}")
        self.commanded = set(self.given)

    def update(self, stored: dict[str, Any], commanded: list[str]) -> None:
        """Takes the values of a checkpoint; those that were on its run's command line still win over the params file."""
        for name in self.fields():
            if name in stored and name not in self.given:
                setattr(self, name, stored[name])
        self.commanded |= self.stored().keys() & set(commanded)
        self.given |= self.commanded

    def stored(self) -> dict[str, Any]:
        """What a checkpoint keeps: how to train, not what to do this time. Paths hold from any folder."""
        values = {name: getattr(self, name) for name in self.fields() if name not in THIS_TIME}
        return {**values, "data_path": self.data_path and os.path.abspath(self.data_path)}

    def check(self) -> None:
        for name, least in (("epochs", 1), ("max_steps", 0), ("test_freq", 1), ("mini", 1), ("wupdate_freq", 1), ("keep", 1), ("seed", 0),
                            ("images_per_crop", 1), ("color_noise", 0)):
            if getattr(self, name) < least:
                raise CommandLineError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected {least} or more")
        if self.loader_threads is not None and not 0 <= self.loader_threads <= MOST_THREADS:
            raise CommandLineError(f"--loader-threads {self.loader_threads}: expected 0 to {MOST_THREADS}")
        parse_steps(self.lr_steps)
        parse_drop(self.lr_drop)
        if self.noise_rule not in NOISE_RULES:
            raise CommandLineError(f"--noise-rule {self.noise_rule}: expected {' or '.join(NOISE_RULES)}")
        check_precision(self.precision)
        if self.graphs not in GRAPHS:
            raise CommandLineError(f"--graphs {self.graphs}: expected {', '.join(GRAPHS)}")
        if self.streams not in (1, 2):
            raise CommandLineError(f"--streams {self.streams}: expected 1 or 2")
        if self.seed >= 2**32:
            raise CommandLineError(f"--seed {self.seed}: expected a number below {2**32}")
        if self.crop_border is not None and self.inner_size is not None and {"crop_border", "inner_size"} <= self.given:
            raise CommandLineError(f"--inner-size {self.inner_size}: expected no --crop-border beside it, for one follows from the other")
        if bool(self.write_features) != bool(self.feature_path):
            raise CommandLineError("--write-features LAYER needs --feature-path DIR, and the other way round")
        if self.logreg_name and not self.test_out:
            raise CommandLineError(f"--logreg-name {self.logreg_name}: says which cost --test-out DIR writes; expected that too")
        if self.train_range and any(a >= b for a, b in itertools.pairwise(self.train_range)):
            raise CommandLineError(f"--train-range {','.join(map(str, self.train_range))}: expected each batch once, in rising order, as checkpoints are named for them")


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise CommandLineError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")


def replays(graphs: str, backend: str) -> bool:
    """Whether a backend captures plans in graphs; auto: not cuda, where nobody has run them yet."""
    return graphs == "on" or (graphs == "auto" and backend != "cuda")


def precision_doubts(precision: str, backend: str) -> list[str]:
    """What to say where a backend does not know this precision."""
    there = PRECISIONS[precision]
    return [] if backend.split("_")[0] in there else [f"--precision {precision}: backend {backend} computes exactly; that is for {', '.join(sorted(there))}"]


def parse_option(text: Any, kind: str, where: str, base: Path | None) -> Any:
    if kind == "flag":
        if isinstance(text, bool) or text.lower() in FLAG_WORDS:
            return text if isinstance(text, bool) else FLAG_WORDS[text.lower()]
        raise CommandLineError(f"{where}={text}: expected 0 or 1")
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise CommandLineError(f"{where} {text}: expected a whole number") from None
    if kind == "number":
        try:
            if math.isfinite(number := float(text)):
                return number
        except ValueError:
            pass
        raise CommandLineError(f"{where} {text}: expected a number")
    if kind == "names":
        return [word.strip() for word in text.split(",") if word.strip()]
    if kind == "range":
        return parse_range(text, where)
    if kind == "devices":
        words = text.split(",")
        if not all(word.strip().isdigit() for word in words):
            raise CommandLineError(f"{where} {text}: expected numbers of devices such as 0,1")
        return [int(word) for word in words]
    if kind == "path":
        return str((base or Path()) / Path(text).expanduser()) if text else None
    return text


def read_options_section(options: Options, section: dict[str, Value], params_file: str) -> None:
    """Takes the keys of [convnet-train] that the command line did not set; paths are relative to the file."""
    names = {name.replace("_", ""): name for name in Options.fields()}
    for key, value in section.items():
        where = f"{params_file}:{value.line}: [convnet-train] {value.key}"
        name = names.get(key.replace("-", ""))
        if name is None or name in COMMAND_LINE_ONLY:
            known = [known.replace("_", "-") for known in Options.fields()]
            raise ConfigError(f"{where}: no such option{suggest(value.key, known)}")
        if name in options.given:
            continue
        try:
            options.set(name, value.text, where, Path(params_file).resolve().parent)
        except CommandLineError as error:
            raise ConfigError(str(error)) from None

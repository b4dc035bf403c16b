"""Several params files in one run: a file that says which of them holds for how many epochs.

    [high]                    the stages in order; their names are for the reader
    params=params-high.cfg    relative to this file
    epochs=23
    [low]
    params=params-low.cfg
    epochs=28

A schedule of learning rates spans its stage. The options in [convnet-train] are those of the first file.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cfgfile import read_cfg, read_text, suggest
from .config import Config, parse_config
from .errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """The epochs `first` to `last` of a run, and the net with the rates and other params that hold in them."""

    name: str
    first: int
    last: int
    config: Config

    def stored(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"name": self.name, "epochs": self.last - self.first + 1, "params_file": self.config.params_file, "params_text": self.config.params_text}


def read_stages(path: str) -> list[dict[str, Any]]:
    """The stages that a file lists, as checkpoints keep them. Raises MissingInput and ConfigError."""
    stages = []
    for section in read_cfg(path):
        where = f"{path}:{section.line}: [{section.name}]"
        for key, value in section.keys.items():
            if key not in ("params", "epochs"):
                raise ConfigError(f"{path}:{value.line}: [{section.name}] {value.key}: expected params=FILE and epochs=N{suggest(value.key, ['params', 'epochs'])}")
        if section.keys.keys() != {"params", "epochs"}:
            raise ConfigError(f"{where} expected both params=FILE and epochs=N")
        epochs, params = section.keys["epochs"].text, section.keys["params"].text
        if not (epochs.isascii() and epochs.isdigit() and 0 < int(epochs) < 10**9):
            raise ConfigError(f"{path}:{section.keys['epochs'].line}: [{section.name}] epochs={epochs}: expected a number of 1 or more")
        file = str(Path(path).parent / Path(params).expanduser())
        stages.append({"name": section.name, "epochs": int(epochs), "params_file": file, "params_text": read_text(file)})
    if not stages:
        raise ConfigError(f"{path}: no stages; expected a section for each, with params=FILE and epochs=N")
    return stages


def make_stages(listed: list[dict[str, Any]], layers_text: str, layers_file: str, strict: bool) -> list[Stage]:
    """The net of each of the stages that `read_stages` or a checkpoint lists."""
    stages, first = [], 1
    for each in listed:
        config = parse_config(layers_text, each["params_text"], layers_file, each["params_file"], strict)
        stages.append(Stage(each["name"], first, first + each["epochs"] - 1, config))
        first += each["epochs"]
    return stages


def stage_at(stages: list[Stage], epoch: int) -> Stage:
    """That of an epoch; the last one goes on beyond its end."""
    return next((stage for stage in stages if epoch <= stage.last), stages[-1])

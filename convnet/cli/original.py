"""The command lines of cuda-convnet, the 2012 program and cuda-convnet2 where they differ from ours (SEMANTICS 4.1)."""
from __future__ import annotations

import argparse
import os
import sys

from ..errors import CommandLineError
from ..options import FLAG_WORDS, Options

# Options that mean nothing here: accepted, and told.
WITHOUT_MEANING = {
    "num-gpus": "the config files say which devices there are, and --gpu which GPUs these are",
    "max-filesize": "--keep says how many checkpoints are kept",
    "zip-save": "checkpoints are not packed",
    "force-save": "a run that stops always saves",
    "pca-noise": "the 2012 program did not use it either",
}
# Providers of the originals by the names of ours that give the same; of dummies, what stands before the number of values.
PROVIDERS = {"dummy-cn": "dummy-lr", "dummy-ce": "dummy-lr", "dummy-labeled": "dummy-lr", "inet-lr": "image", "flatmem": "cifar",
             "inet-lr-cropped": "cifar-cropped", "inet-lr-cropped-jpeg": "cifar-cropped", "flickr-ce-cropped": "cifar-cropped"}


def add_original_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the originals' words", "Every option may be given as --option=value; flags as --plan, --plan=1 or --plan=0.")
    group.add_argument("--layer-def", metavar="FILE", help="the first of the two files")
    group.add_argument("--layer-params", metavar="FILE", help="the second of them; with --resume it may stand alone")
    group.add_argument("--layer-path", metavar="DIR", help="folder of both")
    group.add_argument("--load-file", metavar="DIR", help="--resume")
    for name, why in WITHOUT_MEANING.items():
        group.add_argument(f"--{name}", metavar="N", help=f"ignored: {why}")


def spelled_flags(argv: list[str] | None) -> list[str]:
    """A command line's words; `--plan=1`, `--plan 1` and `--pla=1` as `--plan`, with 0 as `--no-plan`."""
    result: list[str] = []
    flag = ""  # the word before, where it was one without a value
    for word in sys.argv[1:] if argv is None else argv:
        if flag and word.lower() in FLAG_WORDS:
            result[-1], flag = valued(flag, word), ""
            continue
        name, equals, value = word.partition("=")
        flag = flag_of(name)
        if flag and equals:
            word, flag = valued(flag, value), ""
        result.append(word)
    return result


def valued(flag: str, value: str) -> str:
    if value.lower() not in FLAG_WORDS:
        raise CommandLineError(f"--{flag}={value}: expected 0 or 1")
    return f"--{flag}" if FLAG_WORDS[value.lower()] else f"--no-{flag}"


def flag_of(word: str) -> str:
    """The flag that a word means, which may be the beginning of it; "": none."""
    names = {name.replace("_", "-"): field.metadata["kind"] for name, field in Options.fields().items()}
    near = [name for name in names if word.startswith("--") and name.startswith(word[2:])]
    meant = word[2:] if word[2:] in near else near[0] if len(near) == 1 else ""
    return meant if names.get(meant) == "flag" else ""


def take_original_words(words: dict[str, str | None]) -> tuple[str | None, str | None, list[str]]:
    """Takes the originals' words out of those of a command: the two config files, and what to tell about the others."""
    told = [f"--{name} is ignored: {why}" for name, why in WITHOUT_MEANING.items() if words.pop(name.replace("-", "_")) is not None]
    layers, params, folder = words.pop("layers_cfg"), words.pop("params_cfg"), words.pop("layer_path") or ""
    for option, file in (("layer_def", layers), ("layer_params", params)):
        if words[option] is not None and file is not None:
            raise CommandLineError(f"--{option.replace('_', '-')} {words[option]}: expected no config file beside it, found {file}")
    layer_def, layer_params = (path and os.path.join(folder, path) for path in (words.pop("layer_def"), words.pop("layer_params")))
    if (load := words.pop("load_file")) is not None:
        if words["resume"] is not None:
            raise CommandLineError("--load-file is --resume; expected one of them")
        words["resume"] = load
    if name := words["data_provider"]:
        kind, _, values = name.rpartition("-")
        words["data_provider"] = PROVIDERS.get(name, name) if kind not in PROVIDERS or not values.isdigit() else f"{PROVIDERS[kind]}-{values}"
    return layers or layer_def, params or layer_params, told

"""The reference of the config language, from the fields of the layer classes.

    python -m convnet.reference > docs/config.md
"""
from __future__ import annotations

import dataclasses
import typing

from .config import spelled
from .layers import LAYERS, Layer

KINDS = {int: "whole number", float: "number", str: "text", bool: "0 or 1"}
INTRODUCTION = """# The config language

Made by `python -m convnet.reference` from the fields of the layer classes in `convnet/layers/`.

Two files in cuda-convnet's language describe a net: the layers file has a section `[name]` with a key `type=` for each
layer, in order; the params file has a section of the same name for each layer that learns, drops, normalizes or is a
cost. Keys may be written in any case, with or without underscores. Lists are comma-separated, one value for each
input; a list of one value serves all inputs. `neuron=` on any layer makes a layer `<name>_neuron` behind it.
A section `[convnet-train]` of the params file holds options of the command.
"""


def kind_of(hint: typing.Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"list, {KINDS[typing.get_args(hint)[0]]}"
    return KINDS[hint]


def default_of(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return ",".join(str(int(value)) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def table(cls: type[Layer], names: list[str]) -> list[str]:
    hints = typing.get_type_hints(cls)
    rows = ["| key | file | value | default | meaning |", "|---|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        if field.name in names:
            file = "either" if field.metadata["either"] else "params" if field.metadata["params"] else "layers"
            rows.append(f"| {spelled(field.name)} | {file} | {kind_of(hints[field.name])} | {default_of(field)} | {field.metadata['help']} |")
    return rows


def keys(cls: type[Layer]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.metadata.get("key")]


def reference() -> str:
    common = keys(Layer)
    lines = [INTRODUCTION, "## Every layer", "", *table(Layer, common), ""]
    for cls in dict.fromkeys(LAYERS.values()):
        kinds = ", ".join(kind for kind, other in LAYERS.items() if other is cls)
        own = [name for name in keys(cls) if name not in common]
        lines += [f"## {kinds}", "", *(line.strip() for line in (cls.__doc__ or "").strip().splitlines()), ""]
        lines += [*table(cls, own), ""] if own else []
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    print(reference())

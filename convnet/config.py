"""Two config files -> layers. The fields of the layer classes are the grammar; every error is told at once."""
from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .cfgfile import MAX_TOLD, Section, Value, normalise, parse_cfg, read_text, shown, suggest
from .errors import ConfigError
from .layers import LAYERS, BadKey, Layer
from .layers.data import Data, Rows
from .layers.dropout import Dropout
from .layers.neuron import NeuronLayer, parse_neuron
from .layers.weights import WeightLayer
from .schedule import split_list, with_names

# Types that the programs of the family know and this one does not yet.
KNOWN_TYPES = ("cost.tica", "cost.msm")
# Types that it will not have, and why.
REFUSED_TYPES = {
    "sum": "it never ran in the originals; expected eltsum, which adds its inputs",
    "cost.crossent": "it never ran in the originals, for its gradient is not computed; expected cost.logreg, or cost.bce for several labels an image",
    "cost.dce": "its numbers are counts of each class, which have no mean; expected cost.bce, which has the same gradient",
}
# Old keys of the params file -> the keys that say what their authors meant.
OLD_KEYS = {"sched": ("schedW", "schedB"), "wcnorm": ("wcNormMax",)}
V2_TYPES = {"sfc", "pass", "dropout", "dropout2", "cmpool", "crop", "cost.bce", "cost.dce"}
MAX_INPUTS = 1000
MAX_DEVICES = 64
OPTIONS_SECTION = "convnet-train"  # of the params file: long option names of the command


@dataclass
class Config:
    """A net as its two files describe it; the texts go into checkpoints."""

    layers: list[Layer]
    options: dict[str, Value]
    layers_text: str
    params_text: str
    layers_file: str
    params_file: str
    warnings: list[str] = field(default_factory=list)
    dialect: str = "A12"  # see dialect_of
    dialect_reason: str = ""


def read_config(layers_path: str | Path, params_path: str | Path, strict_legacy: bool = False) -> Config:
    """Reads both files. Raises MissingInput, and ConfigError with every error found."""
    return parse_config(read_text(layers_path), read_text(params_path), str(layers_path), str(params_path), strict_legacy)


def parse_config(layers_text: str, params_text: str, layers_file: str = "layers.cfg", params_file: str = "params.cfg",
                 strict_legacy: bool = False) -> Config:
    """The net of two texts. `strict_legacy`: old spellings are ignored or refused, as by the programs that were released."""
    return _Parser(layers_text, params_text, layers_file, params_file, strict_legacy).config


def dialect_of(sections: Iterable[Section]) -> tuple[str, str]:
    """Whose language the sections of both files are in, and the line that says so: A12 where nothing does.

    V2, cuda-convnet2's, by a key, a spelling or a type that it alone has; V1 by a key that only cuda-convnet 1 has.
    """
    old = ""
    for section in sections:
        for name, value in section.keys.items():
            if (name == "sumwidth" or re.search(r"\[\s*base\s*=", value.text) or (name == "gpu" and "," in value.text)
                    or (name == "type" and value.text in V2_TYPES)):
                return "V2", place_of(section, value)
            if name == "dropout":
                old = old or place_of(section, value)
    return ("V1", old) if old else ("A12", "")


def place_of(section: Section, value: Value) -> str:
    return f"{section.file}:{value.line}: [{section.name}] {value.key}={shown(value.text)}"


class _Parser:
    def __init__(self, layers_text: str, params_text: str, layers_file: str, params_file: str, strict: bool):
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.params_file, self.strict = params_file, strict
        self.params = {section.name: section for section in self.sections(params_text, params_file)}
        sections = self.sections(layers_text, layers_file)
        if self.errors:
            raise ConfigError("\n".join(self.errors))
        self.dialect, reason = dialect_of([*sections, *self.params.values()])
        options = self.params.pop(OPTIONS_SECTION, None)

        layers: list[Layer] = []
        self.names: set[str] = set()  # of the layers above, costs left out
        self.failed: set[str] = set()  # what reads one of these is not told about it again
        for section in sections:
            if (made := self.layer(section, layers)) is not None:
                layers.append(made)
                self.names |= set() if made.is_cost else {made.name}
            else:
                self.failed.add(section.name)
        self.check_names(sections, layers)
        if not sections:
            self.errors.append(f"{layers_file}: no layer; expected sections [name] with a key type=")
        if self.errors:
            raise ConfigError("\n".join(self.errors))
        self.config = Config(split_keys(layers), options.keys if options else {}, layers_text, params_text, layers_file, params_file,
                             self.warnings, self.dialect, reason)

    def sections(self, text: str, file: str) -> list[Section]:
        try:
            return parse_cfg(text, file)
        except ConfigError as error:
            self.errors.append(str(error))
            return []

    def error(self, where: str, section: str, message: str) -> None:
        self.tell(self.errors, "errors", f"{where}: [{section}] {shown(message, 1000)}")

    def warn(self, where: str, section: str, message: str) -> None:
        self.tell(self.warnings, "warnings", f"{where}: [{section}] {shown(message, 1000)}")

    def tell(self, texts: list[str], kind: str, text: str) -> None:
        if len(texts) < MAX_TOLD:
            texts.append(text)
        elif len(texts) == MAX_TOLD:
            texts.append(f"and more {kind}")

    def respelled(self, source: Section, cls: type[Layer]) -> dict[str, Value]:
        """The keys of a section of the params file, old ones as what their authors meant."""
        keys = dict(source.keys)
        for old, meant in OLD_KEYS.items() if issubclass(cls, WeightLayer) else ():
            if (value := keys.pop(old, None)) is None:
                continue
            place, new = f"{source.file}:{value.line}", [key for key in meant if normalise(key) not in keys]
            if self.strict or not new:
                why = "as by the released program (--strict-legacy)" if self.strict else f"for there is {' and '.join(meant)}"
                self.warn(place, source.name, f"{value.key}={value.text}: an old key, ignored, {why}")
                continue
            text = with_names(value.text) if old == "sched" else value.text
            self.warn(place, source.name, f"{value.key}={value.text}: an old key, read as {' and '.join(f'{key}={text}' for key in new)}")
            keys |= {normalise(key): dataclasses.replace(value, key=key, text=text) for key in new}
        return keys

    def keys_of(self, section: Section, params: Section | None, cls: type[Layer], fields: dict[str, dataclasses.Field]) -> list[tuple[str, str, Value]]:
        """(file:line, normalised name, value) of the keys that count; those of the params file last, for they win."""
        found = []
        for name, value in section.keys.items():
            place = f"{section.file}:{value.line}"
            if name == "type" or (name == "neuron" and name not in fields):
                continue  # neuron= becomes a layer of its own
            if name in fields and fields[name].metadata["params"] and not value.from_default:
                if self.strict:
                    self.warn(place, section.name, f"{value.key}= belongs in the params file; ignored, as by the released program (--strict-legacy)")
                    continue
                self.warn(place, section.name, f"{value.key}= belongs in the params file; taken from here")
            found.append((place, name, value))
        for name, value in (self.respelled(params, cls) if params else {}).items():
            place = f"{params.file}:{value.line}"
            if name in fields and not fields[name].metadata["params"] and not fields[name].metadata["either"]:
                if not value.from_default:
                    self.warn(place, section.name, f"{value.key}= belongs in the layers file and is ignored")
                continue
            found.append((place, name, value))
        return found

    def layer(self, section: Section, above: list[Layer]) -> Layer | None:
        """The layer that a section describes; None, and errors noted, where it describes none."""
        where = f"{section.file}:{section.line}"
        kind = section.keys.get("type")
        if kind is None:
            self.error(where, section.name, f"no type=, expected one of {', '.join(LAYERS)}")
            return None
        if kind.text not in LAYERS:
            why = REFUSED_TYPES.get(kind.text, "a type that cuda-convnet knows and this program does not have yet" if kind.text in KNOWN_TYPES
                                    else "no such layer type" + suggest(kind.text, LAYERS))
            self.error(f"{section.file}:{kind.line}", section.name, f"type={kind.text}: {why}")
            return None
        cls = LAYERS[kind.text]
        hints, fields = grammar(cls)
        params = self.params.get(section.name)
        required = [name for name, f in fields.items() if f.metadata["params"] and f.default is dataclasses.MISSING]
        there = not self.strict and required and all(name in section.keys for name in required)  # as before 2011
        if params is None and cls.needs_params and not there:
            wanted = ", ".join(spelled(f.name) for f in fields.values() if f.metadata["params"] and f.name not in Layer.__dataclass_fields__)
            self.error(where, section.name, f"no section [{section.name}] in {self.params_file}; a layer of type {kind.text} needs one, with {wanted}")
            return None

        values: dict[str, typing.Any] = {}
        places: dict[str, tuple[str, str]] = {}  # field -> file:line and the key as it is spelled there
        errors = len(self.errors)
        for place, name, value in self.keys_of(section, params, cls, fields):
            if name not in fields:
                self.unknown_key(place, section.name, kind.text, value, fields)
                continue
            attribute, limits = fields[name].name, fields[name].metadata
            places[attribute] = place, value.key
            try:
                values[attribute] = convert(value.text, hints[attribute])
                if values[attribute] == () != fields[name].default:
                    raise ValueError("expected a value for each input, or one for all")
                check_limits(values[attribute], limits["choices"], limits["least"])
            except ValueError as error:
                values[attribute] = None  # not missing
                self.error(place, section.name, f"{value.key}={value.text}: {error}")

        missing = [f for f in fields.values() if f.default is dataclasses.MISSING and f.name not in values]
        if "neuron" in section.keys and "neuron" not in fields:
            try:
                parse_neuron(section.keys["neuron"].text or "ident")
            except ValueError as error:
                self.error(f"{section.file}:{section.keys['neuron'].line}", section.name, str(error))
        for source, belong in ((section, [f for f in missing if not f.metadata["params"]]), (params or section, [f for f in missing if f.metadata["params"]])):
            if belong:
                self.error(f"{source.file}:{source.line}", section.name,
                           f"no {', '.join(f'{spelled(f.name)}=' for f in belong)}; a layer of type {kind.text} needs {'it' if len(belong) == 1 else 'them'} here")
        if missing or len(self.errors) > errors:
            return None

        layer = cls(name=section.name, kind=kind.text, where=where, strict_legacy=self.strict, dialect=self.dialect, **values)
        if layer.gpu == (-1,):
            layer.gpu = ()  # the default, spelled out
        elif min(layer.gpu, default=0) < 0:
            self.error(places["gpu"][0], section.name, f"{places['gpu'][1]}={','.join(map(str, layer.gpu))}: expected 0 or more")
            return None
        if not self.check_inputs(layer, above, places.get("inputs", (where,))[0]):
            return None
        if not self.expand_lists(layer, hints, places):
            return None
        if "neuron" in section.keys and not isinstance(layer, NeuronLayer):
            layer.split_neuron = section.keys["neuron"]
        try:
            if not 0 <= layer.dropout < 1 or (layer.dropout and layer.is_cost):
                raise BadKey("dropout", f"found {layer.dropout:g}, expected " + ("none in a cost" if layer.is_cost else "0 or more, and below 1"))
            layer.check()
        except BadKey as error:
            place, key = places[error.field_name]
            self.error(place, section.name, f"{key}: {error}")
            return None
        except ValueError as error:
            self.error(where, section.name, str(error))
            return None
        for field_name, text in layer.warnings:
            place, key = places[field_name]
            self.warn(place, section.name, f"{key}: {text}")
        return layer

    def unknown_key(self, place: str, section: str, kind: str, value: Value, fields: dict) -> None:
        if value.from_default:
            return
        hint = suggest(value.key, [spelled(f.name) for f in fields.values()]) if len(self.warnings) < MAX_TOLD else ""
        self.warn(place, section, f"{shown(value.key)}= means nothing to a layer of type {kind} and is ignored{hint}")

    def check_inputs(self, layer: Layer, above: list[Layer], place: str) -> bool:
        count = layer.input_count
        if (count is None and not layer.inputs) or (count is not None and len(layer.inputs) != count):
            wanted = "one or more" if count is None else str(count)
            found = f"{len(layer.inputs)} inputs" if layer.inputs else "no inputs"
            self.error(place, layer.name, f"inputs={','.join(layer.inputs)}: {found}, expected {wanted}")
            return False
        if len(layer.inputs) > MAX_INPUTS or len(layer.gpu) > MAX_DEVICES:
            self.error(place, layer.name, f"{len(layer.inputs)} inputs, {len(layer.gpu)} devices, expected at most {MAX_INPUTS} and {MAX_DEVICES}")
            return False
        if self.failed & set(layer.inputs):
            return False
        for name in layer.inputs:
            if name not in self.names:
                names = [other.name for other in above if not other.is_cost] + sorted(self.failed)
                if name in [other.name for other in above]:
                    self.error(place, layer.name, f"inputs={name}: a cost, which no layer can read; expected one of {', '.join(names)}")
                    return False
                self.error(place, layer.name, f"inputs={name}: no layer of that name above it{suggest(name, names)}")
                return False
        return True

    def expand_lists(self, layer: Layer, hints: dict, places: dict[str, tuple[str, str]]) -> bool:
        """Lists have one value for each input; a list of one serves all."""
        for f in dataclasses.fields(layer):
            if not f.metadata.get("key") or f.name in ("inputs", "gpu") or typing.get_origin(hints[f.name]) is not tuple:
                continue
            values = getattr(layer, f.name)
            if len(values) == 1:
                setattr(layer, f.name, values * len(layer.inputs))
            elif values and len(values) != len(layer.inputs):
                place, key = places[f.name]
                count = f"{len(layer.inputs)} input{'s' if len(layer.inputs) > 1 else ''}"
                self.error(place, layer.name, f"{key}: {len(values)} values for {count}, expected one for each, or one for all")
                return False
        return True

    def check_names(self, sections: list[Section], layers: list[Layer]) -> None:
        names = [section.name for section in sections]
        known = set(names)
        for name, params in self.params.items():
            if name not in known:
                hint = suggest(name, names[:MAX_TOLD]) if len(self.warnings) < MAX_TOLD else ""
                self.tell(self.warnings, "warnings", f"{params.file}:{params.line}: [{name}]: no layer of that name{hint}")
        if self.errors:
            return  # what a layer with errors reads would be called unused
        for layer in layers:
            made = [f"{layer.name}_grad"] + [f"{layer.name}_dropout"] * bool(layer.dropout) + [f"{layer.name}_neuron"] * hasattr(layer, "split_neuron") + [f"{layer.name}_rows"] * has_rows(layer)
            for name in set(made) & known:
                self.error(layer.where, layer.name, f"there is another layer [{name}], a name that the program makes itself for this one; expected another name")
        read = {name for layer in layers for name in layer.inputs}
        for layer in layers:
            if not layer.is_cost and layer.name not in read:
                self.error(layer.where, layer.name, f"a layer of type {layer.kind} that no other layer reads; expected its name in the inputs of a layer below")
        if layers and not any(layer.is_cost for layer in layers):
            self.errors.append(f"{sections[-1].file}: no cost; expected a layer of type cost.logreg")


def has_rows(layer: Layer) -> bool:
    """Whether it reads a part of the data."""
    return isinstance(layer, Data) and bool(layer.start or layer.end)


def split_keys(layers: list[Layer]) -> list[Layer]:
    """`dropout=` and `neuron=` of a layer become layers <name>_dropout and <name>_neuron behind it, `start=` and `end=` of data <name>_rows.

    Its readers read the last of them.
    """
    result: list[Layer] = []
    renamed: dict[str, str] = {}
    for layer in layers:
        layer.inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        result.append(layer)
        common = {"where": layer.where, "quant_f": layer.quant_f, "quant_b": layer.quant_b, "dialect": layer.dialect}
        neuron = getattr(layer, "split_neuron", None)
        if has_rows(layer):
            gpu = next((reader.gpu for reader in layers if layer.name in reader.inputs), ())
            result.append(Rows(name=f"{layer.name}_rows", kind="rows", inputs=(layer.name,), gpu=gpu, start=layer.start, end=layer.end, **common))
        if layer.dropout:
            result.append(Dropout(name=f"{layer.name}_dropout", kind="hs", inputs=(result[-1].name,), keep=1 - layer.dropout, **common))
        if neuron is not None and neuron.text not in ("", "ident"):
            result.append(NeuronLayer(name=f"{layer.name}_neuron", kind="neuron", inputs=(result[-1].name,), neuron=neuron.text, **common))
        renamed[layer.name] = result[-1].name
    return result


@functools.cache
def grammar(cls: type[Layer]) -> tuple[dict[str, typing.Any], dict[str, dataclasses.Field]]:
    """The types of a class's fields by name, and those fields that are keys by normalised name."""
    return typing.get_type_hints(cls), {normalise(f.name): f for f in dataclasses.fields(cls) if f.metadata.get("key")}


def convert(text: str, kind: type) -> typing.Any:
    """A value's text as the type of its field; ValueError says what was expected."""
    if typing.get_origin(kind) is tuple:
        return tuple(convert(item, typing.get_args(kind)[0]) for item in split_list(text))
    if kind is bool:
        words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
        if text.lower() not in words:
            raise ValueError("expected 0 or 1")
        return words[text.lower()]
    if kind is int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise ValueError("expected a whole number")
        if len(text) > 11 or abs(int(text)) >= 2**31:
            raise ValueError(f"expected a number below {2**31}")
        return int(text)
    if kind is float:
        try:
            number = float(text.replace("_", "no number"))
        except ValueError:
            raise ValueError("expected a number") from None
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError("expected a finite number")
        return number
    return text


def check_limits(value: typing.Any, choices: tuple[str, ...], least: int | None) -> None:
    """ValueError where a value, or one of a list, is not among the choices or less than the least."""
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        if least is not None and item < least:
            raise ValueError(f"expected {least} or more")


def spelled(name: str) -> str:
    """A field's name as configs spell it: filter_size -> filterSize."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)

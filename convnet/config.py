"""Two config files -> layers. The fields of the layer classes are the grammar; every error is told at once."""
from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path

from .cfgfile import Section, Value, normalise, parse_cfg, read_text, suggest
from .errors import ConfigError
from .layers import LAYERS, BadKey, Layer
from .layers.neuron import NeuronLayer
from .layers.weights import NOT_BUILT, WeightLayer
from .schedule import split_list

# Types that the programs of the family know and this one does not yet.
KNOWN_TYPES = ("cost.tica", "cost.msm")
# Types that it will not have, and why.
REFUSED_TYPES = {
    "sum": "it never ran in the originals; expected eltsum, which adds its inputs",
    "cost.crossent": "it never ran in the originals, for its gradient is not computed; expected cost.logreg, or cost.bce for several labels an image",
    "cost.dce": "its numbers are counts of each class, which have no mean; expected cost.bce, which has the same gradient",
}
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


def read_config(layers_path: str | Path, params_path: str | Path) -> Config:
    """Reads both files. Raises MissingInput, and ConfigError with every error found."""
    return parse_config(read_text(layers_path), read_text(params_path), str(layers_path), str(params_path))


def parse_config(layers_text: str, params_text: str, layers_file: str = "layers.cfg", params_file: str = "params.cfg") -> Config:
    return _Parser(layers_text, params_text, layers_file, params_file).config


class _Parser:
    def __init__(self, layers_text: str, params_text: str, layers_file: str, params_file: str):
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.params_file = params_file
        self.params = {section.name: section for section in parse_cfg(params_text, params_file)}
        sections = parse_cfg(layers_text, layers_file)
        options = self.params.pop(OPTIONS_SECTION, None)

        layers: list[Layer] = []
        self.failed: set[str] = set()  # what reads one of these is not told about it again
        for section in sections:
            if (made := self.layer(section, layers)) is not None:
                layers.append(made)
            else:
                self.failed.add(section.name)
        self.check_names(sections, layers)
        if not sections:
            self.errors.append(f"{layers_file}: no layer; expected sections [name] with a key type=")
        if self.errors:
            raise ConfigError("\n".join(self.errors))
        self.config = Config(split_neurons(layers), options.keys if options else {}, layers_text, params_text, layers_file, params_file, self.warnings)

    def error(self, where: str, section: str, message: str) -> None:
        self.errors.append(f"{where}: [{section}] {message}")

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
        hints = typing.get_type_hints(cls)
        fields = {normalise(f.name): f for f in dataclasses.fields(cls) if f.metadata.get("key")}
        params = self.params.get(section.name)
        if params is None and cls.needs_params:
            wanted = ", ".join(spelled(f.name) for f in fields.values() if f.metadata["params"] and f.name not in Layer.__dataclass_fields__)
            self.error(where, section.name, f"no section [{section.name}] in {self.params_file}; a layer of type {kind.text} needs one, with {wanted}")
            return None

        values: dict[str, typing.Any] = {}
        places: dict[str, tuple[str, str]] = {}  # field -> file:line and the key as it is spelled there
        for source in filter(None, (section, params)):
            for name, value in source.keys.items():
                place = f"{source.file}:{value.line}"
                if source is section and (name == "type" or (name == "neuron" and "neuron" not in fields)):
                    continue  # neuron= becomes a layer of its own
                if name not in fields:
                    self.unknown_key(place, section.name, cls, kind.text, value, fields)
                    continue
                if source is section and fields[name].metadata["params"]:
                    self.warnings.append(f"{place}: [{section.name}] {value.key}= belongs in the params file; taken from here")
                attribute, limits = fields[name].name, fields[name].metadata
                places[attribute] = place, value.key
                try:
                    values[attribute] = convert(value.text, hints[attribute])
                    check_limits(values[attribute], limits["choices"], limits["least"])
                except ValueError as error:
                    self.error(place, section.name, f"{value.key}={value.text}: {error}")
                    return None

        missing = [f for f in fields.values() if f.default is dataclasses.MISSING and f.name not in values]
        for source, belong in ((section, [f for f in missing if not f.metadata["params"]]), (params, [f for f in missing if f.metadata["params"]])):
            if belong:
                self.error(f"{source.file}:{source.line}", section.name,
                           f"no {', '.join(f'{spelled(f.name)}=' for f in belong)}; a layer of type {kind.text} needs {'it' if len(belong) == 1 else 'them'} here")
        if missing:
            return None

        layer = cls(name=section.name, kind=kind.text, where=where, **values)
        if not self.check_inputs(layer, above, places.get("inputs", (where,))[0]):
            return None
        if not self.expand_lists(layer, hints, places):
            return None
        if "neuron" in section.keys and not isinstance(layer, NeuronLayer):
            layer.split_neuron = section.keys["neuron"]
        try:
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
            self.warnings.append(f"{place}: [{section.name}] {key}: {text}")
        return layer

    def unknown_key(self, place: str, section: str, cls: type[Layer], kind: str, value: Value, fields: dict) -> None:
        if value.from_default:
            return
        not_built = {normalise(name): default for name, default in NOT_BUILT.items()}
        if issubclass(cls, WeightLayer) and normalise(value.key) in not_built:
            harmless = not_built[normalise(value.key)]
            if all(is_same(word, harmless) for word in value.text.split(",")):
                return
            self.error(place, section, f"{value.key}={value.text}: a key that cuda-convnet knows and this program does not have yet"
                       + (f"; expected {value.key}={harmless}" if harmless else "; expected none"))
            return
        known = [spelled(f.name) for f in fields.values()]
        self.warnings.append(f"{place}: [{section}] {value.key}= means nothing to a layer of type {kind} and is ignored{suggest(value.key, known)}")

    def check_inputs(self, layer: Layer, above: list[Layer], place: str) -> bool:
        count = layer.input_count
        if (count is None and not layer.inputs) or (count is not None and len(layer.inputs) != count):
            wanted = "one or more" if count is None else str(count)
            found = f"{len(layer.inputs)} inputs" if layer.inputs else "no inputs"
            self.error(place, layer.name, f"inputs={','.join(layer.inputs)}: {found}, expected {wanted}")
            return False
        if self.failed & set(layer.inputs):
            return False
        names = [other.name for other in above if not other.is_cost] + sorted(self.failed)
        for name in layer.inputs:
            if name not in names:
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
        for name, params in self.params.items():
            if name not in names:
                self.warnings.append(f"{params.file}:{params.line}: [{name}]: no layer of that name{suggest(name, names)}")
        if self.errors:
            return  # what a layer with errors reads would be called unused
        for layer in layers:
            made = [f"{layer.name}_grad"] + ([f"{layer.name}_neuron"] if getattr(layer, "split_neuron", None) else [])
            for name in set(made) & set(names):
                self.error(layer.where, layer.name, f"there is another layer [{name}], a name that the program makes itself for this one; expected another name")
        read = {name for layer in layers for name in layer.inputs}
        for layer in layers:
            if not layer.is_cost and layer.name not in read:
                self.error(layer.where, layer.name, f"a layer of type {layer.kind} that no other layer reads; expected its name in the inputs of a layer below")
        if layers and not any(layer.is_cost for layer in layers):
            self.errors.append(f"{sections[-1].file}: no cost; expected a layer of type cost.logreg")


def split_neurons(layers: list[Layer]) -> list[Layer]:
    """`neuron=` of a layer becomes a layer <name>_neuron behind it, which its readers read."""
    result: list[Layer] = []
    renamed: dict[str, str] = {}
    for layer in layers:
        layer.inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        result.append(layer)
        neuron = getattr(layer, "split_neuron", None)
        if neuron is None or neuron.text in ("", "ident"):
            continue
        split = NeuronLayer(name=f"{layer.name}_neuron", kind="neuron", inputs=(layer.name,), neuron=neuron.text, where=layer.where,
                            quant_f=layer.quant_f, quant_b=layer.quant_b)
        try:
            split.check()
        except ValueError as error:
            raise ConfigError(f"{layer.where.rsplit(':', 1)[0]}:{neuron.line}: [{layer.name}] {error}") from None
        renamed[layer.name] = split.name
        result.append(split)
    return result


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
        try:
            return int(text)
        except ValueError:
            raise ValueError("expected a whole number") from None
    if kind is float:
        try:
            number = float(text)
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


def is_same(word: str, other: str) -> bool:
    try:
        return float(word) == float(other)
    except ValueError:
        return word.strip() == other


def spelled(name: str) -> str:
    """A field's name as configs spell it: filter_size -> filterSize."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)

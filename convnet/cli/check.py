"""convnet-check: says what the net of two config files is."""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from math import prod
from pathlib import Path
from typing import Any

from .. import __version__
from ..backends import choose_backend
from ..census import connections, crossings, multiply_adds, neurons, parameters
from ..config import Config, read_config
from ..data import Provider, default_provider, open_provider
from ..drawing import draw
from ..drops import factor_at, parse_steps
from ..errors import CannotCreate, CommandLineError
from ..graph import Graph, Node, listed
from ..layers import describe
from ..net import DataSpec, Net
from ..options import Options, read_options_section
from ..reference import reference
from ..wanted import label_kind, net_classes, suitable_provider
from . import run_command
from .train import add_options, doubts, open_devices

OPTIONS = ["data_path", "data_provider", "train_range", "epochs", "mini", "crop_border", "inner_size", "lr_steps", "lr_drop", "backend", "gpu", "precision", "conserve_mem", "strict_legacy"]
DIALECTS = {
    "A12": "the 2012 program's: wball=N limits a filter's norm to N times the weights of a filter",
    "V2": "cuda-convnet2's: wball=N sets a filter's norm to N; gpu lists are replicas; schedules stand in epsW and epsB",
    "V1": "cuda-convnet 1's, in dnouri's fork: dropout=P drops units with probability P, and tests with 1 - P",
}
# What the originals do and a reader of a config may not expect.
RULES = {
    ("conv", "local", "pool"): "sizes of outputs are rounded up: the last window may reach beyond the image",
    ("cmrnorm",): "cmrnorm: scale is divided by size",
    ("rnorm", "cnorm"): "rnorm and cnorm: scale is divided by size x size",
    ("hs", "dropout2"): "hs and dropout2: acts are multiplied by keep when testing",
    ("dropout",): "dropout: acts are divided by keep in training",
}


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-check", lambda: check(argv))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="convnet-check", description="Says what the net of two config files is: nothing is trained, no memory is taken.")
    parser.add_argument("layers_cfg", nargs="?", help="the layers and how they are connected (layers.cfg)")
    parser.add_argument("params_cfg", nargs="?", help="their learning rates and other parameters (params.cfg)")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    parser.add_argument("--json", action="store_true", help="the same, and more, as one JSON object")
    parser.add_argument("--svg", metavar="FILE.svg", help="draw the net: a row for each device, and what crosses between them")
    parser.add_argument("--reference", action="store_true", help="print every layer type and every key")
    add_options(parser, OPTIONS)
    return parser


def check(argv: list[str] | None = None) -> int:
    words = vars(build_parser().parse_args(argv))
    files, as_json, svg = (words.pop("layers_cfg"), words.pop("params_cfg")), words.pop("json"), words.pop("svg")
    if words.pop("reference"):
        print(reference())
        return 0
    if None in files:
        raise CommandLineError("expected two config files: convnet-check layers.cfg params.cfg; --help says more")
    options = Options()
    options.command(words)
    config = read_config(*files, options.strict_legacy)
    read_options_section(options, config.options, config.params_file)
    options.check()
    provider = open_data(config, options)
    data = DataSpec.of(provider, str(provider.read((options.train_range or provider.numbers or [1])[0]).data[0].dtype), None)
    with contextlib.ExitStack() as stack:
        devices = open_devices(stack, Graph(config.layers, data.shapes, data.class_tree), choose_backend(options.backend), options)
        net = Net(config, data, devices, options.seed, mini=options.mini, conserve_mem=options.conserve_mem, allocate=False, precision=options.precision)
        facts = gather(net, provider, options)
    if svg:
        try:
            Path(svg).write_text(draw(net.graph))
        except OSError as error:
            raise CannotCreate(f"--svg {svg}: cannot write it: {error.strerror}") from None
    print(json.dumps(facts, indent=1) if as_json else report(facts))
    return 0


def open_data(config: Config, options: Options) -> Provider:
    """That of training; where none is named, random images of a size that the net takes."""
    name = options.data_provider or (default_provider(options.data_path) if options.data_path else suitable_provider(config))
    return open_provider(name, options.data_path, crop_border=options.crop_border, inner_size=options.inner_size, net_classes=net_classes(config),
                         label_kind=label_kind(config), images=1)


# ---- the facts -----------------------------------------------------------------------------------------------

def gather(net: Net, provider: Provider, options: Options) -> dict[str, Any]:
    """What convnet-check tells, as JSON has it."""
    plan, graph, config = net.compile(options.mini, "train"), net.graph, net.config
    executed = multiply_adds(plan)
    steps = parse_steps(options.lr_steps)
    factors = factor_at(steps, 1), factor_at(steps, options.epochs)
    layers = [layer_facts(node, executed[node.name], factors) for node in graph.nodes]
    totals = {name: sum(layer[name] for layer in layers) for name in ("neurons", "connections", "multiply_adds")}
    return {
        "layers_file": config.layers_file,
        "params_file": config.params_file,
        "dialect": config.dialect,
        "dialect_reason": config.dialect_reason,
        "data": {"provider": provider.name, "given": bool(options.data_provider or options.data_path), "stored": list(provider.stored),
                 "shapes": [list(shape) for shape in provider.shapes], "classes": provider.classes},
        "images": options.mini,
        "epochs": options.epochs,
        "lr_steps": options.lr_steps,
        "lr_drop": options.lr_drop,
        "layers": layers,
        "totals": {"parameters": parameters(graph), **totals},
        "memory": {str(device): kinds for device, kinds in net.memory(plan).items()},
        "crossings": [dataclasses.asdict(crossing) for crossing in crossings(plan)],
        "rules": rules(config),
        "warnings": [*config.warnings, *doubts(net, options, None), *twofold(graph)],
    }


def layer_facts(node: Node, executed: int, factors: tuple[float, float]) -> dict[str, Any]:
    """`factors`: of the learning rates in the first and the last epoch, by --lr-steps."""
    return {
        "name": node.name,
        "type": node.layer.kind,
        "inputs": list(node.layer.inputs),
        "devices": list(node.devices),
        "shape": list(node.shape),
        "weights": {name: list(weights.shape) for name, weights in node.weights.items()},
        "parameters": sum(prod(weights.shape) for _, weights in node.owned()),
        "neurons": neurons(node),
        "connections": connections(node),
        "multiply_adds": executed,
        "rates": {name: {"start": factors[0] * weights.rate.noiseless(0.0), "end": factors[1] * weights.rate.noiseless(1.0), "schedule": str(weights.rate)}
                  for name, weights in node.weights.items()},
    }


def rules(config: Config) -> list[str]:
    kinds = {layer.kind for layer in config.layers}
    split = [layer.name.removesuffix("_neuron") for layer in config.layers if layer.kind == "neuron" and layer.name == f"{layer.inputs[0]}_neuron"]
    texts = [text for types, text in RULES.items() if kinds & set(types)]
    return texts + ([f"neuron= makes a layer NAME_neuron, which all readers of NAME read: of {', '.join(split)}"] if split else [])


def twofold(graph: Graph) -> list[str]:
    """Layers that are read both before and after what is done to their acts element by element."""
    texts = []
    for node in graph.computed:
        changed = [reader for reader in node.readers if reader.layer.kind in ("neuron", "hs", "dropout", "dropout2")]
        others = [reader for reader in node.readers if reader not in changed and not reader.layer.is_cost]
        if changed and others:
            texts.append(f"{node.layer.where}: [{node.name}] is read by {', '.join(r.name for r in changed)} ({changed[0].layer.kind}), and by "
                         f"{', '.join(r.name for r in others)} as it is before that")
    return texts


# ---- the same as text ------------------------------------------------------------------------------------------

def report(facts: dict[str, Any]) -> str:
    """The facts as a page."""
    data, totals = facts["data"], facts["totals"]
    told = data["provider"] if data["given"] else f"none named; {data['provider']} would suit it"
    lines = [f"{facts['layers_file']} with {facts['params_file']}",
             f"dialect {facts['dialect']}: {DIALECTS[facts['dialect']]}" + (f" ({facts['dialect_reason']})" if facts["dialect_reason"] else ""),
             f"data: {told}: images of {describe(data['shapes'][0])}, labels of {describe(data['shapes'][1])}, {data['classes'] or 'unknown'} classes", ""]
    lines += table([("layer", "type", "device", "output", "parameters", "neurons", "connections", "multiply-adds"),
                    *((layer["name"], layer["type"], listed(layer["devices"]) or "host", describe(layer["shape"]),
                       *(f"{layer[name]:,}" if layer[name] else "" for name in ("parameters", "neurons", "connections", "multiply_adds")))
                      for layer in facts["layers"]),
                    ("total", "", "", "", *(f"{totals[name]:,}" for name in ("parameters", "neurons", "connections", "multiply_adds")))])
    lines += ["", "(of one image; connections count taps on padding, multiply-adds do not)", "", f"memory for minibatches of {facts['images']}:"]
    lines += [f"  device {device}: {sum(kinds.values()) / 2**20:,.1f} MiB: " + ", ".join(f"{kind} {nbytes / 2**20:,.1f}" for kind, nbytes in kinds.items())
              for device, kinds in facts["memory"].items()]
    if facts["crossings"]:
        lines += ["", f"what crosses between devices, for {facts['images']} images:"]
        lines += ["  " + row for row in table([("phase", "from", "to", "what", "for", "bytes"),
                  *((c["phase"], str(c["source"]), str(c["target"]), c["value"], c["layer"], f"{c['nbytes']:,}") for c in facts["crossings"])])]
    rated = [(layer["name"], name, rate) for layer in facts["layers"] for name, rate in layer["rates"].items()]
    if rated:
        told = [f"with --lr-steps {facts['lr_steps']}"] * bool(facts["lr_steps"]) + [f"before --lr-drop {facts['lr_drop']}"] * bool(facts["lr_drop"])
        lines += ["", ", ".join([f"learning rates, over {facts['epochs']:,} epochs", *told]) + ":"]
        lines += ["  " + row for row in table([("weights", "start", "end", "schedule"), *((f"{layer}.{name}", f"{rate['start']:g}", f"{rate['end']:g}", rate["schedule"])
                                                                            for layer, name, rate in rated)])]
    for kind in ("rules", "warnings"):
        if facts[kind]:
            lines += ["", f"{kind}:", *(f"  {text}" for text in facts[kind])]
    return "\n".join(lines)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows with aligned columns, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = [all(row[i].replace(",", "").isdigit() or not row[i] for row in rows[1:]) and any(row[i] for row in rows[1:]) for i in range(len(widths))]
    return ["  ".join(word.rjust(width) if to_right else word.ljust(width) for word, width, to_right in zip(row, widths, right, strict=True)).rstrip()
            for row in rows]


if __name__ == "__main__":
    main()

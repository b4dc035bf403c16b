"""Measures in which tile, and in how many parts, each product of a net's conv, fc and local layers is fastest on this GPU.

    python benchmarks/tune.py                                                           # AlexNet, its net for one GPU, cifar-quick
    python benchmarks/tune.py NET --data dummy:3x64x64 --images 100 --precision tf32    # NET: a folder with layers.cfg and params.cfg

From then on every command computes these products so on this device: the table is this user's (convnet/tiles.py says where);
--output writes another file, which CONVNET_TILES=FILE names. It is written product by product: a call that was cut off goes on
there, and what a table has is not measured again (--again: it is). A line has the median of --repeats turns that all ways take,
and that of the rule of shapes, which stays where nothing is faster by 2%: another number of parts gives other bits.
On simt the times are those of a CPU and say nothing of a GPU. Outside the environment it runs itself again through ./go.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from environment import ROOT, machine, run_through_go
from timing import seconds_of, spread

run_through_go()

import numpy as np  # noqa: E402

from convnet.backends import Device, Tensor, choose_backend, load_module  # noqa: E402
from convnet.cli.test import write_whole  # noqa: E402
from convnet.cli.train import data_spec, open_data  # noqa: E402
from convnet.config import Config, read_config  # noqa: E402
from convnet.errors import CommandLineError, ConvnetError  # noqa: E402
from convnet.graph import Graph  # noqa: E402
from convnet.net import DataSpec, Net  # noqa: E402
from convnet.options import Options, read_options_section  # noqa: E402
from convnet.recorder import Step  # noqa: E402
from convnet.tiles import ALLOWED, PRECISIONS, TILES, key_of, own_file, read_lines  # noqa: E402

MODELS = ROOT / "convnet" / "models"
NETS = {MODELS / "alexnet": "dummy:3x224x224", MODELS / "alexnet-one-gpu": "dummy:3x224x224", MODELS / "cifar-quick": "dummy:3x32x32"}
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LEAST_WORK = 64  # k of a part
MOST_SUMS = 2**24  # of all parts: four times what fills a large GPU with its largest tile
WORTHWHILE = 1.3  # ways that took that much longer than the fastest at first get no turns
GAIN = 1.02  # less is no reason to leave the rule

Way = tuple[str, int]  # tile, parts


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", type=Path, metavar="NET", help="folders with layers.cfg and params.cfg (AlexNet, its net for one GPU, cifar-quick)")
    parser.add_argument("--data", metavar="NAME", help="of the nets named: dummy:CxHxW or dummy-lr-D; default: the data of the params file")
    parser.add_argument("--backend", default="cuda", help="cuda (default), or simt")
    parser.add_argument("--images", type=int, nargs="+", default=[128], metavar="N", help="minibatches (128)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="all by default")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="turns of which the median is taken (7)")
    parser.add_argument("--again", action="store_true", help="measure what the table has, too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="another table than this user's")
    return parser.parse_args()


def open_net(folder: Path, data: str | None, images: int) -> tuple[Config, DataSpec]:
    config, options = read_config(folder / "layers.cfg", folder / "params.cfg"), Options()
    options.command({"data_provider": data, "mini": images})
    read_options_section(options, config.options, config.params_file)
    options.check()
    if not (options.data_provider or options.data_path):
        raise CommandLineError(f"{folder} names no data: expected --data, as dummy:3x224x224")
    provider = open_data(config, options)
    return config, data_spec(provider, provider.read(options.train_range[0]), options, {})


def products(config: Config, data: DataSpec, images: int, precision: str, backend: str) -> dict[tuple, tuple[Step, Way]]:
    """Those of a training step, each with a step that has it, and the way of the rule."""
    found: dict[tuple, tuple[Step, Way]] = {}
    with ExitStack() as stack:
        devices = {index: stack.enter_context(Device(backend, index)) for index in Graph(config.layers, data.shapes, data.class_tree).devices}
        plan = Net(config, data, devices, mini=images, allocate=False, precision=precision, fuse=False).compile(images, "train")
        for step in plan.steps:
            if step.op.startswith(("conv_", "fc_", "local_")):
                device = devices[step.device]
                tensors = [Tensor(0, value.shape, value.dtype, device.pitch(value.shape[-1], value.dtype)) for value in (*step.reads, *step.writes)]
                getattr(device.ops, f"{step.op}_workspace")(device, *tensors, **step.scalars)
                key, way = device.ops.last_tile()
                found.setdefault(key, (step, way))
    return found


def ways_of(key: tuple, rule: Way) -> list[Way]:
    """The rule's, and all others that may be faster."""
    _, precision, m, n, groups, units, unit = key
    parts = [p for p in PARTS if p == 1 or (p <= units and p * LEAST_WORK <= units * unit and p * m * n * groups <= MOST_SUMS)]
    return list(dict.fromkeys([rule, *((tile, p) for tile in TILES[precision] for p in parts)]))


def measure(backend: str, key: tuple, step: Step, rule: Way, repeats: int) -> dict:
    """A line of the table."""
    with Device(backend) as device:
        ops, ways, nbytes = device.ops, ways_of(key, rule), 1
        tensors = [device.tensor(value.shape, value.dtype) for value in (*step.reads, *step.writes)]
        random = np.random.default_rng(0).standard_normal(1_000_003, np.float32)
        for tensor in tensors:
            device.upload(tensor, np.resize(random, tensor.shape))
        for way in ways:
            ops.set_tiles({key: way})
            nbytes = max(nbytes, getattr(ops, f"{step.op}_workspace")(device, *tensors, **step.scalars))
        tensors.append(device.tensor((nbytes,), "uint8"))
        call = partial(getattr(ops, step.op), device, *map(ops.pack, tensors), **step.scalars)

        def seconds(way: Way) -> float:
            ops.set_tiles({key: way})  # the queue is empty
            return seconds_of(call, device.synchronize, time.perf_counter)

        for way in ways:  # CUDA loads a kernel with its first call
            ops.set_tiles({key: way})
            call()
            device.synchronize()
        first = {way: seconds(way) for way in ways}
        times: dict[Way, list[float]] = {way: [] for way in ways if way == rule or first[way] < WORTHWHILE * min(first.values())}
        for _ in range(repeats):
            for way, values in times.items():
                values.append(seconds(way))
    medians = {way: statistics.median(values) for way, values in times.items()}
    fastest = min(medians, key=medians.get)
    best = fastest if medians[rule] > GAIN * medians[fastest] else rule
    return {**dict(zip(ALLOWED, key, strict=True)), "tile": best[0], "parts": best[1], "seconds": medians[best], "spread": spread(times[best]),
            "rule": rule, "rule_seconds": medians[rule], "turns": repeats, "ways": len(ways), "layer": step.layer}


def write(path: Path, head: dict, lines: list[dict]) -> None:
    """A line a line."""
    text = json.dumps(head, indent=1)[:-2] + ',\n "lines": [\n  ' + ",\n  ".join(map(json.dumps, lines)) + "\n ]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda new: new.write_text(text))


def tune(arguments: argparse.Namespace) -> None:
    backend = choose_backend(arguments.backend)
    if backend.startswith("host"):
        raise CommandLineError(f"--backend {arguments.backend}: host has no tiles, expected cuda or simt")
    module = load_module(backend)
    module.set_tiles({})  # what is compared with is the rule
    device = module.device_name(0)
    path = arguments.output or own_file(backend, device)
    lines = {key_of(line): line for line in read_lines(path)} if path.exists() else {}
    if lines and (other := json.loads(path.read_bytes()).get("device")) != device:
        raise CommandLineError(f"{path} is of {other}, and this is {device}; expected another --output")
    done = set() if arguments.again else set(lines)
    head = {"device": device, "backend": backend, "seconds": "of a CPU, which say nothing of a GPU" if backend == "simt" else "medians", "machine": machine(), "command": sys.argv}
    print(f"{backend} on {device}, into {path}")
    for folder, data in ({net: arguments.data for net in arguments.nets} or NETS).items():
        for images in arguments.images:
            net = open_net(folder, data, images)
            for precision in arguments.precision:
                for key, (step, rule) in products(*net, images, precision, backend).items():
                    if key in done:
                        continue
                    done.add(key)
                    line = lines[key] = {**measure(backend, key, step, rule, arguments.repeats), "commit": head["machine"]["commit"]}
                    write(path, head, list(lines.values()))
                    print(f"{step.layer:14} {' '.join(map(str, key)):60} {rule[0]} x{rule[1]} {line['rule_seconds'] * 1e3:.3f} ms, "
                          f"{line['tile']} x{line['parts']} {line['seconds'] * 1e3:.3f} ms: {line['rule_seconds'] / line['seconds']:.2f}", flush=True)
    gains = [line["rule_seconds"] / line["seconds"] for line in lines.values()]
    print(f"{len(lines)} products, {sum(gain > 1 for gain in gains)} faster than by the rule, at most {max(gains, default=1):.2f} times")


def main() -> int:
    try:
        tune(parse_arguments())
    except ConvnetError as error:
        print(f"tune: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

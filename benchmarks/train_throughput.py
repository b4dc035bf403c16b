"""Speed of whole training steps: upload, forward, backward, update, on one device or on as many as the config names.

    python benchmarks/train_throughput.py convnet/models/alexnet --data dummy:3x224x224
    python benchmarks/train_throughput.py convnet/models/digits-two-columns --mini 50 --json train.json

A mapping DxT is D devices with T threads each (host and simt; T is ignored on cuda): 1 puts every layer on device 0,
anything else leaves them where the config does. All mappings train the same net in one process and take turns, step by
step, so that whatever else the machine does hits all alike; their costs must be equal to the last bit. Outside the
environment it runs itself again through ./go.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from environment import run_through_go

run_through_go()

import numpy as np  # noqa: E402

import convnet.backends as backends  # noqa: E402
from convnet.cfgfile import Value  # noqa: E402
from convnet.config import Config, read_config  # noqa: E402
from convnet.data import minibatches, open_provider  # noqa: E402
from convnet.graph import Graph  # noqa: E402
from convnet.net import DataSpec, Net  # noqa: E402

STEPS = 7


def open_net(stack: ExitStack, config: Config, data: DataSpec, backend: str, mapping: str) -> Net:
    """The net on the devices of a mapping, with weights."""
    count, threads = (int(word) for word in mapping.split("x"))
    if count == 1:
        for layer in config.layers:
            layer.gpu = (0,)
    used = Graph(config.layers, data.shapes).devices
    devices = {index: stack.enter_context(backends.Device(backend, index, 0 if backend == "cuda" else index, threads)) for index in used}
    net = Net(config, data, devices)
    net.initialise()
    return net


def data_of(config: Config, folder: Path, name: str | None):
    """The provider that --data, or else the section [convnet-train] of the params file, names."""
    if name:
        return open_provider(name)
    path = config.options.get("data-path", Value("", 0, "data-path")).text
    if not path:
        sys.exit(f"train_throughput: {folder} names no data: expected --data, as dummy:3x224x224")
    return open_provider("cifar", folder / path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with layers.cfg and params.cfg")
    parser.add_argument("--data", help="dummy:CxHxW or dummy-lr-D; default: the data of the params file")
    parser.add_argument("--backend", default="auto", help="cuda, host, simt or auto")
    parser.add_argument("--mini", type=int, default=128, help="images of a minibatch (128)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of which the median is taken ({STEPS})")
    parser.add_argument("--map", nargs="+", default=["2x1", "1x1", "1x2"], metavar="DxT", help="mappings, the first the one compared with (2x1 1x1 1x2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all timings")
    arguments = parser.parse_args()
    backend = backends.choose_backend(arguments.backend)

    def config() -> Config:
        return read_config(arguments.model / "layers.cfg", arguments.model / "params.cfg")

    provider = data_of(config(), arguments.model, arguments.data)
    batch = provider.read((provider.numbers or [1])[0])
    arrays = next(minibatches(batch, arguments.mini))[1]
    data = DataSpec.of(provider, str(arrays[0].dtype), provider.mean)
    images = arrays[0].shape[-1]

    with ExitStack() as stack:
        nets = {mapping: open_net(stack, config(), data, backend, mapping) for mapping in arguments.map}
        seconds: dict[str, list[float]] = {mapping: [] for mapping in nets}
        python: dict[str, list[float]] = {mapping: [] for mapping in nets}
        for step in range(arguments.steps + 1):
            costs = []
            for mapping, net in nets.items():
                plan = net.plan(images, "train")
                feeds = {**dict(enumerate(arrays)), "state": net.state(step, [1e-4] * len(net.rate_slots))}
                start = time.perf_counter()
                plan.run(feeds)
                queued = time.perf_counter()
                costs.append(net.costs(plan))
                seconds[mapping].append(time.perf_counter() - start)
                python[mapping].append(queued - start)
            if any(cost[name].tobytes() != values.tobytes() for cost in costs for name, values in costs[0].items()):
                sys.exit(f"train_throughput: the costs of step {step} differ between the mappings: {costs}")

        print(f"{arguments.model.name}, {backend}, {images} images, {arguments.steps} steps; the costs of all mappings have the same bits")
        print(f"{'mapping':8}{'ms':>10}{'spread':>8}{'images/s':>10}{'ratio':>7}{'queueing ms':>13}{'copied MB':>11}  memory MB by device")
        rows = []
        for mapping, net in nets.items():
            plan, times = net.plan(images, "train"), seconds[mapping][1:]  # the first one warms up
            median = statistics.median(times)
            ratio = median / statistics.median(seconds[arguments.map[0]][1:])
            copied = sum(step.reads[0].nbytes for step in plan.steps if step.op == "copy")
            memory = [sum(kinds.values()) for kinds in net.memory(plan).values()]
            rows.append({"mapping": mapping, "seconds": times, "copied_bytes": copied, "memory_bytes": memory})
            print(f"{mapping:8}{median * 1e3:10.1f}{(max(times) - min(times)) / median:8.0%}{images / median:10.1f}{ratio:7.2f}"
                  f"{statistics.median(python[mapping][1:]) * 1e3:13.1f}{copied / 1e6:11.1f}  {' + '.join(f'{nbytes / 1e6:.0f}' for nbytes in memory)}")
    if arguments.json:
        report = {"model": arguments.model.name, "backend": backend, "images": images, "cores": os.cpu_count(), "numpy": np.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

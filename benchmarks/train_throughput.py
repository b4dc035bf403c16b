"""Speed of whole training steps: data, augmentation, forward, backward, update, on one device or on as many as the config names.

    python benchmarks/train_throughput.py convnet/models/alexnet --data dummy:3x224x224
    python benchmarks/train_throughput.py convnet/models/digits-two-columns --peer torch --json train.json
    python benchmarks/train_throughput.py convnet/models/alexnet-one-gpu --data dummy:3x256x256 --inference --map 1x2
    python benchmarks/train_throughput.py convnet/models/cifar-quick --data dummy:3x32x32 --crop-border 4 --on-disk 10000 --without-input --map 1x2

A mapping DxT is D devices with T threads each (host and simt; T is ignored on cuda): 1 puts every layer on device 0,
anything else leaves them where the config does. All mappings train the same net in one process and take turns, step by
step, so that whatever else the machine does hits all alike; their costs must be equal to the last bit. --peer torch lets
PyTorch take turns too, in processes of their own, with as many threads as the first mapping has in all: as one would
write the net, and at its best, which is searched for first. Outside the environment it runs itself again through ./go.
"""
from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from environment import machine, run_through_go
from timing import spread

run_through_go(*["torch"] * any(word.startswith("--peer") for word in sys.argv))

import numpy as np  # noqa: E402

import convnet.backends as backends  # noqa: E402
from convnet.cli.train import data_spec, open_data  # noqa: E402
from convnet.config import Config, read_config  # noqa: E402
from convnet.data import Batch, Prefetcher, Provider, minibatches, with_following  # noqa: E402
from convnet.data.batches import Arrays  # noqa: E402
from convnet.data.making import Settings, make  # noqa: E402
from convnet.data.making.arrays import ArraySource  # noqa: E402
from convnet.errors import ConvnetError  # noqa: E402
from convnet.graph import Graph  # noqa: E402
from convnet.net import DataSpec, Net  # noqa: E402
from convnet.options import GRAPHS, Options, read_options_section  # noqa: E402
from convnet.plan import Plan  # noqa: E402

WARM_UP = 3  # turns of a step: in the first two memory is new, and in the second the graph is made
TURN_SECONDS = 0.2  # a turn has at least one step
PAUSE = 0.02  # seconds between turns: the threads of OpenMP, which PyTorch has, spin for 8 ms before they sleep
TRACES = 3  # steps in which the ops are timed
BATCHES = 3  # with --on-disk
INPUT_OPS = ("upload", "image_forward", "noisy_image_forward")
RATE = 1e-4


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with layers.cfg and params.cfg")
    parser.add_argument("--data", metavar="NAME", help="dummy:CxHxW or dummy-lr-D; default: the data of the params file")
    parser.add_argument("--backend", default="auto", help="cuda, host, simt or auto")
    parser.add_argument("--inference", action="store_true", help="forward alone, as when testing")
    parser.add_argument("--crop-border", metavar="N", help="as convnet-train has it")
    parser.add_argument("--color-noise", metavar="C", help="as convnet-train has it")
    parser.add_argument("--precision", nargs="+", choices=["fast", "bf16x3", "tf32", "bf16"], default=[], help="let the first mapping take turns with itself at these precisions, and at tf32 and bf16 the fastest way of the peer too")
    parser.add_argument("--graphs", nargs="+", choices=GRAPHS, default=["auto"], help="as convnet-train has it; of several, the first is for all mappings, and with each other the first mapping takes turns with itself")
    parser.add_argument("--streams", nargs="+", type=int, choices=[1, 2], default=[1], help="the same of the queues of a device")
    parser.add_argument("--on-disk", type=int, metavar="N", help="put the images into data batches of N on the disk first, and train from there")
    parser.add_argument("--without-input", action="store_true", help="let the first mapping take turns with itself without reading, cutting, uploading, cropping and noise: with images that are there")
    parser.add_argument("--mini", type=int, metavar="N", help="images of a minibatch; default: as in the params file, else 128")
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="turns of which the median is taken (9); a turn has as many steps as fit in a twentieth of a second, at least one")
    parser.add_argument("--map", nargs="+", default=["2x1", "1x1", "1x2"], metavar="DxT[:MODEL]", help="mappings, the first the one compared with (2x1 1x1 1x2); MODEL: another net, on the same data")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of all threads in place of the clock's; others on the machine disturb it less")
    parser.add_argument("--peer", choices=["torch"], help="PyTorch takes turns: as one would write the net, and the fastest way found")
    parser.add_argument("--compile", action="store_true", help="let torch.compile be tried too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, command and all timings")
    return parser.parse_args()


# ---- ours --------------------------------------------------------------------------------------------------------

def open_net(stack: ExitStack, config: Config, data: DataSpec, backend: str, mapping: str, precision: str, graphs: str, streams: int) -> Net:
    """The net on the devices of a mapping, with weights."""
    count, threads = (int(word) for word in mapping.partition(":")[0].split("x"))
    if count == 1:
        for layer in config.layers:
            layer.gpu = (0,)
    used = Graph(config.layers, data.shapes).devices
    devices = {index: stack.enter_context(backends.Device(backend, index, 0 if backend == "cuda" else index, threads)) for index in used}
    net = Net(config, data, devices, precision=precision, graphs=graphs, streams=streams)
    net.initialise()
    return net


def endless(provider: Provider, numbers: list[int], images: int) -> Iterator[tuple[Arrays, Arrays | None]]:
    """Minibatches of so many images, each with the one that follows it in the batch, the next batch being read meanwhile, as in training."""
    with Prefetcher(provider, itertools.cycle(numbers)) as batches:
        for batch in batches:
            yield from (pair for pair in with_following(batch, images) if pair[0][0].shape[-1] == images)


class Ours:
    """A net of ours that trains, or only predicts, fed with minibatches of so many images.

    phase   train or test
    turns   by turn: seconds of a whole step, of waiting for its data, and of queueing its ops
    costs   of the last step
    """

    def __init__(self, net: Net, feed: Iterator[tuple[Arrays, Arrays | None]], images: int, phase: str, clock: Callable[[], float]):
        self.net, self.feed, self.images, self.phase, self.clock = net, feed, images, phase, clock
        self.turns: list[np.ndarray] = []
        self.costs: dict[str, np.ndarray] = {}
        self.count = 0

    @property
    def plan(self) -> Plan:
        return self.net.plan(self.images, self.phase)

    @property
    def seconds(self) -> list[float]:
        return [float(turn[0]) for turn in self.turns]

    def state(self) -> np.ndarray:
        """That of the next step."""
        self.count += 1
        return self.net.state(self.count, [RATE] * len(self.net.rate_slots))

    def turn(self, steps: int) -> None:
        """So many training steps in a row."""
        self.turns.append(np.mean([self.step() for _ in range(steps)], axis=0))

    def step(self) -> tuple[float, float, float]:
        start = self.clock()
        plan, (arrays, following) = self.plan, next(self.feed)
        fed = self.clock()
        self.net.run(plan, arrays, self.state())
        queued = self.clock()
        if following:
            self.net.upload_ahead(following, self.phase)
        self.costs = self.net.costs(plan)
        return self.clock() - start, fed - start, queued - fed

    def seconds_by_op(self) -> dict[tuple[str, int], float]:
        """(op, device) -> seconds in a step, all devices at once; and (`waits`, device), those in which it waits for another."""
        steps: list[dict[tuple[str, int], float]] = []
        for _ in range(TRACES):
            spans = self.plan.traced_run({**dict(enumerate(next(self.feed)[0])), "state": self.state()})
            steps.append(defaultdict(float))
            for span in spans:
                steps[-1][span.step.op, span.step.device] += span.end - span.start
                if span.waited_for:
                    steps[-1]["waits", span.step.device] += span.start - span.reached
        return {key: statistics.median(step[key] for step in steps) for key in steps[0]}

    def report(self) -> dict:
        copied = sum(step.reads[0].nbytes for step in self.plan.steps if step.op == "copy")
        ops = [{"op": op, "device": device, "seconds": seconds} for (op, device), seconds in self.seconds_by_op().items()]
        data, queueing = np.median(self.turns[WARM_UP:], axis=0)[1:].tolist()
        return {"data_seconds": data, "queueing_seconds": queueing, "copied_bytes": copied, "memory_bytes": self.net.memory(self.plan), "ops": ops}


class WithoutInput(Ours):
    """A net that is fed once. Then its steps are run but for those that bring the images: what is in their place stays there."""

    @functools.cached_property
    def run_bare(self) -> Callable[[], None]:
        calls = self.plan.calls([step for step in self.plan.steps if step.op not in INPUT_OPS])

        def queue() -> None:
            for call in calls:
                call()
        return backends.Capture(self.plan.queues(), queue).launch if self.net.graphs else queue

    def step(self) -> tuple[float, float, float]:
        if not self.count:
            return super().step()
        start = self.clock()
        self.run_bare()
        queued = self.clock()
        self.net.costs(self.plan)
        return self.clock() - start, 0.0, queued - start


def input_report(ours: Ours, without: Ours) -> dict:
    """What the input costs a step: the share of its time, and the seconds of its parts. `waiting` is for the minibatch, which is taken from a batch read ahead."""
    step, bare = (statistics.median(net.seconds[WARM_UP:]) for net in (ours, without))
    parts = {op: seconds for (op, _), seconds in ours.seconds_by_op().items() if op in INPUT_OPS}
    return {"share": step / bare - 1, "step_seconds": step, "without_seconds": bare, "parts": {"waiting": float(np.median(ours.turns[WARM_UP:], axis=0)[1]), **parts}}


def on_disk(provider: Provider, folder: Path, number: int, images: int) -> Path:
    """Data batches of so many images, as convnet-data makes them: three of them, which are read again and again."""
    read = [provider.read(n).data for n in range(number, number + -(-BATCHES * images // provider.read(number).images))]
    pixels, labels = (np.moveaxis(np.concatenate([data[i] for data in read], axis=-1), -1, 0)[: BATCHES * images] for i in range(2))
    source = ArraySource("random images", {"training": (pixels, labels.ravel().astype(int).tolist())}, [f"class {i}" for i in range(provider.classes)])
    make(source, folder, Settings(size=pixels.shape[-1], kind="raw", batch_size=images))
    return folder


# ---- PyTorch -----------------------------------------------------------------------------------------------------

def open_peers(stack: ExitStack, arguments: argparse.Namespace, net: Net, batch: Batch, images: int, threads: int) -> tuple[str, dict, list[dict]]:
    """PyTorch's version; its two contestants, checked against our net, by name; the times of all ways that were tried."""
    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    from torch_process import AS_WRITTEN, Torch, describe, fastest

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    count = batch.images // images * images
    mean = {} if net.data.mean is None else {"mean": net.data.mean}
    np.savez(folder / "arrays.npz", pixels=np.moveaxis(batch.data[0], -1, 0)[:count], labels=batch.data[1].ravel()[:count].astype(np.int64),
             **mean, **{name: net.get(name) for name in net.weight_names()})
    device = net.devices[0].backend if net.devices[0].backend == "cuda" else "cpu"
    task = {"model": str(arguments.model), "arrays": str(folder / "arrays.npz"), "shapes": net.data.shapes, "images": images,
            "rate": RATE, "device": device, "threads": threads, "inference": arguments.inference, "cpu_time": arguments.cpu_time, "precision": "exact"}
    expected: list[dict] = []

    def open_torch(way: dict) -> Torch:
        torch = Torch(task, way, folder)
        expected[:] = expected or net.test(next(minibatches(batch, images))[1], tuple(torch.answer["scores"]))
        torch.check(*expected)
        return torch

    as_written = open_torch(AS_WRITTEN)
    stack.callback(as_written.close)
    left_out = [name for name, there in (("lrn", "norms"), ("columns", "columns")) if not as_written.answer[there]]
    left_out += ["allocator", "waiting"] * (device == "cuda") + ["update"] * arguments.inference
    print(f"{as_written.answer['name']}, {threads} threads, the search for the fastest way to {'run' if arguments.inference else 'train'} this net:", flush=True)
    way, tried = fastest(open_torch, left_out, arguments.compile)
    best = open_torch(way)
    stack.callback(best.close)
    peers = {"torch as written": as_written, "torch at its best": best}
    for precision in {"tf32", "bf16"}.intersection(arguments.precision):
        peers[f"torch at its best, {precision}"] = rounded = open_torch({**way, "precision": precision})
        stack.callback(rounded.close)
    for name, peer in peers.items():
        print(f"{name}: {describe(peer.way)}; its costs and scores differ from ours by {peer.difference:.0e}")
    return as_written.answer["name"], peers, tried


# ---- reporting -----------------------------------------------------------------------------------------------------

def print_table(rows: dict[str, dict], images: int, width: int) -> None:
    print(f"{'':{width}}{'ms':>10}{'spread':>8}{'images/s':>10}{'ratio':>7}{'data ms':>9}{'queueing ms':>13}{'copied MB':>11}")
    for name, row in rows.items():
        median = statistics.median(row["seconds"])
        line = f"{name:{width}}{median * 1e3:10.1f}{spread(row['seconds']):8.1%}{images / median:10.1f}{row['ratio']:7.2f}"
        if "ops" in row:
            line += f"{row['data_seconds'] * 1e3:9.1f}{row['queueing_seconds'] * 1e3:13.1f}{row['copied_bytes'] / 1e6:11.1f}"
        print(line)


def print_devices(rows: dict[str, dict]) -> None:
    """Memory, and milliseconds by op, of each device of each mapping."""
    columns = [(name, device) for name, row in rows.items() for device in row["memory_bytes"]]
    print("\n" + f"{'':26}" + "".join(f"{f'{name} dev {device}':>13}" for name, device in columns))
    for kind in next(iter(rows.values()))["memory_bytes"][0]:
        print(f"{f'{kind} MB':26}" + "".join(f"{rows[name]['memory_bytes'][device][kind] / 1e6:13.1f}" for name, device in columns))
    print("ms, all devices at once")
    seconds = {(name, op["device"], op["op"]): op["seconds"] for name, row in rows.items() for op in row["ops"]}
    totals: dict[str, float] = defaultdict(float)
    for (_, _, op), taken in seconds.items():
        totals[op] += taken
    for op in sorted(totals, key=lambda op: (op == "waits", -totals[op])):
        label = "waits for another device" if op == "waits" else op
        print(f"{label:26}" + "".join(f"{seconds.get((name, device, op), 0) * 1e3:13.2f}" for name, device in columns))


def main() -> None:
    arguments = parse_arguments()
    backend = backends.choose_backend(arguments.backend)

    def config(model: Path = arguments.model) -> Config:
        return read_config(model / "layers.cfg", model / "params.cfg")

    options = Options()
    options.command({"data_provider": arguments.data, "mini": arguments.mini, "crop_border": arguments.crop_border})
    read_options_section(options, config().options, config().params_file)
    options.check()
    if not (options.data_provider or options.data_path):
        sys.exit(f"train_throughput: {arguments.model} names no data: expected --data, as dummy:3x224x224")
    phase = "test" if arguments.inference else "train"
    clock = time.process_time if arguments.cpu_time else time.perf_counter

    with ExitStack() as stack:
        provider = open_data(config(), options)
        if arguments.on_disk:
            folder = on_disk(provider, Path(stack.enter_context(tempfile.TemporaryDirectory())), options.train_range[0], arguments.on_disk)
            options.command({"data_provider": "image", "data_path": str(folder), "train_range": f"1-{BATCHES}", "test_range": "1"})
            provider = open_data(config(), options)
        if arguments.color_noise:
            options.command({"color_noise": arguments.color_noise})
        batch = provider.read(options.train_range[0])
        data, images = data_spec(provider, batch, options, {}), min(options.mini, batch.images)

        def open_ours(mapping: str, kind: type[Ours] = Ours, precision: str = "exact", graphs: str = arguments.graphs[0],
                      streams: int = arguments.streams[0]) -> Ours:
            feed = endless(provider, options.train_range, images)
            stack.callback(feed.close)
            model = config(Path(mapping.partition(":")[2] or arguments.model))
            return kind(open_net(stack, model, data, backend, mapping, precision, graphs, streams), feed, images, phase, clock)

        contestants = {mapping: open_ours(mapping) for mapping in arguments.map}
        ours = list(contestants.values())
        contestants |= {f"{arguments.map[0]} --graphs {graphs}": open_ours(arguments.map[0], graphs=graphs) for graphs in arguments.graphs[1:]}
        contestants |= {f"{arguments.map[0]} --streams {streams}": open_ours(arguments.map[0], streams=streams) for streams in arguments.streams[1:]}
        same = [net for mapping, net in contestants.items() if ":" not in mapping.partition(" ")[0]]
        peer, peers, tried = None, {}, []
        if arguments.peer:
            threads = len(ours[0].net.devices) * int(arguments.map[0].partition(":")[0].split("x")[1])
            peer, peers, tried = open_peers(stack, arguments, ours[0].net, batch, images, threads)
        contestants |= peers
        contestants |= {f"{arguments.map[0]} {precision}": open_ours(arguments.map[0], precision=precision) for precision in arguments.precision}
        # Whole batches, so that what is read ahead in a turn is as much as it takes.
        at_once = batch.images // images if arguments.without_input else 1
        if arguments.without_input:
            contestants[f"{arguments.map[0]} without input"] = without = open_ours(arguments.map[0], WithoutInput)
        steps = at_once
        for turn in range(WARM_UP + arguments.turns):
            for contestant in contestants.values():
                contestant.turn(steps)
                time.sleep(PAUSE)
            if any(net.costs[name].tobytes() != values.tobytes() for net in same for name, values in ours[0].costs.items()):
                sys.exit(f"train_throughput: the costs of step {ours[0].count} differ between the mappings: {[net.costs for net in same]}")
            if turn == WARM_UP - 1:
                steps = -(-(1 + int(TURN_SECONDS / ours[0].seconds[-1])) // at_once) * at_once
        rows = {name: {"seconds": contestant.seconds[WARM_UP:]} for name, contestant in contestants.items()}
        for name, torch in peers.items():
            rows[name] |= {"way": torch.way, "difference": torch.difference}
        for mapping, net in zip(arguments.map, ours, strict=True):
            rows[mapping] |= net.report()
        cost = input_report(ours[0], without) if arguments.without_input else None
    median = statistics.median(rows[arguments.map[0]]["seconds"])
    for row in rows.values():
        row["ratio"] = statistics.median(row["seconds"]) / median
    print(f"{arguments.model.name}, {backend}, {images} images, {arguments.turns} turns of {steps} steps; the costs of all mappings have the same bits; ratio: time by that of {arguments.map[0]}")
    print_table(rows, images, max(map(len, rows)) + 2)
    print_devices({name: rows[name] for name in arguments.map})
    if cost:
        print(f"the input makes a step {cost['share']:.2%} longer; ms of its parts: " + ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in cost["parts"].items()))
    if arguments.json:
        report = {"command": sys.argv, "machine": machine(), "numpy": np.__version__, "model": arguments.model.name, "backend": backend, "phase": phase, "cpu_time": arguments.cpu_time, "images": images, "tiles": backends.tile_table(backend), "peer": peer, "input": cost,
                  "ratios": {f"{name} / {arguments.map[0]}": row["ratio"] for name, row in rows.items()}, "rows": rows, "tried": tried}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (ConvnetError, RuntimeError) as error:
        sys.exit(f"train_throughput: {error}")

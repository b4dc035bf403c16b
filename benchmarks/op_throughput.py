#!/usr/bin/env python3
"""Speed of the convolutions: AlexNet's five layers and the CIFAR nets', forward and both backwards.

    python benchmarks/conv_throughput.py --backend host
    python benchmarks/conv_throughput.py --peer torch --layers cifar --json conv.json --plot conv.png

Outside the environment it runs itself again through ./go. Every row is the median of --repeats timings, in which
ours and the peer's take turns, so that whatever else the machine does hits both alike. GFLOP/s count the
multiplications and additions that are executed: taps on the padding are none. The share is of the peak that
multiply-adds in registers reach on the same threads (measured before each layer; the highest counts).
"""
from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path

from environment import ROOT, machine, run_through_go, spread

OPS = ("conv_forward", "conv_backward_data", "conv_backward_filters")
LONG_ENOUGH = 0.02  # seconds: shorter calls are timed several in a row


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="cuda, host, simt, or auto (default): cuda where there is a GPU")
    parser.add_argument("--images", type=int, default=128, help="images of a minibatch (128)")
    parser.add_argument("--layers", default="", metavar="PATTERN", help="only layers whose name matches this regular expression")
    parser.add_argument("--ops", default="", metavar="PATTERN", help="only ops whose name matches: forward, data, filters")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of host, simt and the peer (all)")
    parser.add_argument("--repeats", type=int, default=9, help="timings of which the median is taken (9)")
    parser.add_argument("--cpu-time", action="store_true", help="with --threads 1 on the CPU: processor time, which others on the machine disturb less")
    parser.add_argument("--peer", choices=["torch"], help="time this too: the better of its memory layouts for each op")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions, command and all timings")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the shares of the peak")
    return parser.parse_args()


# ---- timing ------------------------------------------------------------------------------------------


def seconds_of(call, synchronize, clock) -> float:
    """Of one call; several in a row where one is too short for the clock."""
    synchronize()
    repeats, elapsed = 1, 0.0
    while True:
        start = clock()
        for _ in range(repeats):
            call()
        synchronize()
        elapsed = clock() - start
        if elapsed >= LONG_ENOUGH:
            return elapsed / repeats
        repeats = max(repeats + 1, int(repeats * 1.2 * LONG_ENOUGH / max(elapsed, 1e-6)))


def our_call(device, layer, op: str, images: int):
    """The op on random numbers, as a call; its memory is that of `device`."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = {"images": layer.images_shape(images), "filters": layer.filters_shape, "acts": layer.acts_shape(images)}
    reads = {"conv_forward": ("images", "filters"), "conv_backward_data": ("acts", "filters"), "conv_backward_filters": ("images", "acts")}[op]
    inputs = [device.tensor(shapes[name]) for name in reads]
    for tensor in inputs:
        device.upload(tensor, rng.standard_normal(tensor.shape, np.float32))
    output = device.tensor(shapes[next(name for name in shapes if name not in reads)])
    nbytes = getattr(device.ops, f"{op}_workspace")(device, *inputs, output, **layer.scalars)
    workspace = device.tensor((max(nbytes, 1),), "uint8")
    function, scalars = getattr(device.ops, op), layer.scalars
    return lambda: function(device, *inputs, output, workspace, **scalars)


def measure(arguments, backend: str, peer, layer, op: str) -> dict:
    from convnet.backends import Device

    with Device(backend, threads=arguments.threads) as device:
        peak = device.ops.measure_peak_flops(device, "float32")
        # A warm-up of each, and then in turns.
        contenders = {"ours": (our_call(device, layer, op, arguments.images), device.synchronize)}
        if peer:
            for layout, call in peer.calls(layer, op, arguments.images, device.backend).items():
                contenders[layout] = (call, lambda: peer.synchronize(device.backend))
        times = {name: [] for name in contenders}
        clock = time.process_time if arguments.cpu_time else time.perf_counter
        for call, synchronize in contenders.values():
            call()
            synchronize()
        for _ in range(arguments.repeats):
            for name, (call, synchronize) in contenders.items():
                times[name].append(seconds_of(call, synchronize, clock))
    row = {"layer": layer.name, "op": op, "flops": layer.flops(arguments.images), "peak": peak, "times": times}
    row["seconds"] = statistics.median(times["ours"])
    row["spread"] = spread(times["ours"])
    if peer:
        row["peer_layout"] = min((name for name in times if name != "ours"), key=lambda name: statistics.median(times[name]))
        row["peer_seconds"] = statistics.median(times[row["peer_layout"]])
        row["ratio"] = row["peer_seconds"] / row["seconds"]
    return row


# ---- reporting ---------------------------------------------------------------------------------------


def line_of(row: dict, peak: float) -> str:
    gflops = row["flops"] / row["seconds"] / 1e9
    text = f"{row['layer']:14} {row['op'].removeprefix('conv_'):16} {row['seconds'] * 1e3:9.3f} {row['spread']:6.1%} {gflops:9.1f} {gflops * 1e9 / peak:7.1%}"
    if "ratio" in row:
        text += f" {row['peer_seconds'] * 1e3:9.3f} {row['peer_layout']:5} {row['ratio']:6.2f}"
    return text


def plot(path: Path, rows: list[dict], peak: float, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure, axes = pyplot.subplots(1, len(OPS), figsize=(13, 0.5 * len(layers) + 1.6), sharey=True, layout="constrained")
    for axis, op in zip(axes, OPS, strict=True):
        axis.set_title(op)
        axis.set_xlabel("share of the peak")
        axis.set_xlim(0, 1)
        for row in rows:
            if row["op"] != op:
                continue
            y = layers.index(row["layer"])
            axis.barh(y - 0.2, row["flops"] / row["seconds"] / peak, 0.38, color="tab:blue", label="ours")
            if "peer_seconds" in row:
                axis.barh(y + 0.2, row["flops"] / row["peer_seconds"] / peak, 0.38, color="tab:orange", label="PyTorch's best layout")
    axes[0].set_yticks(range(len(layers)), layers)
    axes[0].invert_yaxis()
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[-1].legend(handles.values(), handles.keys(), loc="lower right")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def main() -> int:
    arguments = parse_arguments()
    run_through_go(*(extra for extra, wanted in (("torch", arguments.peer), ("plot", arguments.plot)) if wanted))
    sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]
    from layers import LAYERS

    layers = [layer for layer in LAYERS if re.search(arguments.layers, layer.name)]
    if not layers:
        print(f"--layers {arguments.layers}: no such layer; there are {', '.join(layer.name for layer in LAYERS)}", file=sys.stderr)
        return 2
    from convnet.backends import Device, choose_backend
    from convnet.errors import ConvnetError

    try:
        backend = choose_backend(arguments.backend)
        with Device(backend, threads=arguments.threads) as device:
            name = device.ops.device_name(device.physical)
            module = device.ops.__name__.removeprefix("convnet._")
    except ConvnetError as error:
        print(error, file=sys.stderr)
        return 69
    peer = peer_name = None
    if arguments.peer:
        import torch_conv as peer

        peer_name = peer.start(backend, arguments.threads)
    if arguments.cpu_time and (backend == "cuda" or arguments.threads != 1):
        print("--cpu-time: expected --backend host or simt, and --threads 1", file=sys.stderr)
        return 2
    title = f"{module} on {name}, {arguments.images} images" + ("" if backend == "cuda" else f", {arguments.threads} threads")
    print(title + (f"; peer: {peer_name}" if peer else ""))
    print(f"{'layer':14} {'op':16} {'ms':>9} {'spread':>6} {'GFLOP/s':>9} {'of peak':>7}" + (f" {'peer ms':>9} {'best':5} {'ratio':>6}" if peer else ""))
    rows, peak = [], 0.0
    for layer in layers:
        for op in OPS:
            if re.search(arguments.ops, op):
                rows.append(measure(arguments, backend, peer, layer, op))
                peak = max(peak, rows[-1]["peak"])
                print(line_of(rows[-1], peak), flush=True)
    print(f"peak {peak / 1e9:.1f} GFLOP/s")
    if arguments.json:
        report = {"command": sys.argv, "machine": machine(), "backend": module, "device": name, "images": arguments.images,
                  "threads": arguments.threads, "peer": peer_name, "peak": peak, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.plot:
        plot(arguments.plot, rows, peak, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Speed of the ops of AlexNet and of the CIFAR nets, beside PyTorch's.

    python benchmarks/op_throughput.py --backend host
    python benchmarks/op_throughput.py --peer torch --layers cifar --ops conv --json ops.json --plot ops.png

Outside the environment it runs itself again through ./go. Every row is the median of --repeats turns of ours, of the
peer's ways to do the same, and of multiply-adds in registers on the same threads, whose median is the peak that the share
is taken of: whatever else the machine does, and whatever its clock falls to, hits all alike. GFLOP/s count the
multiplications and additions that are executed: taps on the padding are none.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from environment import ROOT, machine, run_through_go
from timing import seconds_of, spread

PAUSE = 0.02  # seconds between turns: PyTorch's idle threads spin for 8 ms before they sleep
PRODUCTS, STORED = ("conv_", "fc_"), ("lrn", "max_pool", "avg_pool", "relu", "dropout", "softmax_cost")  # ops that are told a precision, and others whose activities may be bfloat16
WORTHWHILE = 1.3  # ways of the peer that took that much longer than the fastest at first are not tried again


def parse_arguments(ops: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="cuda, host, simt, or auto (default): cuda where there is a GPU")
    parser.add_argument("--images", type=int, default=128, help="images of a minibatch (128)")
    parser.add_argument("--layers", default="", metavar="PATTERN", help="only layers whose name matches this regular expression")
    parser.add_argument("--ops", default=ops, metavar="PATTERN", help="only ops whose name matches: conv, filters, fc_forward, lrn, pool, ...")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of host, simt and the peer (all)")
    parser.add_argument("--repeats", type=int, default=9, help="turns of which the median is taken (9)")
    parser.add_argument("--cpu-time", action="store_true", help="with --threads 1 on the CPU: processor time, which others on the machine disturb less")
    parser.add_argument("--precision", choices=["exact", "fast", "bf16x3", "tf32", "bf16"], default="exact",
                        help="the products alone, which may be less than exact, and so may the peer's at tf32 and bf16; at bf16 also all else that takes activities stored in it; what is gained and the errors of products against float64 are printed too")
    parser.add_argument("--peer", choices=["torch"], help="time this too: as one would write it, and the fastest of the ways that it knows")
    parser.add_argument("--compile", action="store_true", help="let torch.compile be tried too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions, command and all timings")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the shares of the peak")
    return parser.parse_args()


class Peer:
    """PyTorch in two processes: as one would write it, and with an allocator that keeps its memory."""

    def __init__(self, stack: ExitStack, arguments: argparse.Namespace, backend: str):
        from torch_process import AS_WRITTEN, Worker

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = {"precision": arguments.precision, "threads": arguments.threads, "device": "cuda" if backend == "cuda" else "cpu", "images": arguments.images, "cpu_time": arguments.cpu_time}
        self.workers = {}
        for allocator in ("default", "tuned"):
            written = allocator == "default"
            worker = Worker("torch_ops.py", {**settings, "as_written": written, "compile": arguments.compile and not written},
                            {"allocator": allocator, "waiting": AS_WRITTEN["waiting"]}, folder)
            stack.callback(worker.close)
            self.workers["as written" if written else "tuned"] = worker
        self.name = worker.answer["name"]

    def ways(self, case) -> dict[str, tuple[str, str]]:
        """Those that are worth a turn, the first as one would write it: by name, the worker and its own name for it."""
        from layers import asdict

        found = {}
        for name, worker in self.workers.items():
            for way in worker.ask(json.dumps({"case": asdict(case)}))["ways"]:
                found[name if name == "as written" else way] = (name, way)
        first = {}
        for name, way in found.items():
            self.seconds(way)  # warms up
            first[name] = self.seconds(way)
        least = min(first.values())
        return {name: way for name, way in found.items() if name == "as written" or first[name] < WORTHWHILE * least}

    def seconds(self, way: tuple[str, str]) -> float:
        return self.workers[way[0]].ask(json.dumps({"time": way[1]}))["seconds"]


def measure(arguments: argparse.Namespace, backend: str, peer: Peer | None, case) -> dict:
    from our_ops import OurCase, rounding

    from convnet.backends import Device

    clock = time.process_time if arguments.cpu_time else time.perf_counter
    with Device(backend, threads=arguments.threads) as device:
        ours = OurCase(device, case, arguments.images, arguments.precision)
        compares = arguments.precision != "exact"
        exact = OurCase(device, case, arguments.images) if compares else None
        errors = rounding(device, case, arguments.images, arguments.precision) if compares and case.op.startswith(PRODUCTS) else {}
        done = device.ops.run_multiply_adds(device, "float32")
        turns = {"ours": lambda: seconds_of(ours, device.synchronize, clock),
                 "peak": lambda: seconds_of(lambda: device.ops.run_multiply_adds(device, "float32"), device.synchronize, clock)}
        if exact:
            turns["exact"] = lambda: seconds_of(exact, device.synchronize, clock)
        for turn in turns.values():
            turn()
        for name, way in (peer.ways(case) if peer else {}).items():
            turns[name] = lambda way=way: peer.seconds(way)
        times: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(arguments.repeats):
            for name, turn in turns.items():
                times[name].append(turn())
                time.sleep(PAUSE * bool(peer))
        nbytes = ours.nbytes
    peaks = [done / seconds for seconds in times.pop("peak")]
    row = {"layer": case.layer, "op": case.op, "flops": case.flops * arguments.images, "bytes": nbytes, "peaks": peaks, "times": times,
           "peak": statistics.median(peaks), "highest_peak": max(peaks), "seconds": statistics.median(times["ours"]), "spread": spread(times["ours"])}
    row["share"] = row["flops"] / row["seconds"] / row["peak"]
    if exact:
        row["gain"] = statistics.median(times["exact"]) / row["seconds"]
        row["errors"] = errors
    if peer:
        taken = {name: statistics.median(values) for name, values in times.items() if name not in ("ours", "exact")}
        row["best"] = min(taken, key=taken.get)
        row["ratios"] = {"as written": taken["as written"] / row["seconds"], "best": taken[row["best"]] / row["seconds"]}
    return row


# ---- reporting ---------------------------------------------------------------------------------------


def line_of(row: dict) -> str:
    text = f"{row['layer']:14} {row['op']:21} {row['seconds'] * 1e3:9.3f} {row['spread']:6.1%} {row['bytes'] / row['seconds'] / 1e9:7.1f} "
    text += f"{row['flops'] / row['seconds'] / 1e9:8.1f} {row['share']:7.1%}" if row["flops"] else f"{'':16}"
    if "gain" in row:
        exact, *others = [f"{error:9.1e}" for error in row["errors"].values()] or [" " * 9] * 4
        text += f" {row['gain']:6.2f} {exact} {others[0]} {others[1]:>10} {others[2]}"
    if "best" in row:
        text += f" {row['ratios']['as written']:8.2f} {row['ratios']['best']:6.2f}  {row['best']}"
    return text


def plot(path: Path, rows: list[dict], title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["flops"]]
    ops = list(dict.fromkeys(row["op"] for row in rows))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure, axes = pyplot.subplots(1, len(ops), figsize=(4.4 * len(ops), 0.5 * len(layers) + 1.6), sharey=True, squeeze=False, layout="constrained")
    for axis, op in zip(axes[0], ops, strict=True):
        axis.set_title(op)
        axis.set_xlabel("share of the peak")
        axis.set_xlim(0, 1)
        for row in rows:
            if row["op"] != op:
                continue
            y = layers.index(row["layer"])
            axis.barh(y - 0.2, row["share"], 0.38, color="tab:blue", label="ours")
            if "best" in row:
                axis.barh(y + 0.2, row["share"] / row["ratios"]["best"], 0.38, color="tab:orange", label="PyTorch at its best")
    axes[0][0].set_yticks(range(len(layers)), layers)
    axes[0][0].invert_yaxis()
    handles = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
    axes[0][-1].legend(handles.values(), handles.keys(), loc="lower right")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def main(ops: str = "") -> int:
    """ops: what --ops is where it is not given."""
    arguments = parse_arguments(ops)
    run_through_go(*(extra for extra, wanted in (("torch", arguments.peer), ("plot", arguments.plot)) if wanted))
    sys.path.append(str(ROOT / "benchmarks" / "peers"))
    from layers import cases

    from convnet.backends import Device, choose_backend, tile_table
    from convnet.errors import ConvnetError

    chosen = [case for case in cases() if re.search(arguments.layers, case.layer) and re.search(arguments.ops, case.op)]
    if not chosen:
        print(f"--layers {arguments.layers!r}, --ops {arguments.ops!r}: no such op; there are {', '.join(case.name for case in cases())}", file=sys.stderr)
        return 2
    try:
        backend = choose_backend(arguments.backend)
        with Device(backend, threads=arguments.threads) as device:
            name = device.ops.device_name(device.physical)
            module = device.ops.__name__.removeprefix("convnet._")
    except ConvnetError as error:
        print(error, file=sys.stderr)
        return 69
    if arguments.precision != "exact":
        stored = PRODUCTS + STORED if arguments.precision == "bf16" and not module.startswith("host") else PRODUCTS
        chosen = [case for case in chosen if case.op.startswith("conv_" if arguments.precision == "fast" else stored)]
    if arguments.cpu_time and (backend == "cuda" or arguments.threads != 1):
        print("--cpu-time: expected --backend host or simt, and --threads 1", file=sys.stderr)
        return 2
    title = f"{module} on {name}, {arguments.images} images" + ("" if backend == "cuda" else f", {arguments.threads} threads")
    with ExitStack() as stack:
        peer = Peer(stack, arguments, backend) if arguments.peer else None
        print(title + (f"; peer: {peer.name}; ratios: its time by ours" if peer else ""))
        print(f"{'layer':14} {'op':21} {'ms':>9} {'spread':>6} {'GB/s':>7} {'GFLOP/s':>8} {'of peak':>7}"
              + (f" {'gain':>6} {'exact rms':>9} {'max':>9} {f'{arguments.precision} rms':>10} {'max':>9}" if arguments.precision != "exact" else "") + (f" {'written':>8} {'best':>6}  its best way" if peer else ""))
        rows = []
        for case in chosen:
            rows.append(measure(arguments, backend, peer, case))
            print(line_of(rows[-1]), flush=True)
    peaks = [peak for row in rows for peak in row["peaks"]]
    print(f"peak {statistics.median(peaks) / 1e9:.1f} GFLOP/s, at most {max(peaks) / 1e9:.1f}")
    if arguments.json:
        report = {"command": sys.argv, "machine": machine(), "backend": module, "device": name, "images": arguments.images, "threads": arguments.threads,
                  "cpu_time": arguments.cpu_time, "precision": arguments.precision, "tiles": tile_table(backend), "peer": peer and peer.name, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.plot:
        plot(arguments.plot, rows, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The tables of what was measured, made from benchmarks/results/: the nets' for README, those of every op for docs/speed.md.

    python benchmarks/results_table.py [--write]

prints them, or writes them into the two pages. A folder of results/ is a device; what was not measured is not shown.
"""
from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from environment import ROOT, device_of

RESULTS = ROOT / "benchmarks" / "results"
README, SPEED = ROOT / "README.md", ROOT / "docs" / "speed.md"
BEGIN = "<!-- python benchmarks/results_table.py --write makes the tables from benchmarks/results/ -->"
END = "<!-- end of the tables -->"
NO_GPU = "Nothing has been measured on a GPU yet: `python benchmarks/gpu_report.py` does it where there is one."
NETS = ("train", "inference")  # what the files that train_throughput.py writes begin with
PEER_WAYS = ("as written", "at its best")
PRODUCTS = ("conv_", "fc_")  # ops that begin so are convolutions and fully connected layers, by direction


def table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield from ("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def measured(result: dict) -> str:
    """When, and by which commit."""
    return f"{result['machine']['date']}, commit {result['machine']['commit']}"


def read(folder: Path) -> dict[str, dict]:
    """What the tables are made of, by the file's name."""
    results = {}
    for path in sorted(path for kind in ("ops*", "train*", "inference*", "input*", "report") for path in folder.glob(f"{kind}.json")):
        try:
            results[path.stem] = json.loads(path.read_text())
        except ValueError as error:
            sys.exit(f"results_table: {path} is not JSON: {error}")
    return results


# ---- the tables ----------------------------------------------------------------------------------------------------


def ops_tables(result: dict) -> Iterator[str]:
    """Of op_throughput.py's file: a row for each layer, first of the ops that multiply, by direction, then of the others."""
    peer = (result.get("peer") or "").partition(",")[0]
    threads = "" if result["backend"] == "cuda" else f", {result['threads']} thread{'s' * (result['threads'] > 1)}"
    yield f"Ops, {result['images']} image{'s' * (result['images'] > 1)}{threads} ({measured(result)})" + (
        f"; ratios: the time of {peer} as one would write it, and at its best, by ours" if peer else "") + "."
    products = [row for row in result["rows"] if row["flops"]]
    for kind in PRODUCTS:
        cells: dict[str, dict[str, str]] = {}
        for row in products:
            if row["op"].startswith(kind):
                cells.setdefault(row["layer"], {})[row["op"].removeprefix(kind)] = f"{row['share']:.0%}" + "".join(f", {ratio:.2f}" for ratio in ratios(row))
        if cells:
            directions = list(dict.fromkeys(row["op"].removeprefix(kind) for row in products if row["op"].startswith(kind)))
            yield ""
            yield from table(["of the peak" + ", as written, best" * bool(peer), *directions], [[layer, *(row.get(op, "") for op in directions)] for layer, row in cells.items()])
    others = [row for row in result["rows"] if not row["flops"]]
    if others:
        yield ""
        yield from table(["", "layer", "ms", "GB/s", *["as written", "best"] * bool(peer)], [
            [row["op"], row["layer"], f"{row['seconds'] * 1e3:.3g}", f"{row['bytes'] / row['seconds'] / 1e9:.1f}", *(f"{ratio:.2f}" for ratio in ratios(row))] for row in others])


def ratios(row: dict) -> list[float]:
    return [row["ratios"][column] for column in ("as written", "best")] if "ratios" in row else []


def mapping_name(mapping: str, backend: str) -> str:
    """2x1:convnet/models/alexnet -> 2 devices, 1 thread each, alexnet; 1x2 fast -> 1 device, 2 threads, --precision fast;
    1x2 --graphs off -> 1 device, 2 threads, --graphs off."""
    mapping, _, how = mapping.partition(" ")
    devices, _, model = mapping.partition(":")
    count, threads = map(int, devices.split("x"))
    name = f"{count} device" + "s" * (count > 1)
    if backend != "cuda":
        name += f", {threads} thread" + "s" * (threads > 1) + " each" * (count > 1)
    return name + (f", {Path(model).name}" if model else "") + (f", {how}" if how.startswith("--") else f", --precision {how}" if how else "")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.{0 if seconds >= 0.1 else 2}f} ms"


def train_table(result: dict) -> Iterator[str]:
    """Of train_throughput.py's file: a row for each contestant."""
    what = "Inference" if result.get("phase") == "test" else "Training steps"
    yield f"{what} of {result['model']}, {result['images']} image{'s' * (result['images'] > 1)} ({measured(result)})."
    yield ""
    names = {"torch as written": "as one would write it", "torch at its best": "the fastest way that a search finds"}
    rows = []
    for name, row in result["rows"].items():
        seconds = statistics.median(row["seconds"])
        way, _, precision = name.partition(", ")
        label = f"{result.get('peer') or 'PyTorch'}, {names[way]}" + (f", {precision}" if precision else "") if way in names else mapping_name(name, result["backend"])
        rows.append([label, milliseconds(seconds), f"{result['images'] / seconds:.0f}", f"{row['ratio']:.2f}"])
    yield from table(["", "step", "images/s", "time by that of the first row"], rows)


def input_lines(results: list[dict]) -> Iterator[str]:
    """Of train_throughput.py's files with --without-input."""
    yield "What reading, cutting, uploading, cropping, mirroring, colour noise and the mean add to a training step, batches on the disk being read ahead:"
    yield ""
    yield from table(["", "images", "step", "longer by"], [
        [result["model"], str(result["images"]), f"{result['input']['step_seconds'] * 1e3:.3g} ms", f"{result['input']['share']:.1%}"] for result in results])


def stages_table(report: dict) -> Iterator[str]:
    """Of gpu_report.py's file: what came of each stage."""
    yield f"`gpu_report.py` ({measured(report)}), driver {report['machine']['gpu']['driver_version']}:"
    yield ""
    yield from table(["stage", "", "its last line"], [
        [name, stage["state"], stage["last_line"].replace("|", "\\|") if re.search("[a-z]", stage["last_line"]) else ""] for name, stage in report["stages"].items()])


def device_title(folder: Path, results: dict[str, dict], to_root: str) -> str:
    first = next(iter(results.values()))
    return f"**{device_of(first['machine'], first['backend'])}** ([benchmarks/results/{folder.name}]({to_root}benchmarks/results/{folder.name}))"


def op_and_net_tables(results: dict[str, dict]) -> Iterator[str]:
    """All that was measured on a device."""
    ops = [ops_tables(result) for name, result in results.items() if name.startswith("ops")]
    trains = [train_table(result) for name, result in results.items() if name.startswith(NETS)]
    inputs = [result for name, result in results.items() if name.startswith("input")]
    inputs = [input_lines(inputs)] if inputs else []
    reports = [stages_table(results["report"])] if "report" in results else []
    for lines in (*ops, *trains, *inputs, *reports):
        yield ""
        yield from lines


def net_table(results: dict[str, dict]) -> Iterator[str]:
    """The nets alone, in one table: a row for each of our contestants, with the peer's time by ours where both had all threads."""
    rows = []
    for result in (result for name, result in results.items() if name.startswith(NETS)):
        phase = "inference" if result.get("phase") == "test" else "training"
        ours = [name for name in result["rows"] if not name.startswith("torch")]
        most = max(map(threads_of, ours))
        for name in ours:
            seconds = statistics.median(result["rows"][name]["seconds"])
            rows.append([f"{result['model']}, {phase}", str(result["images"]), mapping_name(name, result["backend"]), milliseconds(seconds),
                         f"{result['images'] / seconds:.0f}", *(peer_ratio(result, name, way) if threads_of(name) == most or result["backend"] == "cuda" else "" for way in PEER_WAYS)])
    yield ""
    yield from table(["", "images", "", "a minibatch", "images/s", *PEER_WAYS], sorted(rows, key=lambda row: (row[0], int(row[1]))))


def threads_of(name: str) -> int:
    return math.prod(map(int, re.match(r"(\d+)x(\d+)", name).groups()))


def peer_ratio(result: dict, name: str, way: str) -> str:
    """The peer's time by ours: at the same precision, or, where it was not measured, at its usual one."""
    rows, precision = result["rows"], name.partition(" ")[2]
    peer = rows.get(f"torch {way}, {precision}") or rows.get(f"torch {way}")
    return f"{statistics.median(peer['seconds']) / statistics.median(rows[name]['seconds']):.2f}" if peer else ""


def tables(root: Path, of_device: Callable[[dict[str, dict]], Iterator[str]], to_root: str = "") -> str:
    """What a page shows of each device, GPUs first; to_root: the path from the page to the root."""
    devices = [(folder, results) for folder in sorted(root.iterdir()) if (results := read(folder))]
    gpus = [(folder, results) for folder, results in devices if next(iter(results.values()))["backend"] == "cuda"]
    blocks = [] if gpus else [NO_GPU]
    blocks += ["\n".join([device_title(folder, results, to_root), *of_device(results)])
               for folder, results in gpus + [device for device in devices if device not in gpus]]
    return "\n\n".join(blocks)


def with_tables(page: str, block: str, name: str) -> str:
    """The text of the page of this name, with this between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"results_table: {name} lacks the line {END if begin else BEGIN}")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def pages(root: Path) -> dict[Path, str]:
    """The two pages, as they should be."""
    blocks = {README: tables(root, net_table), SPEED: tables(root, op_and_net_tables, to_root="../")}
    return {page: with_tables(page.read_text(), block, page.name) for page, block in blocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md and docs/speed.md")
    if parser.parse_args().write:
        for page, text in pages(RESULTS).items():
            page.write_text(text)
    else:
        print(tables(RESULTS, op_and_net_tables))


if __name__ == "__main__":
    main()

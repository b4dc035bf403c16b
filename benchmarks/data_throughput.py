"""Images a second: made into batches, and read from them. python benchmarks/data_throughput.py FOLDER

FOLDER has one folder of images a class, as convnet-data reads it; benchmarks/photographs.py makes one. Batches are made in a
temporary folder. `a core` is by processor time, which other programs on the machine do not change much; `seen` is by the clock.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from environment import machine, run_through_go
from timing import spread

run_through_go()

import numpy as np  # noqa: E402
import PIL  # noqa: E402

from convnet.data import open_provider  # noqa: E402
from convnet.data.making import Settings, make  # noqa: E402
from convnet.data.making.sources import FolderSource  # noqa: E402
from convnet.errors import ConvnetError  # noqa: E402


def timed(images: int, repeats: int, work) -> dict:
    """Images a second by the clock and by processor time, the medians of several runs."""
    seconds, processor = [], []
    for turn in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        work(turn)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {"seen": images / float(np.median(seconds)), "core": images / float(np.median(processor)), "spread": spread(processor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    source = FolderSource(options.folder, None, 0, 1)
    sizes = [item.place[2] for item in source.groups["training"]]
    print(f"{len(sizes)} images of {np.mean(sizes) / 1000:.0f} kB to {options.size} x {options.size}, Pillow {PIL.__version__}")
    print(f"{'':32}{'threads':>8}{'images/s a core':>17}{'spread':>8}{'seen':>8}")
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for kind in ("jpeg", "raw"):
            for threads in options.threads:
                settings = Settings(size=options.size, kind=kind, batch_size=512, workers=threads)
                made = Path(place, f"{kind}-{threads}")
                rows.append({"what": f"make {kind} batches", "threads": threads} | timed(
                    len(sizes), options.repeats, lambda turn, s=settings, folder=made: make(source, folder / str(turn), s)))
            stored = sum(file.stat().st_size for file in (made / "0").glob("data_batch_*")) / len(sizes)
            for threads in options.threads:
                provider = open_provider("image", made / "0", threads=threads)
                first = provider.read(1).images
                rows.append({"what": f"read {kind} batches", "threads": threads, "bytes": stored} | timed(first, options.repeats, lambda _, p=provider: p.read(1)))
    for row in rows:
        print(f"{row['what']:32}{row['threads']:>8}{row['core']:>17.0f}{row['spread']:>7.0%}{row['seen']:>9.0f}" + (f"   {row['bytes'] / 1000:.1f} kB an image" if "bytes" in row else ""))
    if options.json:
        options.json.write_text(json.dumps({"command": sys.argv, "machine": machine(), "pillow": PIL.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except ConvnetError as error:
        sys.exit(f"data_throughput: {error}")

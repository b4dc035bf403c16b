"""Makes data batches of images: `make(source, folder, settings)`.

The images are put into random order (by the seed), divided into batches, and a batch is one file, whatever made it. A
folder's `making.json` says what is being made there: the same call goes on after an interruption, with the batches that are
there, and another one is refused. Mean and colours are those of the images as they are stored, so they are found at the end.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features
from tqdm import tqdm

from convnet import __version__
from convnet.checkpoint import LOCK, lock
from convnet.data.augment import ColorSums
from convnet.data.batch_file import BatchFile, open_batch, replacing, write_batch
from convnet.data.batches import format_range
from convnet.data.decode import BadImage, decode_square, keep_freed_memory
from convnet.data.image import MEAN, META, VERSION, pixels_of
from convnet.data.making.sources import Item, Source, shuffled
from convnet.errors import CannotCreate, DataError, MissingInput

MAKING, REPORT = "making.json", "report.txt"
BLOCK = 32  # images whose sums are found at once
MODES = {"1": "black and white", "L": "gray", "LA": "gray with transparency", "P": "a palette", "PA": "a palette with transparency", "I": "gray of 16 bits",
         "I;16": "gray of 16 bits", "RGBA": "RGB with transparency"}  # what Pillow calls them


@dataclass(frozen=True)
class Settings:
    """How batches are made. Workers change nothing in them."""

    size: int = 256
    kind: str = "jpeg"
    quality: int = 95
    batch_size: int = 1024
    seed: int = 1
    strict: bool = False
    workers: int = 1


@dataclass
class Report:
    """What became of the images. counts: group -> images by label; converted: what others than RGB were, and how many."""

    class_names: list[str]
    counts: dict[str, Counter] = field(default_factory=dict)
    converted: Counter = field(default_factory=Counter)
    refused: list[tuple[str, str]] = field(default_factory=list)  # name and reason

    def add(self, batch: BatchFile) -> None:
        self.counts.setdefault(batch.header["group"], Counter()).update(batch.index["label"].tolist())
        self.converted.update(batch.header["converted"])
        self.refused += [(name, reason) for name, reason in batch.header["refused"]]

    def text(self, most_classes: int | None = None) -> str:
        """As lines; of many classes those with the most and the fewest images."""
        groups = list(self.counts)
        totals = {group: sum(counts.values()) for group, counts in self.counts.items()}
        labels = list(range(len(self.class_names)))
        left_out = most_classes is not None and len(labels) > most_classes
        if left_out:
            labels.sort(key=lambda label: -sum(counts[label] for counts in self.counts.values()))
            labels = [*labels[: most_classes // 2], *labels[-(most_classes // 2) :]]
        rows = [("class", *groups), *((self.class_names[label][:50], *(str(self.counts[group][label]) for group in groups)) for label in labels)]
        rows.append(("all", *(str(totals[group]) for group in groups)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(groups) + 1)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(word.rjust(width) for word, width in zip(row[1:], widths[1:], strict=True))]) for row in rows]
        if left_out:
            lines.insert(1 + most_classes // 2, f"... ({len(self.class_names) - len(labels)} classes more in {REPORT})")
        lines.append("")
        lines += [f"{count} converted from {MODES.get(mode, mode)}" for mode, count in sorted(self.converted.items())]
        lines.append(f"{len(self.refused)} not used" + (":" if self.refused else ""))
        shown = self.refused if most_classes is None else self.refused[:20]
        lines += [f"  {name}: {reason}" for name, reason in shown]
        if len(shown) < len(self.refused):
            lines.append(f"  ... ({len(self.refused) - len(shown)} more in {REPORT})")
        return "\n".join(lines)


def make(source: Source, folder: Path, settings: Settings) -> Report:
    """Makes the batches of a source in a folder, or those that are missing there.

    Raises CannotCreate where the folder holds something else, DataError for a bad image where settings.strict says so.
    """
    keep_freed_memory()
    with lock(folder, "another folder"):
        try:
            return _make(source, folder, settings)
        finally:
            (folder / LOCK).unlink(missing_ok=True)  # what is left is the same for everyone


def _make(source: Source, folder: Path, settings: Settings) -> Report:
    plan = planned(source, settings)
    if (folder / META).exists() and _read(folder / META).get("made") != plan:
        raise CannotCreate(f"{folder}: holds other batches{_difference(_read(folder / META).get('made'), plan)}; give another folder, or remove it")
    begin(folder, plan)
    batches = list(make_batches(source, folder, settings, plan))
    report = Report(source.class_names)
    for batch in batches:
        report.add(batch)
    if not report.counts.get("training"):
        raise DataError(f"{folder}: none of the images could be read:\n{report.text(40)}")
    if not (folder / META).exists():
        finish(folder, source, settings, plan, batches, report)
    (folder / MAKING).unlink(missing_ok=True)
    return report


def planned(source: Source, settings: Settings) -> dict:
    """All that the bytes depend on."""
    made = {"source": source.about, "images": source.fingerprint(), "seed": settings.seed, "batch_size": settings.batch_size, "kind": settings.kind,
            "convnet": __version__}
    if source.encoded:
        made |= {"size": settings.size, "quality": settings.quality if settings.kind == "jpeg" else None, "pillow": PIL.__version__,
                 "libjpeg": features.version("libjpeg_turbo") or features.version("jpg")}
    return made


def begin(folder: Path, plan: dict) -> None:
    """Notes in the folder what is being made, or sees that it is the same."""
    if (folder / MAKING).exists() and (found := _read(folder / MAKING)) != plan:
        raise CannotCreate(f"{folder}: other batches are being made there{_difference(found, plan)}; give another folder, or remove it")
    if not any((folder / name).exists() for name in (MAKING, META)):
        others = sorted(path.name for path in folder.glob("data_batch_*"))
        if others:
            raise CannotCreate(f"{folder}: holds {others[0]}, which convnet-data did not make; give another folder")
        with replacing(folder / MAKING) as file:
            file.write(_json(plan))


def make_batches(source: Source, folder: Path, settings: Settings, plan: dict) -> Iterator[BatchFile]:
    """The batches one after the other, each made unless it is there; those of which no image can be read are left out."""
    shape = [3, settings.size, settings.size] if source.encoded else list(source.shape)
    total = sum(map(len, source.groups.values()))
    number = 0
    with ThreadPoolExecutor(settings.workers, thread_name_prefix="make") as pool, \
            tqdm(total=total, unit=" images", disable=None, leave=False, file=sys.stdout) as bar:
        for stream, (group, items) in enumerate(source.groups.items(), 1):
            items = shuffled(items, settings.seed, stream) if source.shuffled else items
            for first in range(0, len(items), settings.batch_size):
                number += 1
                part, path = items[first : first + settings.batch_size], folder / f"data_batch_{number}"
                bar.set_description(f"data_batch_{number}", refresh=False)
                if path.exists():
                    if open_batch(path).header.get("made") != plan:
                        raise CannotCreate(f"{path}: was made otherwise, or of other images; remove it")
                    bar.update(len(part))
                else:
                    header = {"number": number, "group": group, "kind": settings.kind, "shape": shape, "made": plan}
                    make_batch(source, part, path, header, settings, pool, bar)
                if path.exists():
                    yield open_batch(path)


def make_batch(source: Source, items: list[Item], path: Path, header: dict, settings: Settings, pool: ThreadPoolExecutor, bar: tqdm) -> None:
    def record(item: Item) -> tuple[bytes, str] | BadImage:
        try:
            data = source.read(item)
            return encoded(data, settings) if source.encoded else (data, "RGB")
        except BadImage as error:
            if settings.strict:
                raise DataError(f"{item.name}: {error} (without --strict it is left out, and named in the report)") from None
            return error

    records, used, modes, refused = [], [], Counter(), []
    futures = [pool.submit(record, item) for item in items]
    try:
        for item, future in zip(items, futures, strict=True):
            made = future.result()
            if isinstance(made, BadImage):
                refused.append((item.name, str(made)))
            else:
                records.append(made[0])
                used.append(item)
                modes[made[1]] += 1
            bar.update()
    finally:
        for future in futures:
            future.cancel()
    del modes["RGB"]
    header |= {"names": [item.name for item in used], "converted": dict(modes), "refused": refused}
    write_batch(path, header, records, [item.label for item in used])


def encoded(data: bytes, settings: Settings) -> tuple[bytes, str]:
    """The record of an image file, and the mode that it was converted from."""
    picture = decode_square(data, settings.size)
    if settings.kind == "raw":
        return np.ascontiguousarray(picture.pixels.transpose(2, 0, 1)).tobytes(), picture.mode
    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "JPEG", quality=settings.quality)
    return file.getvalue(), picture.mode


# ---- mean and colours ----------------------------------------------------------------------------------------


def finish(folder: Path, source: Source, settings: Settings, plan: dict, batches: list[BatchFile], report: Report) -> None:
    """Writes mean.npy, report.txt and, last, batches.json."""
    training = [batch for batch in batches if batch.header["group"] == "training"]
    mean, colors = statistics(training, settings.workers)
    with replacing(folder / MEAN) as file:
        np.lib.format.write_array(file, mean, (1, 0), allow_pickle=False)
    with replacing(folder / REPORT) as file:
        file.write(f"{report.text()}\n".encode())
    groups = {group: format_range(b.header["number"] for b in batches if b.header["group"] == group) for group in report.counts}
    meta = {"version": VERSION, "shape": training[0].header["shape"], "kind": settings.kind, "class_names": source.class_names, "groups": groups,
            "images": {group: sum(counts.values()) for group, counts in report.counts.items()}, "color_pca": colors.color_pca().tolist(), "made": plan, **source.also}
    with replacing(folder / META) as file:
        file.write(_json(meta))


def statistics(batches: list[BatchFile], workers: int) -> tuple[np.ndarray, ColorSums]:
    """The mean image, float32 (channels, height, width), and the sums of colours; sums are of integers, and exact."""
    shape = tuple(batches[0].header["shape"])
    total, count, colors = np.zeros(shape, np.int64), 0, ColorSums(shape[0])

    def sums(part: tuple[BatchFile, int, list[bytes]]) -> tuple[np.ndarray, ColorSums]:
        batch, first, records = part
        images = np.stack([pixels_of(batch, first + i, record) for i, record in enumerate(records)])
        found = ColorSums(shape[0])
        found.add(np.moveaxis(images, 1, 0).reshape(shape[0], -1))
        return images.sum(axis=0, dtype=np.int64), found

    with ThreadPoolExecutor(workers, thread_name_prefix="mean") as pool, \
            tqdm(total=sum(len(b.index) for b in batches), unit=" images", desc="mean", disable=None, leave=False, file=sys.stdout) as bar:
        for batch in batches:
            records = batch.read_records()
            parts = [(batch, first, records[first : first + BLOCK]) for first in range(0, len(records), BLOCK)]
            for part, found in pool.map(sums, parts):
                total += part
                colors.merge(found)
            count += len(records)
            bar.update(len(records))
    return (total / count).astype(np.float32), colors


# ---- small files -----------------------------------------------------------------------------------------------


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _read(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: not what convnet-data wrote; remove it, or give another folder")
    return value


def _difference(found: dict | None, plan: dict) -> str:
    """The first thing in which two plans differ."""
    for key in plan:
        if not isinstance(found, dict) or found.get(key) != plan[key]:
            before = found.get(key) if isinstance(found, dict) else None
            return ", of other images" if key in ("images", "source") else f", with {key} {before} in place of {plan[key]}"
    return ""

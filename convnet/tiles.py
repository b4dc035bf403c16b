"""Tables of measured tiles: how products of conv, fc and local are computed on a GPU, where the rule of shapes does not decide.

    {"device": "NVIDIA H200, sm_90", ...,
     "lines": [{"op": "conv_forward", "precision": "tf32", "m": 128, "n": 93312, "groups": 2, "units": 48, "unit": 25, "tile": "mma", "parts": 1, ...}]}

benchmarks/tune.py writes such a file, with the measurement in every line; src/kernels/tiles.h says what the words mean. In force
are the lines for the architecture that come with convnet and, before them, those that this user has measured on the device.
CONVNET_TILES names a file in place of both; off is the rule alone.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import DataError, MissingInput

SHIPPED = Path(__file__).parent / "measured"  # ARCHITECTURE.json: none yet
PRECISIONS = ("exact", "bf16x3", "tf32", "bf16")
EXACT_TILES = ("large", "mid", "wide", "small")
TILES = {"exact": EXACT_TILES, **dict.fromkeys(("bf16x3", "tf32", "bf16"), (*EXACT_TILES, "mma", "mma_wide"))}  # by precision
SIZES = ("m", "n", "groups", "units", "unit")
ALLOWED = {"op": ("conv_forward", "conv_backward_data", "conv_backward_filters", "local_forward", "local_backward_data", "local_backward_weights"),
           "precision": PRECISIONS, **dict.fromkeys(SIZES, range(1, 2**63))}
MOST_PARTS = 65535
MEND = "remove it, and python benchmarks/tune.py makes it again; CONVNET_TILES=off does without"

Tiles = dict[tuple, tuple[str, int]]  # (op, precision, *SIZES) -> tile, parts


@dataclass(frozen=True)
class TileTable:
    """What is in force, and of which files."""

    tiles: Tiles = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def stored(self) -> dict | None:
        """What a log or a result tells of it: the same digest, the same order of all sums. None: the rule alone."""
        digest = hashlib.sha256(json.dumps(sorted(self.tiles.items())).encode()).hexdigest()
        return {"lines": len(self.tiles), "digest": digest[:12], "files": self.files} if self.tiles else None


def own_file(backend: str, device: str) -> Path:
    """What this user has measured on a device."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "convnet", "tiles", re.sub(r"[^a-z0-9]+", "-", f"{backend} {device}".lower()).strip("-") + ".json")


def table_for(backend: str, device: str) -> TileTable:
    """Raises DataError and MissingInput: a file that cannot be read as a table is not passed over, for bits depend on it."""
    asked = os.environ.get("CONVNET_TILES", "")
    if asked == "off":
        return TileTable()
    found = [Path(asked).expanduser()] if asked else [path for path in (SHIPPED / f"{device.rpartition(', ')[2]}.json", own_file(backend, device)) if os.path.isfile(path)]
    tiles: Tiles = {}
    for path in found:
        tiles |= read_tiles(path)
    return TileTable(tiles, tuple(map(str, found)))


def read_tiles(path: Path) -> Tiles:
    return {key_of(line): (line["tile"], line["parts"]) for line in read_lines(path)}


def read_lines(path: Path) -> list[dict]:
    """The lines of a file, checked: all that decides how a product is computed, not what was measured."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}; expected CONVNET_TILES to name what benchmarks/tune.py wrote, or to be off") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: found no JSON ({error}); {MEND}") from None
    lines = content.get("lines") if isinstance(content, dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise DataError(f"{path}: found no list of objects as \"lines\"; {MEND}")
    first: dict[tuple, int] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number} of \"lines\""
        for name, allowed in ALLOWED.items():
            check(where, name, line.get(name), allowed)
        check(where, "tile", line.get("tile"), TILES[line["precision"]])
        check(where, "parts", line.get("parts"), range(1, min(line["units"], MOST_PARTS) + 1))
        if (before := first.setdefault(key_of(line), number)) != number:
            raise DataError(f"{where}: of the product of line {before}, expected each once; {MEND}")
    return lines


def check(where: str, name: str, value: Any, allowed: tuple[str, ...] | range) -> None:
    if type(value) is not (int if isinstance(allowed, range) else str) or value not in allowed:
        expected = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(allowed)
        raise DataError(f"{where}: {name}: found {str(value)[:60]}, expected {expected}; {MEND}")


def key_of(line: dict) -> tuple:
    return tuple(line[name] for name in ALLOWED)

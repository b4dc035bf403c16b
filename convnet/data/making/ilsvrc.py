"""ImageNet's challenges of 2010 and 2012: tars of images, and the devkit that says what they show."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from convnet.data.making.matlab import NotMatlab, read_structures
from convnet.data.making.sources import Item, TarSource, read_small_files, tar_members
from convnet.errors import DataError, MissingInput

CLASSES = 1000
YEARS = (2010, 2012)


class IlsvrcSource(TarSource):
    """train, validation, test: the tars as they are published; validation and test may be None.

    devkit      the devkit's archive, or the folder it was unpacked to; its year is found by what is in it
    test_truth  the file of the test images' classes, a number a line, where the devkit has none
    The label of a class is its ILSVRC_ID - 1, as in the original's batches.
    """

    def __init__(self, devkit: Path, train: Path, validation: Path | None, test: Path | None, test_truth: Path | None):
        truths = {(year, group): f"ILSVRC{year}_{group}_ground_truth.txt" for year in YEARS for group in ("validation", "test")}
        files = read_small_files(devkit, ["meta.mat"], list(truths.values()))
        year = next((year for year in YEARS if truths[year, "validation"] in files), None)
        if year is None:
            raise MissingInput(f"{devkit}: no {truths[2010, 'validation']} and no {truths[2012, 'validation']} in it; expected the devkit of ILSVRC-2010 or -2012")
        wnids, names = read_synsets(files["meta.mat"], year, f"{devkit}: meta.mat")
        tars, groups = [train], {"training": training_items(train, {wnid: label for label, wnid in enumerate(wnids)})}
        for group, tar, code in (("validation", validation, "val"), ("test", test, "test")):
            if tar:
                where, text = f"{devkit}: {truths[year, group]}", files.get(truths[year, group])
                if group == "test" and test_truth:
                    where, text = str(test_truth), read_file(test_truth)
                if text is None:
                    raise MissingInput(f"{where}: not there; give --test-truth FILE")
                groups[group] = numbered_items(tar, f"ILSVRC{year}_{code}_", read_truth(text, where, len(names)), len(tars))
                tars.append(tar)
        super().__init__(groups, names, {"name": f"ILSVRC-{year}"}, tars)
        self.also = {"wnids": wnids}


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None


def read_synsets(meta: bytes, year: int, where: str) -> tuple[list[str], list[str]]:
    """WordNet's numbers of the classes, in the order of their ILSVRC_IDs, and their names."""
    try:
        synsets = read_structures(meta, "synsets")
    except NotMatlab as error:
        raise DataError(f"{where}: {error}") from None
    found: dict[int, tuple[str, str]] = {}
    for synset in synsets:
        number, wnid, words = synset.get(f"ILSVRC{year}_ID"), synset.get("WNID"), synset.get("words")
        if not isinstance(number, np.ndarray) or number.size != 1 or not isinstance(wnid, str) or not isinstance(words, str):
            raise DataError(f"{where}: found the fields {', '.join(synset)}, expected ILSVRC{year}_ID, WNID and words")
        if 0 < number.item() <= CLASSES:  # those above stand for groups of classes
            found[int(number.item())] = wnid, words
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise DataError(f"{where}: the ILSVRC{year}_IDs are not 1, 2, 3, ...")
    return [found[i][0] for i in sorted(found)], [found[i][1] for i in sorted(found)]


def training_items(train: Path, labels: dict[str, int]) -> list[Item]:
    """Those of a tar of tars, each named for its class."""
    items = []
    for name, offset, length in tar_members(train):
        wnid = name.partition(".tar/")[0].rpartition("/")[2]
        if wnid not in labels:
            raise DataError(f"{train}: {name}: the class {wnid} is not in the devkit, expected a tar of tars such as n01440764.tar; are both of the same year?")
        items.append(Item(name.rpartition("/")[2], labels[wnid], (0, offset, length)))
    return items


def numbered_items(tar: Path, prefix: str, truth: list[int], which: int) -> list[Item]:
    """Those of a tar of images that are numbered from 1, in the order of their numbers."""
    items = {}
    for name, offset, length in tar_members(tar):
        match = re.fullmatch(rf"{prefix}([0-9]{{1,8}})\.JPEG", name.rpartition("/")[2])
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(truth):
            raise DataError(f"{tar}: {name}: expected {prefix}00000001.JPEG to {prefix}{len(truth):08}.JPEG: the devkit knows {len(truth)} images")
        items[number] = Item(name.rpartition("/")[2], truth[number - 1], (which, offset, length))
    return [items[number] for number in sorted(items)]


def read_truth(text: bytes, where: str, classes: int) -> list[int]:
    """Labels, from lines with an ILSVRC_ID each."""
    lines = text.split()
    bad = [line for line in lines if not line.isdigit() or not 1 <= int(line[:9]) <= classes]
    if bad:
        raise DataError(f"{where}: found {bad[0][:40].decode('latin-1')!r}, expected lines with a number from 1 to {classes}")
    return [int(line) - 1 for line in lines]

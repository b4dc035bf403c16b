"""What `convnet-show` draws of trained nets, as numbers: curves, filters, answers, nearest images."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from .cfgfile import suggest
from .config import parse_config
from .data import Prefetcher, Provider
from .drawing import drawn_sources
from .errors import CommandLineError, DataError
from .graph import Graph, Node
from .predict import TrainedNet
from .testing import Predictions, error_of, labels_of

SHOWN = 64  # filters and channels, at most, of a picture that shows many channels
STACKED = 4  # channels, at most, that are shown one below the other as one tile


# ---- curves ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Run:
    """The course of a run: (epochs done, cost, share of errors) by row, of its training batches and of its tests.

    quantities  what the numbers after the epochs are called; without the second where the cost counts no errors
    """

    name: str
    quantities: list[str]
    train: np.ndarray
    test: np.ndarray


def course(header: dict, name: str) -> Run:
    """That of a checkpoint's run. Raises DataError where it has none: a net that was converted, say."""
    history = header.get("history") or {}
    if not history.get("train") and not history.get("test"):
        raise DataError(f"{name}: no costs of a run in it; expected a checkpoint that convnet-train wrote after a data batch or a test")
    graph = graph_of(header)
    cost = graph.main_cost
    count = min(2, len(cost.layer.names())) if cost.layer.score else 1
    rows = {kind: [(epochs, *costs[cost.name][:count]) for epochs, costs in history.get(kind, [])] for kind in ("train", "test")}
    arrays = {kind: np.array(found, np.float64).reshape(-1, 1 + count) for kind, found in rows.items()}
    return Run(name, cost.layer.names()[:count], arrays["train"], arrays["test"])


def graph_of(header: dict) -> Graph:
    config = parse_config(header["layers_text"], header["params_text"], header["layers_file"], header["params_file"],
                          header["options"].get("strict_legacy", False))
    return Graph(config.layers, tuple(tuple(shape) for shape in header["shapes"]), header.get("class_tree"))


def thinned(rows: np.ndarray, most: int = 400) -> np.ndarray:
    """At most so many rows: means of equally many neighbours, that curves of long runs can be read."""
    size = -(-len(rows) // most)
    return np.array([rows[i : i + size].mean(0) for i in range(0, len(rows), size)]) if size > 1 else rows


# ---- filters ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Filters:
    """A layer's filters (channels, height, width, filters), and the devices that have them; `of`: how many the layer has."""

    layer: str
    devices: tuple[int, ...]
    weights: np.ndarray
    of: int


def filters(net: TrainedNet, layer: str = "", index: int = 0) -> list[Filters]:
    """Those of a layer for one of its inputs, or of all layers that see the images. Raises CommandLineError where there are none."""
    graph = net.net.graph
    if layer and layer not in graph.by_name:
        raise CommandLineError(f"--layer {layer}: no such layer; expected one of {', '.join(node.name for node in graph.nodes if node.weights)}")
    nodes = [graph.by_name[layer]] if layer else [node for node in graph.nodes if node.weights and sees_images(node)]
    found = [filters_of(net, node, index) for node in nodes]
    if not found:
        raise CommandLineError("no layer with filters reads the images; --layer NAME shows those of another")
    return found


def sees_images(node: Node) -> bool:
    return hasattr(node.layer, "filter_size") and any(source.layer.on_host and source.layer.data_idx == 0 for source, _ in drawn_sources(node))


def filters_of(net: TrainedNet, node: Node, index: int) -> Filters:
    name = f"W{index}"
    if name not in node.weights or node.layer.kind not in ("conv", "local", "fc"):
        inputs = sum(key.startswith("W") for key in node.weights)
        raise CommandLineError(f"--layer {node.name} --input {index}: " + (f"it has weights for the inputs 0 to {inputs - 1}" if inputs
                               else f"a layer of type {node.layer.kind} has no filters") + "; expected a conv, local or fc layer and one of its inputs")
    weights = net.net.get(node.owners[name])
    if node.layer.kind == "fc":  # an output's weights as a picture of what it reads
        weights = weights.reshape(*node.inputs[index].shape, -1)
    elif node.layer.kind == "local":  # they differ from place to place: those in the middle
        _, height, width = node.shape
        weights = weights[height // 2 * width + width // 2]
    return Filters(node.name, tuple(dict.fromkeys(node.devices)), weights, weights.shape[-1])


def mosaic(weights: np.ndarray, colour: bool, each: bool = False) -> tuple[np.ndarray, float]:
    """Filters side by side as one image, values 0 to 1 with 1/2 for a weight of 0, and which weight is 1.

    colour  three channels are red, green and blue: (rows, columns, 3). Else (rows, columns): channels one below the other,
            of more than STACKED only the first SHOWN, and filters in a single row, the first SHOWN
    each    every filter has its own scale
    """
    channels, height, width, count = weights.shape
    largest = np.abs(weights).max(axis=(0, 1, 2), keepdims=True)
    scale = np.maximum(largest if each else largest.max(), np.finfo(np.float32).tiny)
    tiles = (0.5 + 0.5 * weights / scale).transpose(3, 1, 2, 0)  # (filters, height, width, channels)
    columns, gap = tile_columns(count), 1
    if not colour:
        gap = 4 if 1 < channels <= STACKED else 1  # that the channels of a filter are seen to belong together
        if channels > STACKED:
            tiles = tiles[:SHOWN, ..., :SHOWN]
            columns = len(tiles)
        tiles = np.pad(tiles.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1)  # a line below each channel
        tiles = tiles.reshape(len(tiles), -1, width)[:, :-1]
    rows, height = -(-len(tiles) // columns), tiles.shape[1]
    image = np.ones((rows * (height + gap) - gap + 2, columns * (width + 1) + 1, *tiles.shape[3:]))
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + gap) + 1, i % columns * (width + 1) + 1
        image[y : y + height, x : x + width] = tile
    return image, float(largest.max())


def tile_columns(count: int) -> int:
    """Up to 16 a row, and rows that are as full as can be."""
    return next((columns for columns in range(16, 7, -1) if count % columns == 0), 16) if count > 16 else count


# ---- images and what the net makes of them ---------------------------------------------------------------------

def chosen(answers: Predictions, count: int, seed: int, only_errors: bool = False) -> np.ndarray:
    """The places of so many images among those tested, drawn by the seed, in rising order."""
    places = np.flatnonzero(error_of(answers.probs, answers.labels)) if only_errors else np.arange(len(answers.labels))
    if not len(places):
        raise DataError("--only-errors: the net gets every image of the test range right")
    order = np.random.Philox(key=seed).random_raw(len(answers.labels))[places].argsort(kind="stable")
    return np.sort(places[order[:count]])


def images_at(provider: Provider, numbers: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """The images (channels, height, width, images) at these places among those of some batches; places rise."""
    parts, first = [], 0
    with Prefetcher(provider, numbers) as batches:
        for batch in batches:
            inside = [place - first for place in places if first <= place < first + batch.images]
            parts.append(batch.data[0][..., inside])
            first += batch.images
            if first > max(places):
                break
    return np.concatenate(parts, axis=-1)


def feature_layers(net: TrainedNet, asked: str | None = None) -> list[str]:
    """The layers by whose acts images are compared: the one that is asked for, or the last hidden layer, in one or several columns.

    That is what the last layer with weights under the cost reads. Raises CommandLineError where there is no such layer.
    """
    if asked:
        names = [node.name for node in net.net.graph.computed if not node.layer.is_cost]
        if asked not in names:
            raise CommandLineError(f"--features {asked}: no such layer; expected one of {', '.join(names)}{suggest(asked, names)}")
        return [asked]
    node = net.net.graph.main_cost.inputs[-1]
    while not node.weights and len(node.inputs) == 1:
        node = node.inputs[0]
    names = [source.name for source in dict.fromkeys(node.inputs) if not source.layer.on_host]
    if not names:
        raise CommandLineError(f"the net's last layer {node.name} reads the images themselves: it has no hidden layer to compare them by; --features LAYER names one")
    return names


def features(net: TrainedNet, layers: Sequence[str], images: np.ndarray) -> np.ndarray:
    """(values of all layers, images) in float64."""
    return np.concatenate([net.acts(layer, images).reshape(-1, images.shape[-1]) for layer in layers]).astype(np.float64)


@dataclass(frozen=True)
class Nearest:
    """For each query the nearest of many images, nearest first.

    images     (channels, height, width, queries, found)
    labels, distances  (queries, found); distances are Euclidean, between acts
    """

    images: np.ndarray
    labels: np.ndarray
    distances: np.ndarray


def nearest(net: TrainedNet, layers: Sequence[str], queries: np.ndarray, provider: Provider, numbers: Sequence[int], count: int) -> Nearest:
    """The images of some batches whose acts of these layers are nearest to those of each query (channels, height, width, queries).

    One batch is held at a time. Of equally near ones, the first.
    """
    wanted = features(net, layers, queries)
    found: Nearest | None = None
    with Prefetcher(provider, numbers) as batches:
        for batch in tqdm(batches, total=len(numbers), desc="nearest", unit=" batches", leave=False, disable=None):
            acts = features(net, layers, batch.data[0])
            squares = (wanted**2).sum(0)[:, None] - 2 * wanted.T @ acts + (acts**2).sum(0)  # (queries, images)
            best = squares.argsort(axis=1, kind="stable")[:, :count]
            distances = np.stack([np.sqrt(((acts[:, row] - wanted[:, [i]]) ** 2).sum(0)) for i, row in enumerate(best)])
            found = merged(found, Nearest(batch.data[0][..., best], labels_of(batch)[best], distances), count)
    return found


def merged(old: Nearest | None, new: Nearest, count: int) -> Nearest:
    if old is None:
        return new
    distances = np.concatenate([old.distances, new.distances], axis=1)
    order = distances.argsort(axis=1, kind="stable")[:, :count]
    rows = np.arange(len(order))[:, None]
    images = np.concatenate([old.images, new.images], axis=-1)
    return Nearest(images[..., rows, order], np.concatenate([old.labels, new.labels], axis=1)[rows, order], distances[rows, order])


def shown_images(images: np.ndarray) -> np.ndarray:
    """Stored images (channels, height, width, ...) as pictures, values 0 to 1: (..., height, width, 3), or without the 3 in gray.

    Images of one or three channels are what they look like; of others the mean of the channels is shown. Pixels of 8 bits
    that use less than half of their range, as those of scanned digits, are made brighter, all alike; other numbers run from
    their least to their largest.
    """
    images = images if images.shape[0] in (1, 3) else images.mean(axis=0, keepdims=True)
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 255:
        low, high = 0.0, high if 1 < high < 128 else 1.0 if high <= 1 else 255.0
    pictures = np.moveaxis((images - low) / max(high - low, 1e-9), (0, 1, 2), (-1, -3, -2))
    return pictures[..., 0] if images.shape[0] == 1 else pictures

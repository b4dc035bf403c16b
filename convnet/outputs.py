"""What a net computes of data batches, as files that the originals' programs read: features and predictions."""
from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from .data import Prefetcher, Provider, minibatches
from .errors import CommandLineError
from .graph import Graph, Node
from .legacy.writing import write_pickle
from .net import Net
from .predict import TrainedNet
from .testing import Score, run_test


def write_features(net: Net, provider: Provider, numbers: list[int], layer: str, folder: Path, source: str, mini: int) -> None:
    """What a layer computes of batches when testing: data_batch_N, (images, values) as in the originals, and batches.meta."""
    most = 0
    with Prefetcher(provider, numbers) as batches:
        for batch in batches:
            features = np.concatenate([rows(net.test(arrays, (layer,))[1][layer]) for _, arrays in minibatches(batch, mini)])
            most = max(most, batch.images)
            path = folder / f"data_batch_{batch.number}"
            write_pickle(path, {"data": features, "labels": label_row(batch.data[1]), "source_model": source})
            print(f"Wrote feature file {path}", flush=True)
    channels, height, width = net.graph.by_name[layer].shape
    write_pickle(folder / "batches.meta", {
        "source_model": source, "layer": layer, "num_vis": channels * height * width, "img_channels": channels, "img_height": height, "img_width": width,
        "batch_size": most, "num_cases_per_batch": most, "label_names": provider.class_names})


def test_views(net: TrainedNet, provider: Provider, numbers: list[int], cost: Node, folder: Path | None, source: str) -> None:
    """Prints the costs of batches by the mean probabilities of all views of an image, and writes these if there is a folder."""
    net.probs_layer = cost.inputs[-1].name
    shape, names = cost.inputs[-1].shape, cost.layer.names()
    all_batches = Score(prod(shape), getattr(cost.layer, "topk", 1))
    for tested in run_test([net], provider, numbers, multiview=True):
        one = Score(all_batches.classes, all_batches.k)
        for score in (one, all_batches):
            score.add(tested.probs[0], tested.labels)
        print(f"batch {tested.number}: {cost.name}:  {costs_of(one, names)} ({len(tested.labels)} images)", flush=True)
        if folder:
            write_predictions(folder / f"test_preds_{tested.number}", [tested.probs[0]], source)
    print(f"{cost.name}:  {costs_of(all_batches, names)} (mean over the test range, {net.views} views of each image)")


def costs_of(score: Score, names: list[str]) -> str:
    return ", ".join(f"{value:.6f}" for value in list(score.means().values())[: len(names)])


def named_cost(graph: Graph, name: str | None) -> Node:
    """The cost that --logreg-name means; CommandLineError where there is none of that name."""
    costs = {node.name: node for node in graph.costs}
    if name and name not in costs:
        raise CommandLineError(f"--logreg-name {name}: no such cost; expected one of {', '.join(costs)}")
    return costs[name] if name else graph.main_cost


def write_predictions(path: Path, probs: list[np.ndarray], source: str) -> None:
    """The probabilities of a batch's images, minibatch by minibatch (classes, 1, 1, images): as (images, classes)."""
    write_pickle(path, {"data": np.concatenate([rows(part) for part in probs]), "note": f"generated from {source}"})


def rows(acts: np.ndarray) -> np.ndarray:
    """(channels, height, width, images) as float32 (images, values)."""
    return np.ascontiguousarray(acts.reshape(-1, acts.shape[-1]).T, np.float32)


def label_row(labels: np.ndarray) -> np.ndarray:
    """The labels of a batch, numbers or vectors, as (1, images)."""
    return (labels if labels.shape[0] == 1 else labels.argmax(axis=0)).reshape(1, -1).astype(np.float32)

"""What a net computes of data batches, as files that the originals' programs read: features and predictions."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from .data import Prefetcher, Provider, minibatches
from .legacy.writing import write_pickle
from .net import Net


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


def write_predictions(path: Path, probs: list[np.ndarray], source: str) -> None:
    """The probabilities of a batch's images, minibatch by minibatch (classes, 1, 1, images): as (images, classes)."""
    write_pickle(path, {"data": np.concatenate([rows(part) for part in probs]), "note": f"generated from {source}"})


def rows(acts: np.ndarray) -> np.ndarray:
    """(channels, height, width, images) as float32 (images, values)."""
    return np.ascontiguousarray(acts.reshape(-1, acts.shape[-1]).T, np.float32)


def label_row(labels: np.ndarray) -> np.ndarray:
    """The labels of a batch, numbers or vectors, as (1, images)."""
    return (labels if labels.shape[0] == 1 else labels.argmax(axis=0)).reshape(1, -1).astype(np.float32)

"""Testing trained nets on labelled images: one view or ten, one net or several averaged, and what they get wrong.

    with convnet.load("runs") as net:
        provider = open_provider("cifar", "DIR")
        found = predictions(net, provider, [6], multiview=True, layer="fc7_neuron")
        found.labels, found.probs, found.acts      # (images,), (classes, images), (values, images)
        error_of(found.probs, found.labels, 5)     # (images,), 1 where the label is not among the five likeliest
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .data import Batch, Prefetcher, Provider
from .errors import DataError
from .layers.cost import BinaryCrossEntropy, LogisticRegression
from .predict import TrainedNet

GAP = 1e-7  # of fit_weights: how much larger than the least the logprob may be
MAX_ROUNDS = 10_000


@dataclass(frozen=True)
class Predictions:
    """What a net, or an average of nets, says of images.

    labels  (images,) int64
    probs   (classes, images) float32
    acts    (values, images) float32 of the layer that was asked for, those of the centre view; None where none was
    """

    labels: np.ndarray
    probs: np.ndarray
    acts: np.ndarray | None = None


def predictions(net: TrainedNet, provider: Provider, numbers: Sequence[int], multiview: bool = False, layer: str = "") -> Predictions:
    """Those of a net for all images of some batches, in their order: all are held in memory."""
    check_net(net, provider)
    found = []
    with Prefetcher(provider, numbers) as batches:
        for batch in batches:
            images, acts = batch.data[0], None
            if layer:
                kept = {name: each.reshape(-1, batch.images) for name, each in net.acts_of(tuple(dict.fromkeys((net.probs_layer, layer))), images).items()}
                acts = kept[layer]
            probs = net.predict(images, multiview) if multiview or not layer else kept[net.probs_layer]
            found.append((labels_of(batch), probs, acts))
    labels, probs, acts = zip(*found, strict=True)
    return Predictions(np.concatenate(labels), np.concatenate(probs, axis=1), np.concatenate(acts, axis=1) if layer else None)


@dataclass(frozen=True)
class Tested:
    """A batch as several nets see it: labels (images,); probs of the centre view, and over all views, (nets, classes, images)."""

    number: int
    labels: np.ndarray
    centre: np.ndarray
    probs: np.ndarray


def run_test(nets: Sequence[TrainedNet], provider: Provider, numbers: Sequence[int], multiview: bool = False) -> Iterator[Tested]:
    """Each batch is read once for all nets. Without `multiview`, `probs` are those of the centre.

    Raises DataError where a net does not fit the data, or gives numbers that are not finite.
    """
    for net in nets:
        check_net(net, provider)
    with Prefetcher(provider, numbers) as batches:
        for batch in batches:
            images, labels = batch.data[0], labels_of(batch)
            seen = [net.predict_views(images) if multiview else (net.predict(images),) * 2 for net in nets]
            centre, probs = (np.stack(each) for each in zip(*seen, strict=True))
            if not np.isfinite(probs).all() or not np.isfinite(centre).all():
                raise DataError(f"batch {batch.number}: a net gives probabilities that are not finite")
            if labels.max() >= probs.shape[1]:
                raise DataError(f"batch {batch.number}: label {labels.max()}, but the net tells {probs.shape[1]} classes apart")
            yield Tested(batch.number, labels, centre, probs)


def check_net(net: TrainedNet, provider: Provider) -> None:
    """DataError where a net does not tell classes apart, or takes other images than these."""
    cost = net.net.graph.main_cost
    if not isinstance(cost.layer, (LogisticRegression, BinaryCrossEntropy)):
        raise DataError(f"the net's cost {cost.name} is of type {cost.layer.kind}, which tells no classes apart; expected cost.logreg, cost.bce or cost.crossent2")
    if provider.stored != net.shape:
        raise DataError(f"images of shape {provider.stored} in {provider.name}, but the net takes {net.shape}, as the data that it was trained on")


def labels_of(batch: Batch) -> np.ndarray:
    """The class of each image, (images,) int64, however the net reads labels; DataError where an image has not one class."""
    labels = batch.data[1].reshape(-1, batch.images)
    if len(labels) == 1:
        return labels[0].astype(np.int64)
    if (wrong := np.flatnonzero(labels.sum(0) != 1)).size:
        raise DataError(f"batch {batch.number}: image {wrong[0]} has {labels[:, wrong[0]].sum():g} classes, expected one")
    return labels.argmax(0)


# ---- how good they are -----------------------------------------------------------------------------------------


def probs_of(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The probability of each image's label, (images,), of (classes, images); or (nets, images) of (nets, classes, images)."""
    return probs[..., labels, np.arange(len(labels))]


def error_of(probs: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """(images,): 0 where the label is among the k likeliest classes, 1 where not, and in between where ties decide.

    As `logreg_forward` counts: of the classes that are as likely as the label's, those that find room among the k are a
    random choice.
    """
    right = probs_of(labels, probs)
    likelier, equal = (probs > right).sum(0), (probs == right).sum(0)
    return 1 - np.clip((k - likelier) / equal, 0, 1)


class Score:
    """Sums over images: logprob, top-1 and top-k error; the errors of each class, and which class was taken for which.

    images_of, errors_of  (classes,): images of each class, and their top-1 errors
    """

    def __init__(self, classes: int, k: int = 5):
        self.classes, self.k = classes, k
        self.sums = np.zeros(3)
        self.images_of, self.errors_of = np.zeros(classes, np.int64), np.zeros(classes)
        self._pairs: list[np.ndarray] = []  # label * classes + likeliest

    def add(self, probs: np.ndarray, labels: np.ndarray) -> None:
        """probs: (classes, images)."""
        top1 = error_of(probs, labels)
        with np.errstate(divide="ignore"):  # -log 0 is infinite, and is to be seen
            logprob = -np.log(probs_of(labels, probs).astype(np.float64))
        self.sums += [logprob.sum(), top1.sum(), error_of(probs, labels, self.k).sum()]
        self.images_of += np.bincount(labels, minlength=self.classes)
        self.errors_of += np.bincount(labels, top1, self.classes)
        self._pairs.append(labels * self.classes + probs.argmax(0))

    def means(self) -> dict[str, float]:
        """By their names; the top-k error only where there are more than k classes."""
        names = ("logprob", "top-1 error", f"top-{self.k} error")[: 3 if 1 < self.k < self.classes else 2]
        return dict(zip(names, (self.sums / self.images_of.sum()).tolist(), strict=False))

    def confusion(self) -> np.ndarray:
        """(classes, classes): how many images of the row's class have that of the column as the likeliest."""
        return np.bincount(np.concatenate(self._pairs), minlength=self.classes**2).reshape(self.classes, self.classes)

    def confusions(self) -> list[tuple[int, int, int]]:
        """(label, likeliest, images) where they differ, most frequent first."""
        codes, counts = np.unique(np.concatenate(self._pairs), return_counts=True)
        pairs = [(int(code) // self.classes, int(code) % self.classes, int(count)) for code, count in zip(codes, counts, strict=True)]
        return sorted((pair for pair in pairs if pair[0] != pair[1]), key=lambda pair: -pair[2])


# ---- averages --------------------------------------------------------------------------------------------------


def average(probs: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """The weighted mean (classes, images) of (nets, classes, images), net by net in order."""
    return sum(np.float32(weight) * each for weight, each in zip(weights, probs, strict=True))


def fit_weights(probs: np.ndarray) -> np.ndarray:
    """The weights, 0 or more and of sum 1, of nets whose average gives the labels the least mean -log probability.

    probs: (nets, images), of each image's label by each net. These are the weights of a mixture whose components are known,
    by expectation maximisation: w <- w g with g = mean over images of (p / sum over nets of w p). The problem is convex,
    and log(max g) bounds how far the mean is from its least (so that GAP can end the search); images that no net gives
    any probability are left out.
    """
    probs = probs[:, probs.max(0) > 0].astype(np.float64)
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(MAX_ROUNDS if probs.size else 0):
        gains = (probs / (weights @ probs)).mean(1)
        if np.log(gains.max()) <= GAP:
            break
        weights *= gains
    return weights / weights.sum()

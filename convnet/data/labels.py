"""The labels of a batch directory: numbers, lists of numbers, or a matrix; and the tree of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnet.errors import DataError

REMAKE = "; make the file again, or fetch it again"


@dataclass(frozen=True)
class Labels:
    """Those of one file: `index` (images,) the class of each image, and `vectors` (classes, images).

    Either may be None: a list has no vectors of its own, and a matrix no classes.
    """

    index: np.ndarray | None
    vectors: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: list[Labels]) -> Labels:
        """Those of several files, one after the other: what all of them have."""
        arrays = [[getattr(labels, name) for labels in parts] for name in ("index", "vectors")]
        return cls(*(None if any(array is None for array in each) else np.concatenate(each, axis=-1) for each in arrays))

    def __len__(self) -> int:
        return self.vectors.shape[1] if self.index is None else len(self.index)


@dataclass(frozen=True)
class LabelRule:
    """What labels must be: below `limit`, for the `reason` told; of images that have several, `classes` make vectors.

    offset  is added to each, as the meta files of the 2012 program say
    """

    limit: int
    reason: str
    classes: int | None = None
    offset: int = 0

    def read(self, path: Path, found: object) -> Labels:
        """Of a list or array of integers, of lists of integers (an image in several classes), or a matrix of numbers."""
        if isinstance(found, np.ndarray) and found.ndim == 2 and min(found.shape) > 1:
            return Labels(None, self._matrix(path, found))
        if isinstance(found, np.ndarray):
            found = found.ravel().tolist()
        if not isinstance(found, (list, tuple)):
            raise DataError(f"{path}: labels: a {type(found).__name__}, expected a list{REMAKE}")
        if not found or not all(isinstance(labels, (list, tuple)) for labels in found):
            return Labels(np.array([self._label(path, image, label) for image, label in enumerate(found)], np.float32))
        several = [[self._label(path, image, label) for label in labels] for image, labels in enumerate(found)]
        vectors = None
        if self.classes is not None:
            vectors = np.zeros((self.classes, len(several)), np.float32)
            for image, labels in enumerate(several):
                vectors[[int(label) for label in labels], image] = 1
        if not all(several):
            if vectors is None:
                raise DataError(f"{path}: image {several.index([])} has no label, expected one or more{REMAKE}")
            return Labels(None, vectors)
        return Labels(np.array([labels[0] for labels in several], np.float32), vectors)

    def _label(self, path: Path, image: int, label: object) -> float:
        real = isinstance(label, (int, float, np.integer, np.floating)) and not isinstance(label, bool)
        # In this order: NaN and infinity, which no range holds, have no int().
        if not (real and 0 <= label + self.offset < self.limit and label == int(label)):
            offset = f", to which label_offset = {self.offset} is added" if self.offset else ""
            raise DataError(
                f"{path}: image {image}: label {shown(label)}{offset}, expected an integer 0 to "
                f"{self.limit - 1}: {self.reason}"
            )
        return float(label + self.offset)

    def _matrix(self, path: Path, found: np.ndarray) -> np.ndarray:
        """(classes, images) of a matrix that may lie the other way."""
        if found.dtype.kind not in "iufb" or self.classes not in found.shape:
            raise DataError(f"{path}: labels: {found.dtype} of shape {found.shape}, expected numbers, {self.classes or 'so many'} an image: {self.reason}")
        with np.errstate(over="ignore"):
            vectors = (found if found.shape[0] == self.classes else found.T).astype(np.float32)
        if not np.isfinite(vectors).all():
            image = np.argwhere(~np.isfinite(vectors.T))[0][0]
            raise DataError(f"{path}: image {image}: its labels are not all finite{REMAKE}")
        return vectors


def read_class_tree(path: Path, tree: object, nodes: object) -> tuple[int, ...]:
    """The parents of a Provider's class_tree, of a meta file's `tree`, node -> children, and `all_wnids`, which has the root's number as gproot.

    The leaves are the labels, from 0 on (SEMANTICS 7.5).
    """
    root = nodes.get("gproot") if isinstance(nodes, dict) else None
    if not isinstance(tree, dict) or not all(isinstance(children, (list, tuple)) for children in tree.values()) or not _is_node(root):
        raise DataError(f"{path}: tree: a {type(tree).__name__}, and all_wnids with the root {shown(root)}, expected the children of each node, "
                        f"and the number of one of them{REMAKE}")
    parents: dict[object, object] = {}
    todo, inner = [root], []
    while todo:
        node = todo.pop()
        children = tree.get(node, ())
        if children:
            inner.append(node)
        for child in children:
            if not _is_node(child) or child in parents or child == root:
                raise DataError(f"{path}: tree: node {shown(child)} below {shown(node)}, expected a number that is below one node{REMAKE}")
            parents[child] = node
            todo.append(child)
    leaves = sorted((node for node in parents if not tree.get(node)), key=str)
    if {*leaves} != {*range(len(leaves))}:
        raise DataError(f"{path}: tree: leaves {', '.join(map(shown, leaves[:4]))}, ..., expected the labels 0 to {len(leaves) - 1}{REMAKE}")
    number = {node: len(leaves) + i for i, node in enumerate(inner)}
    return (*(number[parents[leaf]] for leaf in range(len(leaves))), *(number[parents[node]] if node in parents else -1 for node in inner))


def _is_node(node: object) -> bool:
    return isinstance(node, (int, str, np.integer)) and not isinstance(node, bool)


def shown(value: object) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else text[:40] + "..."

"""What training sees of stored images, beside crops at random places and their mirror images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from convnet.data.provider import Provider

NOISE_RULES = ("program", "paper")
PIXELS_AT_ONCE = 2**14  # as float64 they stay in the cache: 0.46 ms for an image of 256 x 256, and 0.64 for many at once


@dataclass(frozen=True)
class Augmentation:
    """images_per_crop  images, one after the other in a minibatch, that share the place of their crop
    color_noise  its strength c, by one of the two formulas that there are; 0: none
    rule         program: x = (x + c n) / (1 + c), n normal with the covariance of the training images' colours, as the programs did
                 paper: x = x + sum of c times a normal number times eigenvector times eigenvalue, as the paper says (Krizhevsky et
                 al. 2012, section 4.1) for pixels from 0 to 1: of pixels up to 255 the eigenvalues are divided by 255
    color_pca    see Provider; None where there is no noise
    """

    images_per_crop: int = 1
    color_noise: float = 0.0
    rule: str = "program"
    color_pca: np.ndarray | None = None

    @property
    def colors(self) -> np.ndarray | None:
        """float32 (channels, components): columns that are added to all pixels of an image, each times a normal number."""
        if not self.color_noise or self.color_pca is None:
            return None
        stdevs = np.sqrt((self.color_pca**2).sum(axis=0))
        return (self.color_noise * self.color_pca * (stdevs / 255 if self.rule == "paper" else 1)).astype(np.float32)

    @property
    def scale(self) -> float:
        """Of what comes of it."""
        return 1 / (1 + self.color_noise) if self.rule == "program" else 1.0


NO_AUGMENTATION = Augmentation()


class ColorSums:
    """Adds up colours, exactly, to their principal components."""

    def __init__(self, channels: int):
        self.pixels = 0
        self.sums = [0] * channels
        self.products = [[0] * channels for _ in range(channels)]

    def add(self, pixels: np.ndarray) -> None:
        """uint8 (channels, any number of pixels). Sums of integers below 2^53 are exact in float64, in any order."""
        self.pixels += pixels.shape[1]
        for first in range(0, pixels.shape[1], PIXELS_AT_ONCE):
            values = pixels[:, first : first + PIXELS_AT_ONCE].astype(np.float64)
            products = values @ values.T
            for i in range(len(self.sums)):
                self.sums[i] += int(values[i].sum())
                for j in range(len(self.sums)):
                    self.products[i][j] += int(products[i, j])

    def merge(self, other: ColorSums) -> None:
        self.pixels += other.pixels
        self.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        self.products = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(self.products, other.products, strict=True)]

    def covariance(self) -> list[list[float]]:
        n, sums = self.pixels, self.sums
        return [[(n * self.products[i][j] - sums[i] * sums[j]) / (n * n) for j in range(len(sums))] for i in range(len(sums))]

    def color_pca(self) -> np.ndarray:
        """See Provider."""
        return principal_components(self.covariance())


def principal_components(covariance: list[list[float]]) -> np.ndarray:
    """Eigenvectors of a symmetric matrix as columns, each times the root of its eigenvalue, the largest first.

    Jacobi's method, in Python's floats: the same bits with every numpy and BLAS, as files that are made of them need.
    """
    size = len(covariance)
    a = [list(row) for row in covariance]
    vectors = [[float(i == j) for j in range(size)] for i in range(size)]
    for _ in range(50):
        for p in range(size):
            for q in range(p + 1, size):
                if abs(a[p][q]) <= 1e-15 * math.sqrt(abs(a[p][p] * a[q][q])):
                    continue
                theta = (a[q][q] - a[p][p]) / (2 * a[p][q])
                t = math.copysign(1, theta) / (abs(theta) + math.sqrt(theta * theta + 1))
                c = 1 / math.sqrt(t * t + 1)
                for rows in (a, vectors):  # columns p and q
                    for row in rows:
                        row[p], row[q] = c * row[p] - t * c * row[q], t * c * row[p] + c * row[q]
                a[p], a[q] = ([c * x - t * c * y for x, y in zip(a[p], a[q], strict=True)],
                              [t * c * x + c * y for x, y in zip(a[p], a[q], strict=True)])
    components = np.array(vectors) * np.sqrt(np.maximum(0, [a[i][i] for i in range(size)]))
    components *= np.sign(components[np.abs(components).argmax(axis=0), np.arange(size)] + 1e-300)
    order = sorted(range(size), key=lambda i: -a[i][i])
    return components[:, order]


def color_pca_of(provider: Provider, numbers: Iterable[int]) -> np.ndarray:
    """That of the images of these batches, uint8, for data that have none stored."""
    sums = ColorSums(provider.stored[0])
    for number in numbers:
        pixels = provider.read(number).data[0]
        for image in np.moveaxis(pixels, -1, 0):
            sums.add(image.reshape(len(image), -1))
    return sums.color_pca()

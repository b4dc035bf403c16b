"""Where images come from.

`open_provider` gives a `Provider`, which says what the data is (shapes, classes, mean) and reads
`Batch`es by number; `Prefetcher` reads them ahead, `minibatches` splits them.
"""

from __future__ import annotations

from pathlib import Path

from convnet.data.augment import NO_AUGMENTATION, NOISE_RULES, Augmentation, color_pca_of
from convnet.data.batches import (
    Batch,
    format_range,
    minibatches,
    parse_range,
    with_following,
)
from convnet.data.cifar import CifarProvider
from convnet.data.dummy import DummyProvider
from convnet.data.image import ImageProvider, is_made
from convnet.data.memory import InMemory
from convnet.data.prefetch import Prefetcher
from convnet.data.provider import Provider, mean_of
from convnet.errors import CommandLineError

__all__ = [
    "NOISE_RULES",
    "NO_AUGMENTATION",
    "Augmentation",
    "Batch",
    "InMemory",
    "Prefetcher",
    "Provider",
    "color_pca_of",
    "default_provider",
    "format_range",
    "mean_of",
    "minibatches",
    "open_provider",
    "parse_range",
    "with_following",
]

DEFAULT_CROP_BORDER = {"cifar-cropped": 4}  # the original's; elsewhere 0


def default_provider(data_path: Path | str) -> str:
    """The name of the provider for a directory, where none is given."""
    return "image" if is_made(Path(data_path)) else "cifar"


def open_provider(
    name: str,
    data_path: Path | str | None = None,
    *,
    crop_border: int | None = None,
    inner_size: int | None = None,
    net_classes: int | None = None,
    label_kind: str = "index",
    seed: int = 0,
    images: int | None = None,
    threads: int | None = None,
    in_memory: bool = False,
) -> Provider:
    """The provider that `--data-provider NAME` means.

    name         cifar, cifar-cropped, image (all read a directory of batches: those of convnet-data
                 as `image.py` does, others as `cifar.py`), dummy:CxHxW[:CLASSES] or dummy-lr-D (`dummy.py`)
    data_path    the directory; the dummies need none
    crop_border  pixels cropped off each side; None: 4 for cifar-cropped, else 0
    inner_size   side of the crops, in place of crop_border
    net_classes  outputs of the net: the classes where the data does not say, and the limit of
                 labels where it does
    label_kind   the form that the net reads, "index", "vector" or "both" (see Provider)
    seed, images of the dummies: their random numbers, and images in a batch (512 when None)
    threads      that decode images, and read ahead (see Provider); None: half of the cores
    in_memory    whether batches are kept once they are read
    """
    if crop_border is None or inner_size is not None:
        crop_border = 0 if inner_size is not None else DEFAULT_CROP_BORDER.get(name, 0)
    common = {"crop_border": crop_border, "net_classes": net_classes, "label_kind": label_kind}
    provider: Provider
    if name in ("cifar", "cifar-cropped", "image"):
        if data_path is None:
            raise CommandLineError(f"--data-provider {name} needs --data-path DIRECTORY")
        kind = ImageProvider if is_made(Path(data_path)) else CifarProvider
        provider = kind(name, Path(data_path), **common)
    elif name.startswith("dummy"):
        provider = DummyProvider(name, **common, seed=seed, images=images)
    else:
        raise CommandLineError(
            f"--data-provider: found {name!r}, expected cifar, cifar-cropped, image, dummy:CxHxW[:CLASSES] "
            "or dummy-lr-D"
        )
    if inner_size is not None:
        provider.crop_to(inner_size)
    if threads is not None:
        provider.threads = threads
    return InMemory(provider) if in_memory else provider

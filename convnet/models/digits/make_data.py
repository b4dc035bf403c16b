"""Makes `data/` from the digits that scikit-learn carries: `python make_data.py [DIRECTORY]`.

Needs scikit-learn, which nothing else here does; `data/` is in the repository, so nobody has to
run this. The same input gives the same arrays (and with the same zlib the same bytes).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SEED = 1
TRAINING_BATCHES = 5
IMAGES = 300  # in a training batch; the 297 others are batch 6, for testing


def make_data(directory: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.data.T.astype(np.uint8)  # (64, 1797), one column an image, 0..16
    labels = digits.target.astype(np.uint8)
    # Raw numbers of the generator, since numpy may change how it shuffles.
    order = np.argsort(np.random.Philox(key=SEED).random_raw(len(labels)), kind="stable")

    directory.mkdir(exist_ok=True)
    for number in range(1, TRAINING_BATCHES + 2):
        last = None if number > TRAINING_BATCHES else number * IMAGES
        rows = order[(number - 1) * IMAGES : last]
        np.savez_compressed(
            directory / f"data_batch_{number}.npz",
            data=np.ascontiguousarray(pixels[:, rows]),
            labels=labels[rows],
            rows=rows.astype(np.uint16),  # where the images stand in scikit-learn's file
        )
    training = pixels[:, order[: TRAINING_BATCHES * IMAGES]]
    np.savez_compressed(
        directory / "batches.meta.npz",
        data_mean=training.mean(axis=1, keepdims=True).astype(np.float32),
        label_names=np.array([str(name) for name in digits.target_names]),
        num_cases_per_batch=np.int64(IMAGES),
        num_vis=np.int64(len(pixels)),
        img_channels=np.int64(1),
        img_size=np.int64(8),
    )


if __name__ == "__main__":
    make_data(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data"))

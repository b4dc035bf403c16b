"""convnet-data in tests: small pictures, and the program run on them."""
from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from convnet.cli.data import main

SMALL = ["--size", 16, "--batch-size", 8]


def photograph(colour, number, size=(40, 30)):
    """A picture of about that colour, brighter to the right, another for each number."""
    across, down = np.meshgrid(np.linspace(0.6, 1, size[0]), np.linspace(1, 0.9 - 0.02 * number, size[1]))
    return Image.fromarray((np.array(colour) * (across * down)[..., None]).astype(np.uint8))


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


class DataCommand:
    """Runs convnet-data: words -> what it prints; what it says on stderr is in `told`."""

    def __init__(self, capsys):
        self.capsys, self.told = capsys, ""

    def __call__(self, *words, code=0):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, self.told = self.capsys.readouterr()
        assert left.value.code == code, (left.value.code, out, self.told)
        assert "Traceback" not in self.told
        return out

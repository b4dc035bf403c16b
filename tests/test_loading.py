"""convnet-train on images: the same bits for any number of loader threads, and with the data in memory."""
from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from convnet.data import Batch, InMemory, Prefetcher, Provider, memory, open_provider
from convnet.data.decode import gather
from convnet.data.image import ImageProvider
from convnet.data.making import Settings, make
from convnet.data.making.sources import FolderSource
from convnet.errors import DataError, OutOfMemory
from workplace import GENTLE, TINY, assert_same_bits, contents, logprobs


@pytest.fixture
def photographs(tmp_path):
    """Three batches of 3 x 16 x 16 for training and one for validation, as JPEGs, of ten classes."""
    random = np.random.default_rng(1)
    for label in range(10):
        (tmp_path / "all" / f"class{label}").mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(random.normal(25 * label, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "all" / f"class{label}" / f"{number}.jpg")
    make(FolderSource(tmp_path / "all", None, 0.1, 1), tmp_path / "made", Settings(size=16, batch_size=70))
    return tmp_path / "made"


@pytest.fixture
def train(place, photographs):
    place.write(TINY.replace("initW=0.2", "initW=0.002"), rates=GENTLE)
    words = ["--data-path", str(photographs), "--mini", "32", "--epochs", "2", "--backend", "host", "--crop-border", "2", "--color-noise", "0.1"]
    return lambda *more: place.run(*words, *more)


def test_loader_threads_change_no_bits(train):
    runs = [logprobs(train("--loader-threads", str(threads), "--save-path", f"with{threads}")) for threads in (0, 1, 2)]
    assert runs[0] == runs[1] == runs[2] and len(runs[0]) >= 6
    assert_same_bits("with0", "with1")
    assert_same_bits("with0", "with2")


def test_ranges_are_those_that_the_data_are_meant_for(train):
    train("--save-path", "saved", "--epochs", "1")
    options = contents("saved")[0]["options"]
    assert options["train_range"] == [1, 2, 3] and options["test_range"] == [4] and options["data_provider"] == "image"
    assert not {"loader_threads", "data_in_memory"} & set(options)


def test_data_in_memory_are_read_once_and_change_no_bits(train, monkeypatch):
    plain = logprobs(train("--test-freq", "1"))
    read, numbers = ImageProvider.read, []
    monkeypatch.setattr(ImageProvider, "read", lambda self, number: numbers.append(number) or read(self, number))
    assert logprobs(train("--test-freq", "1", "--data-in-memory")) == plain
    assert sorted(numbers) == [1, 2, 3, 4]


def test_data_that_do_not_fit_into_memory_are_refused_before_they_are_read(photographs, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000)
    provider = open_provider("image", photographs, in_memory=True)
    with pytest.raises(OutOfMemory, match=r"--data-in-memory: 4 batches need 0\.0 GiB as pixels, and 0\.0 GiB are free; without it they are read again"):
        provider.read(1)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert provider.read(1) is provider.read(1)


def test_memory_that_is_free_is_told():
    assert memory.available_memory() > 2**20


def test_what_is_kept_cannot_be_changed(photographs):
    batch = InMemory(open_provider("image", photographs)).read(2)
    with pytest.raises(ValueError, match="read-only"):
        batch.data[0][0, 0, 0, 0] = 1


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_images_are_gathered_in_their_order(threads):
    images = np.random.default_rng(2).integers(0, 256, (200, 3, 4, 5), np.uint8)
    assert np.array_equal(gather(200, (3, 4, 5), lambda i: images[i], threads), np.moveaxis(images, 0, -1))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_bad_image_is_told(threads):
    def read_one(image):
        if image in (70, 130, 199):
            raise DataError(f"image {image} is bad")
        return np.zeros((1, 1, 1), np.uint8)

    with pytest.raises(DataError, match="image 70 is bad"):
        gather(200, (1, 1, 1), read_one, threads)


def test_without_threads_nothing_is_read_ahead():
    class Told(Provider):
        def read(self, number):
            seen.append((number, threading.current_thread()))
            return Batch(number, (np.zeros((1, 1, 1, 1)),))

    seen: list[tuple[int, threading.Thread]] = []
    provider = Told("told", (1, 1, 1))
    provider.threads = 0
    with Prefetcher(provider, [3, 1]) as batches:
        assert not seen
        assert next(batches).number == 3 and len(seen) == 1
        assert [batch.number for batch in batches] == [1]
    assert [thread for _, thread in seen] == [threading.current_thread()] * 2


def test_a_wrong_number_of_loader_threads_is_told(place):
    place.train("--loader-threads", "-1", code=2)
    assert "--loader-threads -1: expected 0 to 1024" in place.told

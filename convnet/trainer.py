"""The loop: data batches, minibatches, tests, checkpoints."""
from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import checkpoint
from .data import Prefetcher, Provider, minibatches
from .errors import ConvnetError
from .net import Net
from .options import Options
from .runlog import RunLog
from .schedule import progress

RULE = "=" * 55


class NotFinite(ConvnetError):
    """A cost was infinite or not a number."""

    exit_code = 3


class Interrupted(ConvnetError):
    """SIGINT or SIGTERM came; the checkpoint is written."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass
class Position:
    """What comes next: image `image` of the batch at `index` of the range, in `epoch`; `step` minibatches are done.

    sums: what the costs of the batch add up to so far.
    """

    epoch: int = 1
    index: int = 0
    image: int = 0
    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)


class Trainer:
    """Trains a net. `run_folder`: where checkpoints go, None: nowhere."""

    def __init__(self, net: Net, provider: Provider, options: Options, log: RunLog, run_folder: Path | None, header: dict):
        self.net, self.provider, self.options, self.log = net, provider, options, log
        self.run_folder, self.header = run_folder, header
        self.position = Position(**header.get("position", {}))
        self.best: tuple[float, str] | None = tuple(header["best"]) if header.get("best") else None
        self.saved_step = self.position.step
        self._signal = 0

    # ---- training ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Runs until the epochs or the steps are done. Raises Interrupted and NotFinite."""
        previous = {number: signal.signal(number, self._note_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._train()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, frame) -> None:
        self._signal = number

    def _train(self) -> None:
        numbers = self.options.train_range
        with Prefetcher(self.provider, self._batch_numbers()) as batches:
            for batch in batches:
                place = self.position
                start = time.perf_counter()
                count = self._train_batch(batch)
                if place.image < batch.images:
                    break  # --max-steps, in the middle of a batch
                self._report_batch(batch.images, count, time.perf_counter() - start)
                done = (place.epoch - 1) * len(numbers) + place.index + 1
                place.image, place.sums = 0, {}
                place.index += 1
                if place.index == len(numbers):
                    place.epoch, place.index = place.epoch + 1, 0
                if done % self.options.test_freq == 0:
                    self._test_and_save()
                if self._stop_now():
                    break
        if self.saved_step != self.position.step:
            if self.position.image:
                self.save()
            else:
                self._test_and_save()
        if self._signal:
            raise Interrupted(self._signal, f"stopped by signal {self._signal} after {self.position.step} minibatches"
                              + (f"; --resume {self.run_folder} goes on" if self.run_folder else "; without --save-path nothing was saved"))

    def _batch_numbers(self) -> Iterator[int]:
        numbers, place = self.options.train_range, self.position
        first = place.index
        for _ in range(place.epoch, self.options.epochs + 1):
            yield from numbers[first:]
            first = 0

    def _stop_now(self) -> bool:
        return bool(self._signal) or 0 < self.options.max_steps <= self.position.step

    def _train_batch(self, batch) -> int:
        """Trains on the rest of a batch, or until it is time to stop. Returns the images trained on."""
        place, trained = self.position, 0
        rates = self._rates()
        bar = tqdm(total=batch.images, initial=place.image, unit="image", leave=False, disable=None, file=sys.stdout,
                   desc=f"{place.epoch}.{batch.number}", unit_scale=True)
        with bar:
            for start, arrays in minibatches(batch, self.options.mini):
                if start < place.image:
                    continue  # done before the run was resumed
                costs = self.net.train(arrays, place.step, rates)
                self._check_finite(costs, arrays, batch.number)
                images = arrays[0].shape[-1]
                for name, values in costs.items():
                    sums = place.sums.setdefault(name, [0.0] * len(values))
                    place.sums[name] = [a + float(b) for a, b in zip(sums, values, strict=True)]
                place.step += 1
                place.image = start + images
                trained += images
                bar.update(images)
                if self._stop_now():
                    break
        return trained

    def _rates(self) -> list[float]:
        """The learning rates of this data batch, by slot (SEMANTICS 2.3)."""
        place, count = self.position, len(self.options.train_range)
        done = progress((place.epoch - 1) * count + place.index + 1, self.options.epochs, count)
        schedules = {f"{node.name}.{name}": weights.rate for node in self.net.graph.nodes for name, weights in node.weights.items()}
        return [schedules[name].rate(done, place.step, self.options.seed) for name in self.net.rate_slots]

    def _check_finite(self, costs: dict[str, np.ndarray], arrays, number: int) -> None:
        bad = [name for name, values in costs.items() if not np.isfinite(values).all()]
        if not bad:
            return
        place = self.position
        first = self.net.first_not_finite(arrays, place.step)
        last = checkpoint.checkpoints(self.run_folder)[:1] if self.run_folder else []
        kept = f"The last good checkpoint is {last[0]}." if last else "No checkpoint had been written."
        message = (f"the cost {bad[0]} is not finite in epoch {place.epoch}, batch {number}, images {place.image} to {place.image + arrays[0].shape[-1] - 1}; "
                   f"the first step whose output is not finite is {first}. The weights were not updated with it. {kept} "
                   "A smaller learning rate or initial weights may help.")
        self.log.write("end", reason="not finite", message=message, step=place.step)
        raise NotFinite(message)

    def _report_batch(self, images: int, count: int, seconds: float) -> None:
        place = self.position
        number = self.options.train_range[place.index]
        means = self._means(place.sums, images)
        print(f"{place.epoch}.{number}... {self._format(means)} ({seconds:.3f} sec)", flush=True)
        self.log.write("train", epoch=place.epoch, batch=number, step=place.step, costs=means, seconds=round(seconds, 4),
                       images_per_second=round(count / max(seconds, 1e-9), 1))

    def _means(self, sums: dict[str, list[float]], images: int) -> dict[str, list[float]]:
        kinds = {node.name: len(node.layer.names()) for node in self.net.graph.costs}
        return {name: [value / images for value in values[: kinds[name]]] for name, values in sums.items()}

    @staticmethod
    def _format(means: dict[str, list[float]]) -> str:
        return " ".join(f"{name}:  {', '.join(f'{value:.6f}' for value in values)}" for name, values in means.items())

    # ---- testing and saving -------------------------------------------------------------------------------------

    def test(self, per_batch: bool = False) -> dict[str, list[float]]:
        """Mean costs over the test range."""
        sums: dict[str, np.ndarray] = {}
        images = 0
        with Prefetcher(self.provider, self.options.test_range) as batches:
            for batch in batches:
                batch_sums: dict[str, np.ndarray] = {}
                for _, arrays in minibatches(batch, self.options.mini):
                    costs, _ = self.net.test(arrays)
                    for name, values in costs.items():
                        batch_sums[name] = batch_sums.get(name, 0) + values
                if per_batch:
                    means = self._means({name: list(values) for name, values in batch_sums.items()}, batch.images)
                    print(f"batch {batch.number}: {self._format(means)} ({batch.images} images)", flush=True)
                for name, values in batch_sums.items():
                    sums[name] = sums.get(name, 0) + values
                images += batch.images
        return self._means({name: list(map(float, values)) for name, values in sums.items()}, images)

    def _test_and_save(self) -> None:
        start = time.perf_counter()
        print("======================Test output======================")
        means = self.test() if self.options.test_range else {}
        if means:
            print(self._format(means))
            self.log.write("test", epoch=self.position.epoch, step=self.position.step, costs=means)
        print("-" * 55)
        self._print_weights()
        self.save(means)
        print(f"{RULE} ({time.perf_counter() - start:.3f} sec)", flush=True)

    def _print_weights(self) -> None:
        """Mean absolute weight, [mean absolute last change], [their ratio], as the original."""
        for name in self.net.rate_slots:
            layer, _, which = name.rpartition(".")
            label = "biases" if which == "b" else f"weights[{which[1:]}]"
            weight, change = (float(np.abs(self.net.get(full)).mean()) for full in (name, f"{name}.inc"))
            print(f"Layer '{layer}' {label}: {weight:e} [{change:e}]" + (f" [{change / weight:e}]" if weight else ""))

    def save(self, means: dict[str, list[float]] | None = None) -> None:
        """Writes a checkpoint, if there is a place for it, and removes old ones."""
        self.saved_step = self.position.step
        if self.run_folder is None:
            return
        place = self.position
        # named for the batch in progress or, between batches, the one just done
        done = (place.epoch, self.options.train_range[place.index]) if place.image else self._last_done()
        name = checkpoint.checkpoint_name(*done)
        if means:
            score = next(iter(means.values()))[1]
            if self.best is None or score < self.best[0]:
                self.best = (score, name)
        header = {**self.header, "position": asdict(place), "best": self.best, "options": self.options.stored(), "test": means or {}}
        path = checkpoint.save(self.run_folder, name, header, self.net.tensors() | self._data_tensors())
        checkpoint.prune(self.run_folder, self.options.keep, self.best[1] if self.best else None)
        print(f"Saved checkpoint to {path}", flush=True)
        self.log.write("checkpoint", path=str(path), step=place.step)

    def _last_done(self) -> tuple[int, int]:
        place, numbers = self.position, self.options.train_range
        return (place.epoch, numbers[place.index - 1]) if place.index else (place.epoch - 1, numbers[-1])

    def _data_tensors(self) -> dict[str, np.ndarray]:
        return {} if self.provider.mean is None else {"data.mean": self.provider.mean}

"""The loop: data batches, minibatches, tests, checkpoints."""
from __future__ import annotations

import os
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import checkpoint
from .data import Batch, Prefetcher, Provider, with_following
from .drops import Plateau, factor_at, parse_drop, parse_steps
from .errors import ConvnetError
from .net import Net
from .options import Options
from .outputs import named_cost, write_predictions
from .runlog import RunLog
from .schedule import progress
from .stages import Stage, stage_at

RULE = "=" * 55
MOST_ROWS = 20_000  # of the history of costs, 2 MB in a checkpoint


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
    test_due: a signal came before the test that was planned here was done.
    """

    epoch: int = 1
    index: int = 0
    image: int = 0
    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    test_due: bool = False


class Trainer:
    """Trains a net.

    run_folder  where checkpoints go, None: nowhere
    header      of the checkpoint it goes on from, and what goes into the next
    stages      params files, one after the other; None: that of the net for the whole run
    """

    def __init__(self, net: Net, provider: Provider, options: Options, log: RunLog, run_folder: Path | None, header: dict,
                 stages: list[Stage] | None = None):
        self.net, self.provider, self.options, self.log = net, provider, options, log
        self.run_folder, self.header = run_folder, header
        self.position = resumed_position(header, options.train_range) if header.get("position") else Position()
        self.recent: list[tuple[int, dict]] = header.get("recent", [])  # images and means of the last tests with --test-one
        self.best: tuple[float, str] | None = tuple(header["best"]) if header.get("best") else None
        self.history: dict[str, list] = header.get("history") or {"train": [], "test": []}
        self.saved_step = self.position.step
        self.last_step = self.position.step + options.max_steps if options.max_steps else None
        self.stages = stages or [Stage("", 1, options.epochs, net.config)]
        for stage in self.stages:
            net.under(stage.config)
        self._enter(stage_at(self.stages, self.position.epoch))
        self._steps = parse_steps(options.lr_steps)
        self._watches = parse_drop(options.lr_drop) is not None
        self.plateau = replace(parse_drop(options.lr_drop) or Plateau(), **header.get("plateau", {}))
        self._signal, self._signal_time = 0, 0.0

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
        if self._signal:  # `timeout` sends a signal twice at once: that is not somebody who has lost patience
            if number == signal.SIGINT and time.monotonic() - self._signal_time > 0.5:
                raise KeyboardInterrupt
            return
        self._signal, self._signal_time = number, time.monotonic()
        then = "save and stop" if self.run_folder else "stop"
        os.write(2, f"\nto {then} after this minibatch; Ctrl-C once more stops at once\n".encode())  # print() is not for handlers

    def _train(self) -> None:
        numbers = self.options.train_range
        if self.position.epoch > self.options.epochs:
            print(f"All {self.options.epochs} epochs are done; --epochs {2 * self.options.epochs} would train longer", flush=True)
        if self.position.test_due:
            self._test_and_save(planned=True)
        with Prefetcher(self.provider, self._batch_numbers()) as batches:
            for batch in batches:
                place = self.position
                self._begin_epoch()
                start = time.perf_counter()
                count = self._train_batch(batch)
                self._report(batch, count, time.perf_counter() - start)
                if place.image < batch.images:
                    break  # in the middle of a batch
                done = (place.epoch - 1) * len(numbers) + place.index + 1
                place.image, place.sums = 0, {}
                place.index += 1
                if place.index == len(numbers):
                    place.epoch, place.index = place.epoch + 1, 0
                if done % self.options.test_freq == 0:
                    self._test_and_save(planned=True)
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
        return bool(self._signal) or self.position.step == self.last_step

    def _train_batch(self, batch: Batch) -> int:
        """Trains on the rest of a batch, or until it is time to stop. Returns the images trained on."""
        place, trained = self.position, 0
        rest = Batch(batch.number, tuple(array[..., place.image:] for array in batch.data))
        bar = tqdm(total=batch.images, initial=place.image, unit=" images", leave=False, disable=None, file=sys.stdout,
                   desc=f"{place.epoch}.{batch.number}")
        with bar:
            for arrays, following in with_following(rest, self.options.mini):
                bar.set_postfix_str(f"minibatch {place.step + 1}", refresh=False)
                costs = self.net.train(arrays, place.step, self._rates(), following)
                self._check_finite(costs, arrays, batch.number)
                images = arrays[0].shape[-1]
                for name, values in costs.items():
                    sums = place.sums.setdefault(name, [0.0] * len(values))
                    place.sums[name] = [a + float(b) for a, b in zip(sums, values, strict=True)]
                place.step += 1
                place.image += images
                trained += images
                bar.update(images)
                if self._stop_now():
                    break
        return trained

    def _rates(self) -> list[float]:
        """The learning rates of this minibatch, by slot (SEMANTICS 2.3)."""
        place, count = self.position, len(self.options.train_range)
        stage = self.stage
        done = progress((place.epoch - stage.first) * count + place.index + 1, stage.last - stage.first + 1, count)
        factor = factor_at(self._steps, place.epoch) * self.plateau.scale
        return [factor * schedule.rate(done, place.step, self.options.seed) for schedule in self._schedules]

    def _begin_epoch(self) -> None:
        """Takes the params of the stage that begins, and says where --lr-steps change the rates."""
        place, stage = self.position, stage_at(self.stages, self.position.epoch)
        if stage is not self.stage:
            self._enter(stage)
        if (place.index, place.image) != (0, 0):
            return
        if len(self.stages) > 1 and place.epoch == stage.first:
            print(f"Stage {stage.name}: {stage.config.params_file}, epochs {stage.first} to {stage.last}", flush=True)
            self.log.write("stage", name=stage.name, params=stage.config.params_file, epoch=place.epoch, step=place.step)
        if place.epoch in dict(self._steps):
            self._tell_factor(f"Epoch {place.epoch} of --lr-steps")

    def _enter(self, stage: Stage) -> None:
        self.stage, config = stage, stage.config
        if config is not self.net.config:
            self.net.change_params(config)
        self.header = {**self.header, "params_text": config.params_text, "params_file": config.params_file, "params_path": os.path.abspath(config.params_file)}
        rates = {full: weights.rate for node in self.net.graph.nodes for full, weights in node.owned()}
        self._schedules = [rates[name] for name in self.net.rate_slots]

    def _tell_factor(self, why: str) -> None:
        place = self.position
        factor = factor_at(self._steps, place.epoch) * self.plateau.scale
        print(f"{why}: learning rates are those of the params file times {factor:.6g}", flush=True)
        self.log.write("rates", epoch=place.epoch, step=place.step, factor=factor, reason=why)

    def _watch(self, means: dict[str, list[float]]) -> None:
        """Lowers the rates where the test error has stopped improving."""
        cost = self.net.graph.main_cost
        error, best = means[cost.name][cost.layer.score], self.plateau.best
        if self.plateau.see(error):
            self._tell_factor(f"No test of the last {self.plateau.patience} was below {best:.6f} (--lr-drop, {self.plateau.dropped} of {self.plateau.drops})")

    def _check_finite(self, costs: dict[str, np.ndarray], arrays, number: int) -> None:
        bad = [name for name, values in costs.items() if not np.isfinite(values).all()]
        if bad:
            place = self.position
            images = f"images {place.image} to {place.image + arrays[0].shape[-1] - 1}"
            first = self.net.first_not_finite(arrays, place.step)
            raise self._not_finite(f"the cost {bad[0]} is not finite in epoch {place.epoch}, batch {number}, {images}, minibatch {place.step + 1}; "
                                   f"the first step whose output is not finite is {first}. The weights were not updated with it")

    def _not_finite(self, what: str) -> NotFinite:
        last = checkpoint.checkpoints(self.run_folder)[:1] if self.run_folder else []
        kept = f"the last good checkpoint is {last[0]}" if last else "no checkpoint had been written"
        return NotFinite(f"{what}; {kept}. Smaller learning rates or initial weights may help")

    def _report(self, batch: Batch, count: int, seconds: float) -> None:
        """Prints the mean costs of a batch, or of its first images where the run stops in it; `count` of them took so long."""
        place = self.position
        means = self._means(place.sums, place.image)
        part = "..." if place.image == batch.images else f", {place.image} of {batch.images} images:"
        print(f"{place.epoch}.{batch.number}{part} {self.format(means)} ({seconds:.3f} sec)", flush=True)
        if place.image == batch.images:
            self._remember("train", means, place.index + 1)
        self.log.write("train", epoch=place.epoch, batch=batch.number, step=place.step, images=place.image, costs=means,
                       seconds=round(seconds, 4), images_per_second=round(count / max(seconds, 1e-9), 1))

    def _remember(self, kind: str, means: dict[str, list[float]], batches: int) -> None:
        """Keeps mean costs for the curves of convnet-show, beside the epochs done; `batches` of this one are."""
        epochs = self.position.epoch - 1 + batches / len(self.options.train_range)
        rows = self.history[kind]
        if len(rows) >= MOST_ROWS:  # neighbours become one: a header has its limits, and a screen too
            rows[:] = [[end, {name: [(a + b) / 2 for a, b in zip(first[name], second[name], strict=True)] for name in second}]
                       for (_, first), (end, second) in zip(rows[::2], rows[1::2], strict=False)]
        rows.append([round(epochs, 6), {name: [float(f"{value:.7g}") for value in values] for name, values in means.items()}])

    def _means(self, sums: dict[str, list[float]], images: int) -> dict[str, list[float]]:
        kinds = {node.name: len(node.layer.names()) for node in self.net.graph.costs}
        return {name: [value / images for value in values[: kinds[name]]] for name, values in sums.items()}

    @staticmethod
    def format(means: dict[str, list[float]]) -> str:
        return " ".join(f"{name}:  {', '.join(f'{value:.6f}' for value in values)}" for name, values in means.items())

    # ---- testing and saving -------------------------------------------------------------------------------------

    def test(self, per_batch: bool = False) -> tuple[dict[str, list[float]], int]:
        """Mean costs over the test range, with --test-one over its next batch, and of how many images; of none when a signal has come.

        per_batch: the costs of each batch are printed, and --test-one means the first.
        """
        sums: dict[str, np.ndarray] = {}
        images = 0
        probs = (named_cost(self.net.graph, self.options.logreg_name).inputs[-1].name,) if self.options.test_out else ()
        with Prefetcher(self.provider, self._tested_batches(per_batch)) as batches:
            for batch in batches:
                batch_sums: dict[str, np.ndarray] = {}
                predictions: list[np.ndarray] = []
                for arrays, following in with_following(batch, self.options.mini):
                    if self._signal:
                        return {}, 0  # somebody waits for the checkpoint
                    costs, kept = self.net.test(arrays, probs, following=following)
                    predictions += kept.values()
                    for name, values in costs.items():
                        batch_sums[name] = batch_sums.get(name, 0) + values
                if predictions:
                    write_predictions(Path(self.options.test_out) / f"test_preds_{batch.number}", predictions, str(self.run_folder or self.options.resume))
                if per_batch:
                    means = self._means({name: list(values) for name, values in batch_sums.items()}, batch.images)
                    print(f"batch {batch.number}: {self.format(means)} ({batch.images} images)", flush=True)
                for name, values in batch_sums.items():
                    sums[name] = sums.get(name, 0) + values
                images += batch.images
        return self._means({name: list(map(float, values)) for name, values in sums.items()}, images), images

    def _tested_batches(self, first: bool) -> list[int]:
        numbers, place = self.options.test_range, self.position
        if not self.options.test_one:
            return numbers
        done = (place.epoch - 1) * len(self.options.train_range) + place.index
        test = 0 if first else max(-(-done // self.options.test_freq) - 1, 0)  # those before this one
        return [numbers[test % len(numbers)]]

    def _test_and_save(self, planned: bool = False) -> None:
        """`planned`: by --test-freq, and not since the run ends here: the learning rates may depend on it."""
        start = time.perf_counter()
        print("======================Test output======================")
        means, images = self.test()
        self.position.test_due = planned and not means
        if means:
            print(self.format(means))
            for name, values in means.items():
                if not np.isfinite(values).all():
                    raise self._not_finite(f"the cost {name} of the test is not finite after {self.position.step} minibatches")
            self.log.write("test", step=self.position.step, costs=means)
        if means and self.options.test_one:
            self.recent = [*self.recent, (images, means)][-len(self.options.test_range):]
            means = average(self.recent)
            print("----------------------Averages-------------------------")
            print(self.format(means))
        if means:
            self._remember("test", means, self.position.index)
            if planned and self._watches:
                self._watch(means)
        print("-" * 55)
        self._print_weights()
        print("-" * 55)
        self.save(means)
        print(f"{RULE} ({time.perf_counter() - start:.3f} sec)", flush=True)

    def _print_weights(self) -> None:
        """Mean absolute weight, [mean absolute last change], [their ratio]: as the originals."""
        for name in self.net.rate_slots:
            layer, _, which = name.rpartition(".")
            weight, change = (float(np.abs(self.net.get(full)).mean()) for full in (name, f"{name}.inc"))
            if which == "b":
                print(f"Layer '{layer}' biases: {weight:e} [{change:e}]")
            else:
                print(f"Layer '{layer}' weights[{which[1:]}]: {weight:e} [{change:e}] [{change / (weight or 1):e}]")

    def save(self, means: dict[str, list[float]] | None = None) -> None:
        """Writes a checkpoint, if there is a place for it, and removes old ones."""
        self.saved_step = self.position.step
        if self.run_folder is None:
            return
        place, tensors = self.position, self.net.tensors()
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise self._not_finite(f"after {place.step} minibatches {name} is not finite: nothing is saved")
        # named for the batch in progress or, between batches, the one just done
        done = (place.epoch, self.options.train_range[place.index]) if place.image else self._last_done()
        name = checkpoint.checkpoint_name(*done)
        if means:
            cost = self.net.graph.main_cost
            score = means[cost.name][cost.layer.score]
            if self.best is None or score < self.best[0]:
                self.best = (score, name)
        header = {**self.header, "position": asdict(place), "best": self.best, "options": self.options.stored(),
                  "commanded": sorted(self.options.commanded), "test": means or {}, "recent": self.recent, "plateau": self.plateau.state(), "history": self.history}
        of_data = {"data.mean": self.net.data.mean, "data.color_pca": self.net.data.augmentation.color_pca}
        path = checkpoint.save(self.run_folder, name, header, tensors | {name: array for name, array in of_data.items() if array is not None})
        checkpoint.prune(self.run_folder, self.options.keep, self.best[1] if self.best else None)
        print(f"Saved checkpoint to {path}", flush=True)
        self.log.write("checkpoint", path=str(path), step=place.step)

    def _last_done(self) -> tuple[int, int]:
        place, numbers = self.position, self.options.train_range
        return (place.epoch, numbers[place.index - 1]) if place.index else (place.epoch - 1, numbers[-1])


def average(tests: list[tuple[int, dict[str, list[float]]]]) -> dict[str, list[float]]:
    """The mean costs over all images of several tests, (images, their means) each."""
    total = sum(images for images, _ in tests)
    return {name: [sum(images * means[name][i] for images, means in tests) / total for i in range(len(values))] for name, values in tests[-1][1].items()}


def resumed_position(header: dict, numbers: list[int]) -> Position:
    """Where a checkpoint's run goes on in the batches `numbers`, which need not be those that it trained on before."""
    place, before = Position(**header["position"]), header["options"]["train_range"]
    due = before[place.index]
    place.index = bisect_left(numbers, due)
    if place.index == len(numbers):  # all that is left of the epoch is out of range
        place.epoch, place.index = place.epoch + 1, 0
    if numbers[place.index] != due:
        place.image, place.sums = 0, {}
    return place

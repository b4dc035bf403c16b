"""Trains the net of a config in PyTorch, step by step: the worker behind `train_throughput.py --peer torch`.

    python torch_train.py TASK.json     the task: the fields of `Task`

It answers in JSON, a line each: first with its name, its costs and scores of the first minibatch as when testing, and
whether the net has columns and norms; then to every line with a number, after so many training steps, with the seconds
that one of them took. It is a process of its own, so that its allocator and threads can be tuned by the environment.
"""
from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_net import TorchNet, image_size

from convnet.config import read_config
from convnet.graph import Graph

UPDATES = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}  # arguments of torch.optim.SGD


@dataclass(frozen=True)
class Task:
    """model: folder of the config; shapes: of the data, by dataIdx; images: of a minibatch; rate: learning rate of all; inference: no training; cpu_time: of the processor, not the clock's; precision: tf32, bf16 by autocast, all else is exact.

    arrays    an .npz: our weights, by name, pixels (images, channels, height, width), labels (images,), and the mean of uint8 pixels
    layout    NCHW or NHWC;  lrn: one of torch_net.Norm.FORMS;  columns: merged or apart;  update: one of UPDATES
    """

    model: str
    arrays: str
    shapes: list[list[int]]
    images: int
    rate: float
    device: str
    threads: int
    inference: bool
    cpu_time: bool
    precision: str
    layout: str
    lrn: str
    columns: str
    update: str
    compile: bool


class Worker:
    def __init__(self, task: Task):
        torch.set_num_threads(task.threads)
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True  # cuDNN's best algorithm
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = task.precision == "tf32"  # like ours
        self.task = task
        self.format = torch.channels_last if task.layout == "NHWC" else torch.contiguous_format
        config = read_config(Path(task.model) / "layers.cfg", Path(task.model) / "params.cfg")
        graph = Graph(config.layers, tuple(map(tuple, task.shapes)))
        arrays = dict(np.load(task.arrays))
        self.labels = torch.from_numpy(arrays["labels"]).to(task.device)
        self.pixels = self.laid_out(torch.from_numpy(arrays["pixels"])).numpy()
        self.size = task.shapes[0][1:]
        self.cropped = np.empty_like(self.pixels, shape=(task.images, *task.shapes[0]))  # in the pixels' layout
        self.acts = self.laid_out(torch.zeros(task.images, task.shapes[0][0], *image_size(graph))).to(task.device)
        self.mean = self.laid_out(torch.from_numpy(arrays["mean"])[None]).to(task.device) if "mean" in arrays else None
        self.net = TorchNet(graph, arrays, task.lrn, task.columns == "merged").to(task.device, memory_format=self.format)
        self.run = torch.compile(self.net) if task.compile else self.net
        by_update: dict[tuple, list] = {}
        for parameter in self.net.parameters():
            by_update.setdefault(parameter.update, []).append(parameter)
        settings = [{"params": parameters, "momentum": momentum, "weight_decay": decay} for (_, momentum, decay), parameters in by_update.items()]
        self.optimizer = torch.optim.SGD(settings, task.rate, **UPDATES[task.update])
        self.random = np.random.default_rng(0)
        self.first = 0

    def laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=self.format)

    def minibatch(self, first: int, random: bool) -> tuple[Tensor, Tensor]:
        """Images from `first` on and their labels; uint8 ones are cropped, mirrored and centred as the op `image` does."""
        part = slice(first, first + self.task.images)
        pixels, (height, width) = self.pixels[part], self.size
        acts = self.acts[..., :height, :width]
        if self.mean is None:
            acts.copy_(torch.from_numpy(pixels))
            return self.acts, self.labels[part]
        border = (pixels.shape[2] - height) // 2
        count, least, most = len(pixels), *((0, 2 * border) if random else (border, border))
        tops, lefts = self.random.integers(least, most + 1, (2, count))
        steps = np.where(self.random.random(count) < 0.5, -1, 1) if random else np.ones(count, int)
        for image, top, left, step, cropped in zip(pixels, tops, lefts, steps, self.cropped, strict=True):
            cropped[:] = image[:, top : top + height, left : left + width][..., ::step]
        acts.copy_(torch.from_numpy(self.cropped).to(self.task.device)).sub_(self.mean)
        return self.acts, self.labels[part]

    def rounding(self) -> torch.autocast:
        return torch.autocast(self.task.device, torch.bfloat16, enabled=self.task.precision == "bf16")

    @torch.no_grad()
    def test(self) -> dict:
        """The costs of the first minibatch, summed over its images, and the acts that they judge, of the first image."""
        net = self.net.eval()
        with self.rounding():
            values = net.values(self.minibatch(0, random=False))
        net.train(not self.task.inference)
        return {"costs": {name: values[i].item() * self.task.images for name, i in net.costs.items()},
                "scores": {name: net.part(values, *read)[0].flatten().tolist() for name, read in net.scores.items()}}

    def step(self) -> None:
        data = self.minibatch(self.first, random=not self.task.inference)
        self.first = (self.first + self.task.images) % len(self.labels)
        if self.task.inference:
            with torch.inference_mode(), self.rounding():
                costs = self.run(*data)
        else:
            self.optimizer.zero_grad()
            with self.rounding():
                costs = self.run(*data)
            sum(coeff * cost for coeff, cost in zip(self.net.coeffs, costs, strict=True)).backward()
            self.optimizer.step()
        for cost in costs:
            cost.item()
        if self.task.device == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    worker = Worker(Task(**json.loads(Path(sys.argv[1]).read_text())))
    clock = time.process_time if worker.task.cpu_time else time.perf_counter
    answer({"name": f"PyTorch {torch.__version__}", **worker.test(), "columns": worker.net.has_columns, "norms": worker.net.has_norms})
    for line in sys.stdin:
        start = clock()
        for _ in range(int(line)):
            worker.step()
        answer({"seconds": (clock() - start) / int(line)})


def answer(values: dict) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()

"""convnet-train: trains the net that two config files describe."""
from __future__ import annotations

import argparse
import contextlib
import datetime
import os
from pathlib import Path

import numpy as np

from .. import __version__, checkpoint
from ..backends import Device, choose_backend, host_isa
from ..config import Config, parse_config, read_config
from ..data import Provider, mean_of, open_provider
from ..errors import CommandLineError, ConfigError, ConvnetError, MissingInput, NoSuchDevice
from ..graph import Graph
from ..layers import describe
from ..layers.weights import WeightLayer
from ..net import DataSpec, Net
from ..options import Options, read_options_section
from ..runlog import RunLog
from ..trainer import Trainer
from . import run_command

FORMAT_VERSION = 1  # of what the header of a checkpoint means


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet-train", description="Trains a convolutional net described by two config files in cuda-convnet's language.",
        epilog="The two files alone are enough when the params file has a section [convnet-train], whose keys are long option names.")
    parser.add_argument("layers_cfg", nargs="?", help="the layers and how they are connected (layers.cfg)")
    parser.add_argument("params_cfg", nargs="?", help="their learning rates and other parameters (params.cfg)")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    for name, field in Options.fields().items():
        words = [f"--{name.replace('_', '-')}"] + (["-f"] if name == "resume" else [])
        default = "" if field.default in (None, False, 0) else f" (default {field.default})"
        if field.metadata["kind"] == "flag":
            parser.add_argument(*words, action="store_true", default=None, help=field.metadata["help"])
        else:
            parser.add_argument(*words, metavar=field.metadata["metavar"], help=field.metadata["help"] + default)
    return parser


def main() -> None:
    run_command("convnet-train", train)


def train() -> int:
    arguments = vars(build_parser().parse_args())
    layers_cfg, params_cfg = arguments.pop("layers_cfg"), arguments.pop("params_cfg")
    options = Options()
    for name, text in arguments.items():
        if text is not None:
            options.set(name, text, f"--{name.replace('_', '-')}")

    header, tensors, run_folder = {}, {}, None
    if options.resume:
        path, warnings = newest_checkpoint(Path(options.resume))
        header, tensors = checkpoint.load(path)
        run_folder = path.parent
    else:
        warnings = []
    config = load_config(layers_cfg, params_cfg, header, options)
    if header:
        options.update(header["options"])
    read_options_section(options, config.options, config.params_file)
    options.check()

    with contextlib.ExitStack() as stack:
        log = RunLog(Path(options.log) if options.log else None)
        stack.callback(log.close)
        provider = open_data(config, options)
        data = data_spec(provider, options)
        if "data.mean" in tensors and provider.mean is not None:
            data = DataSpec(data.shapes, data.stored, tensors["data.mean"])
        backend = choose_backend(options.backend)
        devices = open_devices(stack, Graph(config.layers, data.shapes), backend, options)
        for text in [*warnings, *config.warnings]:
            log.warning(text)
        net = Net(config, data, devices, options.seed, "float64" if options.check_grads else "float32")
        net.load(tensors) if tensors else net.initialise()

        if options.plan:
            print_plan(net, provider, options)
            return 0
        if options.check_grads:
            return check_grads(net, provider, options)
        net.check_memory(net.plan(options.mini, "train"))
        if not options.test_only:
            warn(net, options, log, resumed=bool(header))
            run_folder = open_run_folder(stack, options, run_folder, log)
        fresh = {"layers_text": config.layers_text, "params_text": config.params_text, "layers_file": config.layers_file,
                 "params_file": config.params_file, "convnet": __version__, "meaning": FORMAT_VERSION, "class_names": provider.class_names,
                 "crop_border": provider.crop_border, "shapes": data.shapes, "stored": data.stored}
        trainer = Trainer(net, provider, options, log, run_folder, {**header, **fresh})
        if options.test_only:
            return test_only(trainer, options)
        describe_net(net, backend)
        log.write("start", convnet=__version__, backend=backend, isa=host_isa() if backend == "host" else None, numpy=np.__version__,
                  devices={index: device.ops.device_name(device.physical) for index, device in devices.items()},
                  options=options.stored(), run_folder=str(run_folder) if run_folder else None, step=trainer.position.step)
        try:
            trainer.train()
        except ConvnetError as error:
            log.write("end", reason=str(error), step=trainer.position.step)
            raise
        log.write("end", reason="done", step=trainer.position.step)
    return 0


def load_config(layers_cfg: str | None, params_cfg: str | None, header: dict, options: Options) -> Config:
    """The config of the command line; when resuming, the layers of the checkpoint, and the params file if one is given."""
    if not header:
        if layers_cfg is None or params_cfg is None:
            raise CommandLineError("expected two config files: convnet-train layers.cfg params.cfg (or --resume DIR); --help says more")
        return read_config(layers_cfg, params_cfg)
    if params_cfg is None:
        config = parse_config(header["layers_text"], header["params_text"], header["layers_file"], header["params_file"])
        config.options = {}  # its options are in the checkpoint
        return config
    from ..cfgfile import read_text
    return parse_config(header["layers_text"], read_text(params_cfg), header["layers_file"], params_cfg)


def newest_checkpoint(folder: Path) -> tuple[Path, list[str]]:
    """The newest valid checkpoint in a run's folder, or in the newest run's below it."""
    if folder.is_file():
        return folder, []
    runs = [folder, *sorted((path for path in folder.glob("ConvNet__*") if path.is_dir()), reverse=True)] if folder.is_dir() else []
    warnings: list[str] = []
    for run in runs:
        path, more = checkpoint.newest_valid(run)
        warnings += more
        if path:
            return path, warnings
    raise MissingInput("\n".join([*warnings, f"--resume {folder}: no valid checkpoint there; expected a folder that convnet-train --save-path wrote"]))


# ---- data ----------------------------------------------------------------------------------------------------

def open_data(config: Config, options: Options) -> Provider:
    """The provider; fills in the ranges where there is no doubt about them."""
    if options.data_provider is None:
        if options.data_path is None:
            raise MissingInput(no_data(config))
        options.data_provider = "cifar"
    if options.data_path is None and not options.data_provider.startswith("dummy"):
        raise CommandLineError(f"--data-provider {options.data_provider} needs --data-path DIR")
    provider = open_provider(options.data_provider, options.data_path, crop_border=options.crop_border, net_classes=net_classes(config), seed=options.seed)
    options.crop_border = provider.crop_border
    if options.train_range is None or options.test_range is None:
        if provider.numbers is not None:
            raise CommandLineError(f"expected --train-range and --test-range; {options.data_path} has the batches {', '.join(map(str, provider.numbers))}")
        options.train_range, options.test_range = options.train_range or [1], options.test_range or [2]
    if provider.numbers is not None:
        for name in ("train_range", "test_range"):
            missing = [number for number in getattr(options, name) if number not in provider.numbers]
            if missing:
                raise MissingInput(f"--{name.replace('_', '-')}: {options.data_path} has no batch {missing[0]}, but {', '.join(map(str, provider.numbers))}")
    if provider.mean is None and provider.read(options.train_range[0]).data[0].dtype == np.uint8:
        provider.mean = mean_of(provider, options.train_range)
    return provider


def data_spec(provider: Provider, options: Options) -> DataSpec:
    dtype = str(provider.read(options.train_range[0]).data[0].dtype)
    stored = ((dtype, provider.stored), *(("float32", shape) for shape in provider.shapes[1:]))
    return DataSpec(provider.shapes, stored, provider.mean)


def net_classes(config: Config) -> int | None:
    """How many classes the net tells apart: the outputs of the layer under the softmax under the cost."""
    by_name = {layer.name: layer for layer in config.layers}
    for cost in (layer for layer in config.layers if layer.is_cost):
        layer = by_name[cost.inputs[-1]]
        while not hasattr(layer, "outputs") and len(layer.inputs) == 1:
            layer = by_name[layer.inputs[0]]
        if hasattr(layer, "outputs"):
            return layer.outputs
    return None


def no_data(config: Config) -> str:
    """What to type when no data were named: an image size that the net takes is found by trying."""
    channels = next((layer.channels[0] for layer in config.layers if getattr(layer, "channels", ()) and isinstance(layer, WeightLayer)), 3)
    files = f"{config.layers_file} {config.params_file}"
    large = any(getattr(layer, "stride", (1,))[0] > 2 for layer in config.layers if isinstance(layer, WeightLayer))
    lines = ["no data to train on. This net would run"]
    for size in ((224, 227, 256) if large else (32, 24, 28, 64, 8, 224)):
        try:
            Graph(config.layers, ((channels, size, size), (1, 1, 1)))
        except ConfigError:
            continue
        lines.append(f"  on random images:  convnet-train {files} --data-provider dummy:{channels}x{size}x{size} --max-steps 10")
        break
    lines.append(f"  on a data set:     convnet-train {files} --data-path DIR --train-range 1-5 --test-range 6")
    lines.append("where DIR holds data_batch_1, ..., and batches.meta, as in CIFAR-10's Python version")
    return "\n".join(lines)


# ---- devices, folders, messages --------------------------------------------------------------------------------

def open_devices(stack: contextlib.ExitStack, graph: Graph, backend: str, options: Options) -> dict[int, Device]:
    """A device for each that the config uses; on the CPU the cores are shared among them."""
    used = graph.devices
    count = max(used) + 1
    physical = options.gpu
    if physical is not None and len(physical) < count:
        raise CommandLineError(f"--gpu {','.join(map(str, physical))}: the config uses devices 0 to {count - 1}, expected {count} numbers, as --gpu {','.join(['0'] * count)}")
    if backend == "cuda":
        from ..backends import load_module
        there = load_module("cuda").device_count()
        physical = physical or [index % there for index in range(count)]
        for number in physical:
            if number >= there:
                raise NoSuchDevice(f"--gpu: there is no GPU {number}; this machine has {', '.join(map(str, range(there)))}")
        if count > there:
            print(f"{count} devices of the config share {there} GPU{'s' if there > 1 else ''}")
    physical = physical or list(range(count))
    threads = max(1, (os.cpu_count() or 1) // len({physical[index] for index in used}))
    return {index: stack.enter_context(Device(backend, index, physical[index], threads)) for index in used}


def open_run_folder(stack: contextlib.ExitStack, options: Options, resumed: Path | None, log: RunLog) -> Path | None:
    """The folder of this run's checkpoints, locked."""
    folder = resumed
    if folder is None and options.save_path:
        folder = Path(options.save_path) / f"ConvNet__{datetime.datetime.now():%Y-%m-%d_%H.%M.%S}"
    if folder is None:
        return None
    return stack.enter_context(checkpoint.lock(folder))


def warn(net: Net, options: Options, log: RunLog, resumed: bool) -> None:
    """What is probably not meant."""
    weights = {f"{node.name}.{name}": w for node in net.graph.nodes for name, w in node.weights.items()}
    frozen = [name for name, w in weights.items() if w.rate.base <= 0]
    if frozen and not resumed:
        log.warning(f"learning rate 0 for {', '.join(frozen)}: random weights that never change. "
                    "Published params files often hold the rates of the end of a run; the comments in them tell the first ones")
    if "epochs" not in options.given and any(w.rate.falls for w in weights.values()):
        log.warning(f"learning rates fall over the planned number of epochs, which is {options.epochs}; give --epochs")
    if not resumed and not options.save_path:
        log.warning("nothing will be saved; --save-path DIR keeps checkpoints")


def describe_net(net: Net, backend: str) -> None:
    for node in net.graph.nodes:
        where = "the host" if node.layer.on_host else f"{'GPU' if backend == 'cuda' else 'device'} {node.device}"
        print(f"Initialized {node.layer.kind} layer '{node.name}' on {where}, producing {describe(node.shape)} output")
    for index, kinds in net.memory(net.plan(net_images(net), "train")).items():
        print(f"Device {index} ({net.devices[index].ops.device_name(net.devices[index].physical)}): "
              + ", ".join(f"{kind} {nbytes / 2**20:.1f} MiB" for kind, nbytes in kinds.items()))


def net_images(net: Net) -> int:
    """Images in the largest plan there is."""
    return max(key[0] for key in net._plans)


# ---- what is done instead of training ----------------------------------------------------------------------------

def first_minibatch(provider: Provider, options: Options, images: int) -> tuple[np.ndarray, ...]:
    batch = provider.read(options.train_range[0])
    return tuple(np.ascontiguousarray(array[..., :images]) for array in batch.data)


def print_plan(net: Net, provider: Provider, options: Options) -> None:
    arrays = first_minibatch(provider, options, options.mini)
    if not options.profile:
        print(net.compile(arrays[0].shape[-1], "train").table())
        return
    from ..profile import profile
    plan = net.plan(arrays[0].shape[-1], "train")
    print(profile(net, plan, {**dict(enumerate(arrays)), "state": net.state(0)}))


def check_grads(net: Net, provider: Provider, options: Options) -> int:
    from ..gradcheck import check_gradients
    images = options.mini if "mini" in options.given else min(options.mini, 4)
    return 0 if check_gradients(net, first_minibatch(provider, options, images)) else 1


def test_only(trainer: Trainer, options: Options) -> int:
    if not options.resume:
        raise CommandLineError("--test-only needs --resume DIR: the checkpoint to test")
    means = trainer.test(per_batch=True)
    print(f"{trainer._format(means)} (mean over the test range)")
    return 0

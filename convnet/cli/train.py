"""convnet-train: trains the net that two config files describe."""
from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import os
import platform
import shlex
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import __version__, checkpoint
from ..backends import Device, choose_backend, cores, host_isa, load_module, tile_table
from ..cfgfile import read_text
from ..config import Config, parse_config, read_config
from ..data import (
    Augmentation,
    Batch,
    Provider,
    color_pca_of,
    default_provider,
    format_range,
    mean_of,
    open_provider,
)
from ..drops import parse_drop
from ..errors import CannotCreate, CommandLineError, ConfigError, MissingInput, NoSuchDevice
from ..gradcheck import check_gradients
from ..graph import Graph, listed
from ..initial import Initial, split_init_from
from ..layers.weights import WeightLayer
from ..net import DataSpec, Net
from ..options import Options, precision_doubts, read_options_section
from ..outputs import named_cost, test_views, write_features
from ..own_kernels import read_sources
from ..predict import MEANING, TrainedNet, load_checkpoint, newest_checkpoint
from ..runlog import RunLog
from ..stages import Stage, make_stages, read_stages, stage_at
from ..trainer import Trainer
from ..untie import untied_layers, untied_tensors
from ..wanted import label_kind, net_classes, suitable_provider
from . import run_command
from .info import commit
from .original import add_original_options, spelled_flags, take_original_words

MOST_COLORS = 4  # components of colour noise (ops.h, noisy_image_forward)
END_OF_RUN = 1e-4  # learning rates of weights at which the public nets ended


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet-train", description="Trains a convolutional net described by two config files in cuda-convnet's language.",
        epilog="The two files alone are enough when the params file has a section [convnet-train], whose keys are long option names.")
    parser.add_argument("layers_cfg", nargs="?", help="the layers and how they are connected (layers.cfg)")
    parser.add_argument("params_cfg", nargs="?", help="their learning rates and other parameters (params.cfg)")
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    add_options(parser, list(Options.fields()))
    add_original_options(parser)
    return parser


def add_options(parser: argparse.ArgumentParser, names: list[str]) -> None:
    for name in names:
        field = Options.fields()[name]
        words = [f"--{name.replace('_', '-')}"] + (["-f"] if name == "resume" else [])
        default = "" if field.default in (None, False, 0) else f" (default {field.default})"
        if field.metadata["kind"] == "flag":
            parser.add_argument(*words, action="store_true", default=None, help=field.metadata["help"])
            parser.add_argument(f"--no-{words[0][2:]}", dest=name, action="store_false", default=None, help=argparse.SUPPRESS)
        else:
            parser.add_argument(*words, metavar=field.metadata["metavar"], help=field.metadata["help"] + default)


def main(argv: list[str] | None = None) -> None:
    run_command("convnet-train", lambda: train(argv))


def train(argv: list[str] | None = None) -> int:
    words = vars(build_parser().parse_args(spelled_flags(argv)))
    layers_cfg, params_cfg, warnings = take_original_words(words)
    options = Options()
    options.command(words)
    resumed, header, tensors = None, {}, {}
    if options.save_file and not options.resume and os.path.isdir(options.save_file) and checkpoint.checkpoints(options.save_file):
        options.resume = options.save_file
    if (options.test_only or options.write_features) and not options.resume:
        raise CommandLineError(f"--{'test-only' if options.test_only else 'write-features'} needs --resume DIR: the checkpoint to take")
    if options.resume and options.init_from:
        raise CommandLineError("--init-from begins a run, and --resume goes on with one; expected one of them")
    if options.resume:
        resumed, damaged = newest_checkpoint(Path(options.resume))
        warnings += damaged
        header, tensors = load_checkpoint(resumed)
        options.update(header["options"], header["commanded"])
    stages = load_stages(layers_cfg, params_cfg, options, header, warnings)
    config = stages[0].config if stages else load_config(layers_cfg, params_cfg, header, warnings, options.strict_legacy)
    read_options_section(options, config.options, config.params_file)
    options.check()
    if stages:
        check_stages(stages, options, words["epochs"], warnings)
        config = stage_at(stages, header["position"]["epoch"] if header else 1).config
    untied = {id(each): untied_layers(each, options.conv_to_local or [], options.unshare_weights or [])
              for each in [config, *(stage.config for stage in stages)]}
    tied, config = config, untied[id(config)]
    stages = [replace(stage, config=untied[id(stage.config)]) for stage in stages]

    with contextlib.ExitStack() as stack:
        log = stack.enter_context(RunLog(Path(options.log) if options.log else None))
        provider = open_data(config, options)
        first = provider.read(options.train_range[0])
        data = data_spec(provider, first, options, tensors)
        backend = choose_backend(options.backend)
        if options.test_only and options.multiview_test:
            for text in warnings:
                log.warning(text)
            with TrainedNet(header, tensors, backend, options.precision, options.allow_code) as trained:
                cost = named_cost(trained.net.graph, options.logreg_name)
                test_views(trained, provider, options.test_range, cost, options.test_out and Path(options.test_out), str(resumed))
            return 0
        graph = Graph(config.layers, data.shapes, data.class_tree)
        configs = [stage.config for stage in stages] or [config]
        for layer in itertools.chain(*(each.layers for each in configs)) if options.wupdate_freq > 1 else ():
            if isinstance(layer, WeightLayer) and not layer.update_period:
                layer.update_period = options.wupdate_freq * graph.passes
        plans_only = options.plan and not options.profiles
        sources = {} if plans_only else read_sources(itertools.chain(*(each.layers for each in configs)), Path(config.layers_file).parent, options.allow_code,
                                                     header.get("sources", {}))
        devices = open_devices(stack, graph, backend, options)
        log.start(convnet=__version__, commit=commit(), python=platform.python_version(), numpy=np.__version__, backend=backend,
                  isa=host_isa() if backend == "host" else None, tiles=tile_table(backend), devices=device_names(devices), options=options.stored(),
                  resumed=str(resumed) if resumed else None)
        net = Net(config, data, devices, options.seed, "float64" if options.check_grads else "float32", options.mini, options.conserve_mem,
                  precision=options.precision, sources=sources, graphs=options.graphs, streams=options.streams)
        warnings += [*dict.fromkeys(text for each in configs for text in each.warnings), *doubts(net, options, resumed), *precision_doubts(options.precision, backend)]
        for text in warnings:
            log.warning(text)
        arrays = tuple(array[..., : options.mini] for array in first.data)
        images = arrays[0].shape[-1]
        if plans_only:
            print(net.compile(images, "train").table())
            return 0
        phase = "test" if options.test_only or options.write_features else "check" if options.check_grads else "train"
        net.check_memory(net.compile(images, phase))
        if tied is not config:
            tensors = untied_tensors(Graph(tied.layers, data.shapes, data.class_tree), graph, tensors or beginning(tied, data, options, log))
        net.load(tensors) if tensors else initialise(net, options, log)
        if options.write_features:
            write_features(net, provider, options.test_range, options.write_features, Path(options.feature_path), str(resumed), options.mini)
            return 0
        if options.profiles:
            from ..profile import picture, profile
            plan, feeds = net.plan(images, "train"), {**dict(enumerate(arrays)), "state": net.state(0)}
            if options.trace or options.timeline:
                print(picture(plan, feeds, f"{config.layers_file}, {images} images, {backend}", options.trace, options.timeline))
            if options.profile:
                print(profile(net, plan, feeds))
            return 0
        if options.check_grads:
            few = arrays if "mini" in options.commanded else tuple(array[..., :4] for array in arrays)
            return 0 if check_gradients(net, few) else 1

        run_folder = None if options.test_only else open_run_folder(stack, options, resumed, log)
        fresh = {"layers_text": config.layers_text, "params_text": config.params_text, "layers_file": config.layers_file,
                 "params_file": config.params_file, "params_path": os.path.abspath(config.params_file), "convnet": __version__, "meaning": MEANING, "class_names": provider.class_names,
                 "crop_border": provider.crop_border, "shapes": data.shapes, "stored": data.stored,
                 "stages": [stage.stored() for stage in stages], "sources": sources}
        if any(layer.reads_class_tree for layer in config.layers):
            fresh["class_tree"] = data.class_tree
        if resumed and run_folder != resumed.parent:
            fresh["best"] = None  # it is a file of another folder
        trainer = Trainer(net, provider, options, log, run_folder, {**header, **fresh}, stages)
        if options.test_only:
            return test_only(trainer, log)
        describe_net(net, images, backend)
        describe_run(options, devices, resumed, run_folder)
        trainer.train()
    return 0


def test_only(trainer: Trainer, log: RunLog) -> int:
    means, _ = trainer.test(per_batch=True)
    print(f"{trainer.format(means)} (mean over {'one batch of ' * trainer.options.test_one}the test range)")
    log.write("test", step=trainer.position.step, costs=means)
    return 0


# ---- what it reads -------------------------------------------------------------------------------------------

def load_config(layers_cfg: str | None, params_cfg: str | None, header: dict, warnings: list[str], strict: bool) -> Config:
    """The config of the command line; when resuming, the layers of the checkpoint, and the params file as it is now, if there is one."""
    if not header:
        if layers_cfg is None or params_cfg is None:
            raise CommandLineError("expected two config files: convnet-train layers.cfg params.cfg (or --resume DIR); --help says more")
        return read_config(layers_cfg, params_cfg, strict)
    if layers_cfg is not None and read_text(layers_cfg) != header["layers_text"]:
        warnings.append(f"{layers_cfg} has changed since the checkpoint was written: the layers of the checkpoint are used")
    params_text, params_file = header["params_text"], params_cfg or header["params_file"]
    if params_cfg is not None:
        params_text = read_text(params_cfg)
    elif os.path.isfile(path := header.get("params_path", "")) and (text := read_text(path)) != params_text:
        params_text, params_file = text, path
        warnings.append(f"{path} has changed since the checkpoint was written: its params are used")
    config = parse_config(header["layers_text"], params_text, header["layers_file"], params_file, strict)
    if params_cfg is None and params_text == header["params_text"]:
        config.options = {}  # they are in the checkpoint
    return config


def load_stages(layers_cfg: str | None, params_cfg: str | None, options: Options, header: dict, warnings: list[str]) -> list[Stage]:
    """The params files of --stages, or of the checkpoint; none where one params file holds for the whole run."""
    if options.stages and params_cfg is not None:
        raise CommandLineError("--stages names the params files; expected one config file, convnet-train layers.cfg --stages FILE, or none with --resume")
    listed = read_stages(options.stages) if options.stages else header.get("stages") if params_cfg is None else None
    if not listed:
        return []
    if layers_cfg is None and not header:
        raise CommandLineError("expected a config file: convnet-train layers.cfg --stages FILE")
    text = read_text(layers_cfg) if layers_cfg is not None else header["layers_text"]
    if header and text != header["layers_text"]:
        warnings.append(f"{layers_cfg} has changed since the checkpoint was written: the layers of the checkpoint are used")
    stages = make_stages(listed, header.get("layers_text", text), header.get("layers_file", layers_cfg), options.strict_legacy)
    if not options.stages:
        for stage in stages:
            stage.config.options = {}  # they are in the checkpoint
    return stages


def check_stages(stages: list[Stage], options: Options, epochs: str | None, warnings: list[str]) -> None:
    """Takes the number of epochs, and says what contradicts it."""
    if epochs is not None or options.lr_steps or parse_drop(options.lr_drop):
        name = "--epochs" if epochs is not None else "--lr-steps" if options.lr_steps else "--lr-drop"
        raise CommandLineError(f"{name}: the stages of this run say how many epochs each params file holds; change them in their file, and give --stages FILE")
    options.epochs = stages[-1].last
    first = stages[0].config.options
    for stage in stages[1:]:
        for key, value in stage.config.options.items():
            if key != "epochs" and (key not in first or first[key].text != value.text):
                warnings.append(f"{stage.config.params_file}:{value.line}: [convnet-train] {value.key}: ignored; the options of a run are those of its first stage")


def open_data(config: Config, options: Options) -> Provider:
    """The provider; fills in the ranges where there is no doubt about them."""
    if options.data_provider is None:
        if options.data_path is None:
            raise MissingInput(no_data(config))
        options.data_provider = default_provider(options.data_path)
    if options.data_path is None and not options.data_provider.startswith("dummy"):
        raise CommandLineError(f"--data-provider {options.data_provider} needs --data-path DIR")
    provider = open_provider(options.data_provider, options.data_path, crop_border=options.crop_border, inner_size=options.inner_size,
                             net_classes=net_classes(config), label_kind=label_kind(config), seed=options.seed, threads=options.loader_threads, in_memory=options.data_in_memory)
    options.train_range = options.train_range or provider.groups.get("training")
    options.test_range = options.test_range or provider.groups.get("validation") or provider.groups.get("test")
    options.crop_border = provider.crop_border
    if options.train_range is None or options.test_range is None:
        if provider.numbers is not None:
            raise CommandLineError(f"expected --train-range and --test-range, as 1-5 and 6; {options.data_path} has the batches {format_range(provider.numbers)}")
        options.train_range, options.test_range = options.train_range or [1], options.test_range or [2]
    if provider.numbers is not None:
        for name in ("train_range", "test_range"):
            missing = [number for number in getattr(options, name) if number not in provider.numbers]
            if missing:
                raise MissingInput(f"--{name.replace('_', '-')}: {options.data_path} has no batch {missing[0]}, but {format_range(provider.numbers)}")
    return provider


def initialise(net: Net, options: Options, log: RunLog) -> None:
    """Initial weights: from --init-from, from functions beside the config, or random."""
    path, renamed = split_init_from(options.init_from or "")
    tensors = None
    if path and path != "random":
        newest, damaged = newest_checkpoint(Path(path).expanduser())
        path, (_, tensors) = str(newest), load_checkpoint(newest)
        for text in damaged:
            log.warning(text)
    initial = Initial(Path(net.config.layers_file).parent, options.allow_code, path, tensors, renamed)
    net.initialise(initial)
    for text in initial.warnings:
        log.warning(text)
    for line in initial.report():
        print(line)


def beginning(config: Config, data: DataSpec, options: Options, log: RunLog) -> dict[str, np.ndarray]:
    """The tensors of a new net."""
    with contextlib.ExitStack() as stack:
        devices = {index: stack.enter_context(Device("host", index, index, 1)) for index in Graph(config.layers, data.shapes, data.class_tree).devices}
        net = Net(config, data, devices, options.seed)
        initialise(net, options, log)
        return net.tensors()


def data_spec(provider: Provider, first: Batch, options: Options, tensors: dict[str, np.ndarray]) -> DataSpec:
    """What the net must know of the data; the mean is that of the run's beginning."""
    dtype = str(first.data[0].dtype)
    mean = tensors.get("data.mean", provider.mean)
    if options.scalar_mean is not None and options.scalar_mean >= 0:
        if dtype != "uint8":
            raise CommandLineError(f"--scalar-mean: {provider.name} has values, not pixels; leave it out")
        mean = np.full(provider.shapes[0], options.scalar_mean, np.float32)
    elif options.scalar_mean is not None and "scalar_mean" in options.given and tensors:
        mean = provider.mean  # again
    if mean is None and dtype == "uint8":
        mean = mean_of(provider, options.train_range)
    if provider.shapes[0] != provider.stored and dtype != "uint8":
        raise CommandLineError(f"--crop-border, --inner-size: only images of uint8 pixels are cropped; those of {provider.name} are {dtype}")
    if options.color_noise and dtype != "uint8":
        raise CommandLineError(f"--color-noise: only images of uint8 pixels have colours; those of {provider.name} are {dtype}")
    if options.color_noise and provider.stored[0] > MOST_COLORS:
        raise CommandLineError(f"--color-noise: the images of {provider.name} have {provider.stored[0]} channels, expected at most {MOST_COLORS}")
    color_pca = tensors.get("data.color_pca", provider.color_pca)
    if color_pca is None and options.color_noise:
        color_pca = color_pca_of(provider, options.train_range)
    return DataSpec.of(provider, dtype, mean, Augmentation(options.images_per_crop, options.color_noise, options.noise_rule, color_pca))


def no_data(config: Config) -> str:
    """What to type when no data were named: an image size that the net takes is found by trying."""
    files = shlex.join([config.layers_file, config.params_file])
    lines = ["no data to train on. This net would run"]
    with contextlib.suppress(ConfigError):
        lines.append(f"  on random images:  convnet-train {files} --data-provider {suitable_provider(config)} --max-steps 10")
    lines.append(f"  on a data set:     convnet-train {files} --data-path DIR --train-range 1-5 --test-range 6")
    lines.append("where DIR was made by convnet-data, or holds data_batch_1, ..., and batches.meta, as in CIFAR-10's Python version")
    return "\n".join(lines)


# ---- devices, folders, messages --------------------------------------------------------------------------------

def open_devices(stack: contextlib.ExitStack, graph: Graph, backend: str, options: Options) -> dict[int, Device]:
    """A device for each that the config uses; on the CPU the cores are shared among them."""
    used = graph.devices
    if options.gpu is not None and len(options.gpu) <= used[-1]:
        node = next(node for node in graph.computed if max(node.devices) >= len(options.gpu))
        raise CommandLineError(f"--gpu {listed(options.gpu)}: {node.layer.where}: [{node.name}] gpu={listed(node.devices)} is beyond it; the config uses devices "
                               f"0 to {used[-1]}, expected {used[-1] + 1} numbers" + (f", as --gpu {listed([0] * (used[-1] + 1))}" if used[-1] < 16 else ""))
    physical = {index: options.gpu[index] if options.gpu else index for index in used}
    if backend == "cuda":
        there = load_module("cuda").device_count()
        if options.gpu is None:
            physical = {index: index % there for index in used}
            if len(used) > there:
                print(f"{len(used)} devices of the config share {there} GPU{'s' if there > 1 else ''}")
        for number in physical.values():
            if number >= there:
                raise NoSuchDevice(f"--gpu: there is no GPU {number}; this machine has {', '.join(map(str, range(there)))}")
    threads = max(1, cores() // len(set(physical.values())))
    return {index: stack.enter_context(Device(backend, index, physical[index], threads)) for index in used}


def open_run_folder(stack: contextlib.ExitStack, options: Options, resumed: Path | None, log: RunLog) -> Path | None:
    """The folder of this run's checkpoints, locked: the resumed one's, or a new one. None where nothing is to be saved."""
    parent = Path(options.save_path) if options.save_path else None
    folder = None
    if options.save_file and not (resumed and resumed.parent.resolve() == Path(options.save_file).resolve()):
        return stack.enter_context(checkpoint.lock(Path(options.save_file)))
    elsewhere = "save_path" in options.commanded and parent.resolve() != resumed.parent.parent.resolve() if resumed else True
    if not elsewhere:
        newer = list(itertools.takewhile(lambda path: path != resumed, checkpoint.checkpoints(resumed.parent)))
        if resumed not in checkpoint.checkpoints(resumed.parent):
            log.warning(f"{resumed} is not in the folder of a run")
        elif newer and Path(options.resume).is_file():
            parent = resumed.parent.parent
            log.warning(f"{newer[0]} is newer than {resumed}: this run gets a folder of its own, beside that one")
        else:
            folder = stack.enter_context(checkpoint.lock(resumed.parent))
            for path in newer:  # it is damaged; later it would be taken for the newest
                os.replace(path, f"{path}.damaged")
                log.warning(f"set aside as {path}.damaged")
    if folder is None and parent:
        folder = stack.enter_context(checkpoint.lock(new_folder(parent)))
    if folder is None:
        log.warning("nothing will be saved; --save-path DIR keeps checkpoints")
    return folder


def new_folder(parent: Path) -> Path:
    """A folder for a run that starts now; several may start in one second."""
    name = f"ConvNet__{datetime.datetime.now():%Y-%m-%d_%H.%M.%S}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for suffix in itertools.chain([""], (f"_{i}" for i in itertools.count(2))):
            with contextlib.suppress(FileExistsError):
                (parent / f"{name}{suffix}").mkdir()
                return parent / f"{name}{suffix}"
    except OSError as error:
        raise CannotCreate(f"--save-path {parent}: cannot make a folder there: {error.strerror}") from None


def doubts(net: Net, options: Options, resumed: Path | None) -> list[str]:
    """What is probably not meant."""
    if options.plan or options.profiles or options.check_grads or options.test_only or options.write_features:
        return []
    texts = []
    if options.multiview_test:
        texts.append("--multiview-test: tests while training see the centre of each image; --test-only --multiview-test, or convnet-test, sees ten views")
    weights = {full: weights for node in net.graph.nodes for full, weights in node.owned()}
    frozen = [name for name, w in weights.items() if w.rate.base <= 0]
    if frozen and not resumed and not options.init_from:
        texts.append(f"learning rate 0 for {', '.join(frozen)}: random weights that never change. "
                     "Published params files often hold the rates of the end of a run; the comments in them tell the first ones")
    learning = [w.rate.base for name, w in weights.items() if not name.endswith(".b") and w.rate.base > 0]
    if learning and max(learning) <= END_OF_RUN and not resumed:
        texts.append(f"no learning rate of weights is above {max(learning):g}: rates of the end of a run, at which random weights hardly learn")
    if "epochs" not in options.given and options.epochs == Options.epochs and any(w.rate.falls for w in weights.values()):
        texts.append(f"learning rates fall over the planned number of epochs, which is {options.epochs}; give --epochs")
    return texts


def describe_net(net: Net, images: int, backend: str) -> None:
    """Prints the layers, as the original."""
    for node in net.graph.nodes:
        layer, (channels, height, width) = node.layer, node.shape
        place = "GPU" if backend == "cuda" else "device"
        where = "" if layer.on_host else f" on {place}{'s' if node.replicas > 1 else ''} {listed(node.devices)}"
        outputs = f"{height}x{width} {channels}-channel output" if height * width > 1 and not layer.on_host else f"{channels * height * width} outputs"
        print(f"Initialized {layer.title()} '{node.name}'{where}" + ("" if layer.is_cost else f", producing {outputs}"))
    for index, kinds in net.memory(net.plan(images, "train")).items():
        print(f"Device {index}: " + ", ".join(f"{kind} {nbytes / 2**20:.1f} MiB" for kind, nbytes in kinds.items()))


def describe_run(options: Options, devices: dict[int, Device], resumed: Path | None, run_folder: Path | None) -> None:
    """Prints the options and what becomes of the run, as the original."""
    print("=" * 25)
    for name, value in options.stored().items():
        text = format_range(value) if name.endswith("_range") else ",".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', '-'):14}: {text}" + ("     [DEFAULT]" if value == Options.fields()[name].default else ""))
    print("=" * 25)
    print("Running on " + ", ".join(f"{name} (device {index})" for index, name in device_names(devices).items()))
    print(f"Current time: {time.asctime()}")
    if resumed:
        print(f"Resuming from {resumed}")
    if run_folder:
        print(f"Saving checkpoints to {run_folder}")
    print("=" * 25, flush=True)


def device_names(devices: dict[int, Device]) -> dict[int, str]:
    return {index: device.ops.device_name(device.physical) for index, device in devices.items()}


if __name__ == "__main__":
    main()

"""Initial weights made by functions beside the config, or taken from a checkpoint (SEMANTICS 1.2, 7.7)."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from convnet.cli.train import train
from convnet.config import parse_config
from convnet.errors import CommandLineError, ConfigError, DataError
from convnet.initial import Initial, split_init_from
from small_nets import DATA, LABELS, RATES, fc, params_of, section, small_net

COST = section("probs", type="softmax", inputs="fc2") + section("logprob", type="cost.logreg", inputs="labels,probs")
CONV = {"type": "conv", "inputs": "data", "filters": 2, "filterSize": 3, "initW": 0.3, "initB": 0.1}


def layers_of(conv: dict | None = None, last: dict | None = None) -> str:
    """data -> conv1 -> fc2 -> cost"""
    return DATA + LABELS + section("conv1", **{**CONV, **(conv or {})}) + fc("fc2", "conv1", **{"outputs": 4, **(last or {})}) + COST


def started(layers: str, initial: Initial | None = None, rates: str = RATES, **kwargs) -> dict[str, np.ndarray]:
    """The tensors of a new net."""
    with small_net(layers, f"[conv1]\n{rates}[fc2]\n{rates}[logprob]\n", initial=initial, **kwargs) as net:
        return net.tensors()


def with_code(folder, text: str, **kwargs) -> Initial:
    (folder / "mine.py").write_text(text)
    return Initial(folder, allow_code=True, **kwargs)


def failed(layers: str, initial: Initial, error=ConfigError) -> str:
    with pytest.raises(error) as caught:
        started(layers, initial)
    return str(caught.value)


# ---- functions beside the config -----------------------------------------------------------------------------


COUNTING = """
import numpy as np

def weights(name, idx, shape, params=()):
    assert name in ("conv1", "fc2") and idx == 0, (name, idx)
    return float(params[0]) * np.arange(np.prod(shape)).reshape(shape) if params else np.zeros(shape)

def biases(name, shape, params=[]):
    assert params == ["a", "b c"], params
    return [[row + 10 * column for column in range(shape[1])] for row in range(shape[0])]

def channels(name, idx, shape, params=[]):
    groups, channels, each = shape
    assert (name, idx, shape) == ("conv1", 0, (2, 3, 3)), (name, idx, shape)
    return np.array([[2, 0, 1], [1, 2, 0]], np.int32)
"""


def test_functions_are_given_the_shapes_of_the_originals(tmp_path):
    """Filters as columns; the biases of a conv as a column, those of an fc as a row."""
    layers = layers_of({"initWFunc": "mine.weights(0.5)", "initBFunc": "mine.biases(a, b c)"}, {"initWFunc": "mine.weights", "initBFunc": "mine.biases(a,b c)"})
    tensors = started(layers, with_code(tmp_path, COUNTING))
    assert np.array_equal(tensors["conv1.W0"], 0.5 * np.arange(27 * 2).reshape(3, 3, 3, 2))
    assert np.array_equal(tensors["conv1.b"], [0, 1])
    assert np.array_equal(tensors["fc2.W0"], np.zeros((32, 4)))
    assert np.array_equal(tensors["fc2.b"], [0, 10, 20, 30])
    assert not tensors["conv1.W0.inc"].any()


def test_filters_of_a_local_layer_are_one_matrix(tmp_path):
    layers = layers_of({"type": "local", "initWFunc": "mine.weights(1)", "initBFunc": "mine.biases(a,b c)"})
    tensors = started(layers, with_code(tmp_path, COUNTING))
    assert np.array_equal(tensors["conv1.W0"].ravel(), np.arange(16 * 27 * 2))
    assert np.array_equal(tensors["conv1.b"], np.arange(32))


def test_a_function_connects_groups_with_channels(tmp_path):
    layers = layers_of({"groups": 2, "randSparse": 1, "filterChannels": 3, "initCFunc": "mine.channels"})
    assert np.array_equal(started(layers, with_code(tmp_path, COUNTING))["conv1.conns0"], [2, 0, 1, 1, 2, 0])


@pytest.mark.parametrize(("code", "told"), [
    ("def f(*_, **__):\n    return 1 / 0\n", "mine.py:2: f() failed: ZeroDivisionError: division by zero"),
    ("def f(*_, **__):\n    raise SystemExit(3)\n", "mine.py:2: f() failed: SystemExit: 3"),
    ("\nimport nothing_of_this_name\n", "mine.py:2: it failed: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ("def f(:\n", "mine.py:1: it failed: SyntaxError: invalid syntax (mine.py, line 1)"),
    ("f = 3\n", "mine.py has no function f"),
    ("def f():\n    pass\n", "mine.py: f() failed: TypeError: f() got an unexpected keyword argument 'params'"),
    ("def f(*_, **__):\n    return 'many'\n", "mine.py: f() gave a str, expected an array of numbers of the shape (27, 2)"),
    ("def f(*_, **__):\n    pass\n", "mine.py: f() gave a NoneType, expected an array of numbers of the shape (27, 2)"),
    ("def f(*_, **__):\n    return [[1e60] * 2] * 27\n", "mine.py: f() gave numbers that are not finite"),
    ("def f(*_, **__):\n    return [[0] * 27] * 2\n", "initWFunc=mine.f: gave the shape (2, 27), expected (27, 2)"),
])
def test_what_goes_wrong_in_a_function_is_told_with_its_place(code, told, tmp_path):
    message = failed(layers_of({"initWFunc": "mine.f"}), with_code(tmp_path, code))
    assert message.startswith("layers.cfg:7: [conv1] initWFunc=mine.f: ")
    assert told in message and "\n" not in message


def test_a_place_is_told_of_files_in_any_folder(tmp_path, monkeypatch):
    with_code(tmp_path, "def f(*_, **__):\n    return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    assert "=mine.f: mine.py:2: f() failed" in failed(layers_of({"initWFunc": "mine.f"}), Initial(Path(), allow_code=True))


def test_code_runs_only_when_the_command_line_says_so(tmp_path):
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    message = failed(layers_of({"initWFunc": "mine.f(1,2)"}), Initial(tmp_path))
    assert message == f"layers.cfg:7: [conv1] initWFunc=mine.f(1,2): runs {tmp_path}/mine.py, for which --allow-code is needed on the command line"
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_there(tmp_path):
    message = failed(layers_of({"initBFunc": "mine.f"}), Initial(tmp_path, allow_code=True))
    assert message == f"layers.cfg:7: [conv1] initBFunc=mine.f: no file {tmp_path}/mine.py"


@pytest.mark.parametrize("text", ["f", "../mine.f", "mine.f(1", "mine.f()(1)", "os.path.join", ""])
def test_what_is_no_function(text):
    if text:
        with pytest.raises(ConfigError, match=r"layers.cfg:14: \[conv1\] initWFunc: .*expected module.function or module.function\(p1,p2\)"):
            started(layers_of({"initWFunc": text}))
    else:
        started(layers_of({"initWFunc": text}))


def test_connections_without_random_channels_are_told(tmp_path):
    config = parse_config(layers_of({"initCFunc": "mine.f"}), params_of(layers_of()))
    assert config.warnings == ["layers.cfg:14: [conv1] initCFunc: ignored without randSparse=1"]


# ---- from a checkpoint ---------------------------------------------------------------------------------------


def other(layers: str = "", **kwargs) -> dict[str, np.ndarray]:
    """The tensors of another net, as of a checkpoint."""
    return {name: array.astype(np.float32) for name, array in started(layers or layers_of(), seed=7, **kwargs).items()}


def test_makew_takes_the_weights_of_a_layer_by_its_name(tmp_path):
    layers = layers_of({"initWFunc": "initw.makew(convX)", "initBFunc": "initw.makeb(convX)"})
    tensors = {name.replace("conv1", "convX"): array for name, array in other().items()}
    initial = Initial(tmp_path, init_from="old.ckpt", tensors=tensors)
    found = started(layers, initial)
    assert np.array_equal(found["conv1.W0"], tensors["convX.W0"]) and np.array_equal(found["conv1.b"], tensors["convX.b"])
    assert np.array_equal(found["fc2.W0"], started(layers_of())["fc2.W0"]), "what names no checkpoint does not take from it"
    assert initial.report() == ["From old.ckpt: conv1.W0 (its convX.W0), conv1.b (its convX.b)"]


def test_cuda_convnet2s_makew_names_a_file_and_takes_its_own_layer(tmp_path):
    layers = layers_of({"sumWidth": 1, "initWFunc": "initw.makew(/where/it/was)", "initBFunc": "initw.makeb(/where/it/was)"},
                       {"initWFunc": "initw.makewcat(/where,one,two)", "initBFunc": "initw.makebcat(/where,one,two)"})
    tensors = other()
    tensors |= {f"{name}.W0": tensors["fc2.W0"][:, columns] for name, columns in (("one", [2]), ("two", [0, 1, 3]))}
    tensors |= {f"{name}.b": np.array(biases, np.float32) for name, biases in (("one", [5]), ("two", [6, 7, 8]))}
    found = started(layers, Initial(tmp_path, init_from="old.ckpt", tensors=tensors))
    assert np.array_equal(found["conv1.W0"], tensors["conv1.W0"]) and np.array_equal(found["conv1.b"], tensors["conv1.b"])
    assert np.array_equal(found["fc2.W0"], tensors["fc2.W0"][:, [2, 0, 1, 3]]) and np.array_equal(found["fc2.b"], [5, 6, 7, 8])


def test_makec_takes_the_connections(tmp_path):
    sparse = {"groups": 3, "randSparse": 1}
    tensors = other(layers_of(sparse))
    found = started(layers_of({**sparse, "initCFunc": "initw.makec(conv1)"}), Initial(tmp_path, init_from="old.ckpt", tensors=tensors))
    assert np.array_equal(found["conv1.conns0"], tensors["conv1.conns0"])
    wrong = Initial(tmp_path, init_from="old.ckpt", tensors=tensors | {"conv1.conns0": np.array([0, 1, 3], np.float32)})
    assert failed(layers_of({**sparse, "initCFunc": "initw.makec(conv1)"}), wrong).endswith("gave 3, expected whole numbers from 0 to 2, the channels")


def test_makeb_vec_holds_its_biases_itself(tmp_path):
    assert np.array_equal(started(layers_of(last={"initBFunc": "initw.makeb_vec(1,2.5,-3,0)"}))["fc2.b"], [1, 2.5, -3, 0])
    assert failed(layers_of(last={"initBFunc": "initw.makeb_vec(1,2)"}), Initial(tmp_path)).endswith("gave the shape (1, 2), expected (1, 4)")


def test_random_stands_in_for_a_checkpoint(tmp_path):
    layers = layers_of({"initWFunc": "initw.makew(conv9)", "initBFunc": "initw.makeb(conv9)"})
    initial = Initial(tmp_path, init_from="random")
    found, plain = started(layers, initial), started(layers_of())
    assert all(np.array_equal(found[name], plain[name]) for name in plain)
    assert initial.warnings[0] == "layers.cfg:7: [conv1] initWFunc=initw.makew(conv9): --init-from random: drawn at random instead of taken from a checkpoint"
    assert len(initial.warnings) == 2 and initial.report() == []


def test_what_a_checkpoint_has_not_is_told(tmp_path):
    layers, tensors = layers_of({"initWFunc": "initw.makew(conv9)"}), other()
    assert failed(layers, Initial(tmp_path)).endswith("takes values from a checkpoint; expected --init-from CHECKPOINT on the command line, or --init-from random")
    old = Initial(tmp_path, init_from="old.ckpt", tensors=tensors)
    assert failed(layers, old).endswith("the checkpoint old.ckpt has no conv9.W0; expected one of conv1, fc2")
    assert failed(layers.replace("conv9", "fc2"), old).endswith("gave the shape (32, 4), expected (27, 2)")
    assert failed(layers.replace("(conv9)", ""), old).endswith("expected the name of a layer of the checkpoint in ( )")


def test_a_warm_start_takes_layers_by_name_where_shapes_agree(tmp_path):
    tensors = other(layers_of(last={"outputs": 5}))
    initial = Initial(tmp_path, init_from="old.ckpt", tensors=tensors)
    found, plain = started(layers_of(), initial), started(layers_of())
    for name in ("conv1.W0", "conv1.b"):
        assert np.array_equal(found[name], tensors[name])
    for name in ("fc2.W0", "fc2.b"):
        assert np.array_equal(found[name], plain[name])
    assert initial.report() == ["From old.ckpt: conv1.W0, conv1.b",
                                "Not from there, but from the seed: fc2.W0: fc2.W0 has shape (32, 5), expected (32, 4)",
                                "Not from there, but from the seed: fc2.b: fc2.b has shape (5,), expected (4,)"]


def test_a_warm_start_takes_layers_under_other_names(tmp_path):
    tensors = {name.replace("fc2", "fc8"): array for name, array in other().items()}
    path, renamed = split_init_from("runs/old.ckpt:fc2=fc8")
    found = started(layers_of(), Initial(tmp_path, init_from=path, tensors=tensors, renamed=renamed))
    assert np.array_equal(found["fc2.W0"], tensors["fc8.W0"]) and np.array_equal(found["conv1.W0"], tensors["conv1.W0"])
    wrong = Initial(tmp_path, init_from=path, tensors=tensors, renamed={"fc2": "fc9"})
    assert failed(layers_of(), wrong, DataError) == "--init-from runs/old.ckpt: for fc2.W0, the checkpoint has no fc9.W0"
    wrong = Initial(tmp_path, init_from=path, tensors=tensors, renamed={"fc3": "fc8"})
    assert failed(layers_of(), wrong, CommandLineError) == "--init-from: no layer fc3 in this net; did you mean fc2?"


def test_a_layer_of_the_same_shape_can_begin_anew(tmp_path):
    path, renamed = split_init_from("old.ckpt:fc2=random")
    initial, tensors = Initial(tmp_path, init_from=path, tensors=other(), renamed=renamed), other()
    found, plain = started(layers_of(), initial), started(layers_of())
    assert np.array_equal(found["conv1.W0"], tensors["conv1.W0"]) and np.array_equal(found["fc2.W0"], plain["fc2.W0"])
    assert initial.report()[1:] == [f"Not from there, but from the seed: fc2.{name}: as --init-from says" for name in ("W0", "b")]


@pytest.mark.parametrize("text", ["a.ckpt:x=", "a.ckpt:x=y,", "a.ckpt:x=y,x=z", "a.ckpt:=y"])
def test_names_that_cannot_be_read(text):
    with pytest.raises(CommandLineError, match="expected CHECKPOINT:layer=layer"):
        split_init_from(text)


@pytest.mark.parametrize("text", ["a.ckpt", "random", "", "c:/folder/a.ckpt"])
def test_a_checkpoint_without_names(text):
    assert split_init_from(text) == (text, {})


# ---- the command ---------------------------------------------------------------------------------------------


def command(folder, layers: str, *words: str) -> int:
    (folder / "layers.cfg").write_text(layers)
    (folder / "params.cfg").write_text(f"[conv1]\n{RATES}[fc2]\n{RATES}[logprob]\n")
    return train([str(folder / "layers.cfg"), str(folder / "params.cfg"), "--data-provider", "dummy-lr-108", "--mini", "8", "--epochs", "1", *words])


def test_the_command_warms_up_from_a_run(tmp_path, capsys):
    command(tmp_path, layers_of(), "--save-path", str(tmp_path / "runs"), "--max-steps", "1")
    capsys.readouterr()
    command(tmp_path, layers_of({"initWFunc": "initw.makew(conv1)"}), "--init-from", str(tmp_path / "runs"), "--max-steps", "1")
    assert re.search(r"From .*\.ckpt: conv1.W0\n", capsys.readouterr().out)
    command(tmp_path, layers_of(), "--init-from", f"{tmp_path / 'runs'}:fc2=fc2", "--max-steps", "1")
    assert re.search(r"From .*\.ckpt: conv1.W0, conv1.b, fc2.W0, fc2.b\n", capsys.readouterr().out)
    with pytest.raises(CommandLineError, match="--init-from begins a run, and --resume goes on with one"):
        command(tmp_path, layers_of(), "--init-from", "random", "--resume", str(tmp_path / "runs"))


def test_the_command_runs_code_beside_the_config(tmp_path):
    (tmp_path / "mine.py").write_text(COUNTING)
    layers = layers_of({"initWFunc": "mine.weights(0.001)"})
    with pytest.raises(ConfigError, match="--allow-code is needed on the command line"):
        command(tmp_path, layers, "--max-steps", "1")
    command(tmp_path, layers, "--max-steps", "1", "--allow-code")


@pytest.mark.parametrize("option", ["allow-code=1", "init-from=random"])
def test_a_file_cannot_allow_code(option, tmp_path):
    (tmp_path / "mine.py").write_text(COUNTING)
    layers = layers_of({"initWFunc": "mine.weights(0.001)"})
    (tmp_path / "layers.cfg").write_text(layers)
    (tmp_path / "params.cfg").write_text(f"[convnet-train]\n{option}\n[conv1]\n{RATES}[fc2]\n{RATES}[logprob]\n")
    with pytest.raises(ConfigError, match=r"params.cfg:2: \[convnet-train\] .*: no such option"):
        train([str(tmp_path / "layers.cfg"), str(tmp_path / "params.cfg"), "--data-provider", "dummy-lr-108"])

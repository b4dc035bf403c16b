"""./go, the decision about CUDA, convnet-info: what needs no network and no building."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GO = ROOT / "go"

if not GO.exists():
    pytest.skip("these are tests of a checkout", allow_module_level=True)


def load(name, path):
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path)))
    module = importlib.util.module_from_spec(spec)
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = dont_write
    return module


@pytest.fixture
def go(tmp_path, monkeypatch):
    """The script as a module, over a checkout and a .venv of its own."""
    module = load("go", GO)
    checkout, venv = tmp_path / "checkout", tmp_path / "venv"
    (checkout / "src").mkdir(parents=True)
    (checkout / "src" / "op.cu").write_text("one")
    (checkout / "pyproject.toml").write_text("")
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    paths = {
        "HERE": checkout,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "STATE": venv / "convnet.json",
        "LOCK": venv / "lock",
    }
    for name, path in paths.items():
        monkeypatch.setattr(module, name, str(path))
    for name in module.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "gpu_is_visible", lambda: False)
    return module


def finish(go, *extras):
    """Pretends that everything was set up."""
    go.Work(list(extras)).end()


def run_go(*arguments, **environment):
    env = {name: value for name, value in os.environ.items() if name not in ("CXX", "CONVNET_VENV")}
    return subprocess.run(
        [sys.executable, str(GO), *arguments],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )


# ---- go: what has changed ----


def test_nothing_to_do_when_all_is_set_up(go):
    finish(go)
    work = go.Work([])
    assert not work and work.is_recorded()


def test_a_changed_source_is_compiled(go):
    finish(go)
    Path(go.HERE, "src", "op.cu").write_text("two")
    work = go.Work([])
    assert work.compile and not work.install and work.changed == {"src/op.cu"}


@pytest.mark.parametrize(
    "change",
    [
        lambda source: source.with_name("new.cu").write_text(""),
        lambda source: source.unlink(),
    ],
)
def test_new_and_removed_sources_are_changes(go, change):
    finish(go)
    change(Path(go.HERE, "src", "op.cu"))
    assert go.Work([]).compile


def test_a_source_with_a_new_time_and_old_content_is_not_compiled(go):
    finish(go)
    os.utime(Path(go.HERE, "src", "op.cu"), (1, 1))
    work = go.Work([])
    assert not work and not work.is_recorded()


def test_a_changed_pyproject_is_installed_again(go):
    finish(go)
    Path(go.HERE, "pyproject.toml").write_text("#")
    work = go.Work([])
    assert work.install and not work.create


def test_python_files_are_used_in_place(go):
    finish(go)
    Path(go.HERE, "convnet").mkdir()
    Path(go.HERE, "convnet", "new.py").write_text("")
    assert not go.Work([])


def test_a_setting_stays_in_force(go, monkeypatch):
    monkeypatch.setenv("CONVNET_CUDA", "require")
    finish(go)
    monkeypatch.delenv("CONVNET_CUDA")
    work = go.Work([])
    assert not work and work.settings["CONVNET_CUDA"] == "require"
    monkeypatch.setenv("CONVNET_CUDA", "off")
    assert go.Work([]).install


def test_a_failed_build_is_tried_again_and_its_setting_forgotten(go, monkeypatch):
    finish(go)
    monkeypatch.setenv("CONVNET_CUDA", "require")
    go.Work([]).begin()  # and no end
    monkeypatch.delenv("CONVNET_CUDA")
    work = go.Work([])
    assert work.install and work.settings["CONVNET_CUDA"] == "auto"
    assert work.has_other_compilers(), "the build directory is of the other setting"


def test_a_new_gpu_builds_again(go, monkeypatch):
    finish(go)
    monkeypatch.setattr(go, "gpu_is_visible", lambda: True)
    work = go.Work([])
    assert work.install and "pycuda" in work.extras


def test_an_extra_is_installed_once(go):
    finish(go)
    assert go.Work(["plot"]).extras == ["plot"]
    finish(go, "plot")
    assert not go.Work(["plot"])


def test_a_moved_checkout_is_set_up_anew(go, monkeypatch, tmp_path):
    finish(go)
    Path(go.HERE).rename(tmp_path / "moved")
    monkeypatch.setattr(go, "HERE", str(tmp_path / "moved"))
    assert go.Work([]).create


def test_a_removed_python_is_set_up_anew(go):
    finish(go)
    Path(go.PYTHON).unlink()
    assert go.Work([]).create


def test_a_venv_of_somebody_else_is_left_alone(go):
    Path(go.VENV, "pyvenv.cfg").write_text("home = elsewhere\n")
    with pytest.raises(go.SetupError, match="has not made it"):
        go.create_venv({})
    assert Path(go.PYTHON).exists()


def test_pyproject_is_read_as_toml_reads_it(monkeypatch):
    tomllib = pytest.importorskip("tomllib")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requires, extras = load("go", GO).read_pyproject()
    assert requires == pyproject["build-system"]["requires"]
    assert extras == list(pyproject["project"]["optional-dependencies"])


# ---- go: the command ----


def test_a_command_keeps_its_directory_and_exit_code(tmp_path, monkeypatch):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("CONVNET_VENV", str(venv))
    load("go", GO).Work(["pycuda"]).end()
    result = run_go("sh", "-c", "pwd; echo $VIRTUAL_ENV; exit 3", CONVNET_VENV=str(venv))
    assert result.stdout == f"{os.getcwd()}\n{venv}\n", result.stderr
    assert result.returncode == 3
    result = run_go("no-such-command", CONVNET_VENV=str(venv))
    assert result.returncode == 127 and "no-such-command" in result.stderr


def test_without_a_compiler_it_says_what_to_install(tmp_path):
    (tmp_path / "bin").mkdir()
    result = run_go("true", PATH=str(tmp_path / "bin"), CONVNET_VENV=str(tmp_path / "venv"))
    assert result.returncode == 1
    assert "no C++ compiler found: install" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "venv" / "pyvenv.cfg").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--wiht", "plot", "true"], "unknown option --wiht"),
        (["--with", "plots", "true"], "--with plots: expected one of"),
    ],
)
def test_wrong_options_name_the_right_ones(arguments, message, tmp_path):
    result = run_go(*arguments, CONVNET_VENV=str(tmp_path / "venv"))
    assert result.returncode == 1 and message in result.stderr


def test_an_old_python_is_told_so():
    """The file must be syntax that Python 3.6 can read, so that it gets as far as saying it."""
    import ast

    ast.parse(GO.read_text(), feature_version=(3, 6))


# ---- which nvcc, for which GPUs ----


@pytest.fixture
def toolkit(monkeypatch):
    module = load("cuda_toolkit", ROOT / "build_backend" / "cuda_toolkit.py")
    for name in ("CONVNET_CUDA", "CONVNET_CUDA_ARCHS"):
        monkeypatch.delenv(name, raising=False)

    def machine(
        driver=(0, []), nvcc="/cuda/bin/nvcc", release="13.0", listed="75 80 86 89 90 100 120"
    ):
        monkeypatch.setattr(module, "driver", lambda: driver)
        monkeypatch.setattr(module, "system_nvcc", lambda: nvcc)
        monkeypatch.setattr(module, "pypi_nvcc", lambda: "")
        answers = {
            "--version": f"Cuda compilation tools, release {release}, V1",
            "--list-gpu-arch": " ".join(f"compute_{arch}" for arch in listed.split()),
        }
        monkeypatch.setattr(module, "ask", lambda nvcc, option: answers[option])
        return module

    return machine


def test_without_a_gpu_cuda_is_not_built(toolkit):
    choice = toolkit().choose()
    assert choice["nvcc"] == "" and choice["why"] == "no GPU is visible"
    assert toolkit().requires() == []


def test_the_visible_gpus_are_built_for(toolkit):
    choice = toolkit(driver=(13, ["90a", "80", "90a"])).choose()
    assert choice["nvcc"] and choice["architectures"] == "80-real;90a-real"


def test_require_without_a_gpu_builds_for_all(toolkit, monkeypatch):
    monkeypatch.setenv("CONVNET_CUDA", "require")
    assert (
        toolkit().choose()["architectures"]
        == "75-real;80-real;86-real;89-real;90a-real;100-real;100-virtual"
    )
    assert (
        toolkit(listed="50 75 80 90").choose()["architectures"]
        == "75-real;80-real;90a-real;90-virtual"
    )


def test_architectures_can_be_named(toolkit, monkeypatch):
    monkeypatch.setenv("CONVNET_CUDA", "require")
    monkeypatch.setenv("CONVNET_CUDA_ARCHS", "80;90a, 100-virtual")
    assert toolkit().choose()["architectures"] == "80-real;90a-real;100-virtual"


def test_require_without_nvcc_fails_and_says_how_to_get_one(toolkit, monkeypatch):
    monkeypatch.setenv("CONVNET_CUDA", "system")
    module = toolkit(nvcc="")
    with pytest.raises(module.Unavailable, match="CONVNET_CUDA=pypi"):
        module.choose()


@pytest.mark.parametrize(
    "machine, why",
    [
        ({"driver": (13, ["70"])}, "not for the GPU"),
        ({"driver": (12, ["90a"])}, "update the driver"),
        ({"driver": (13, ["90a"]), "release": "11.8"}, "oldest that will do"),
        ({"driver": (13, ["90a"]), "nvcc": ""}, "no nvcc found"),
    ],
)
def test_what_does_not_fit_together_is_not_built(toolkit, machine, why):
    choice = toolkit(**machine).choose()
    assert choice["nvcc"] == "" and why in choice["why"]


def test_nvcc_is_fetched_only_for_a_gpu_without_one(toolkit, monkeypatch):
    gpu = (13, ["90a"])
    assert toolkit(driver=gpu).requires() == []
    module = toolkit(driver=gpu, nvcc="")
    assert module.requires() == module.PYPI_TOOLKIT
    assert toolkit(driver=(12, ["90a"]), nvcc="").requires() == []
    monkeypatch.setenv("CONVNET_CUDA", "off")
    assert toolkit(driver=gpu, nvcc="").requires() == []


def test_a_misspelt_mode_is_an_error(toolkit, monkeypatch):
    monkeypatch.setenv("CONVNET_CUDA", "on")
    with pytest.raises(SystemExit, match="expected one of auto"):
        toolkit().choose()


def test_a_broken_nvcc_is_reported(tmp_path):
    module = load("cuda_toolkit", ROOT / "build_backend" / "cuda_toolkit.py")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    nvcc.chmod(0o755)
    with pytest.raises(module.Unavailable, match="does not run"):
        module.ask(str(nvcc), "--version")


# ---- convnet-info ----


def test_info_as_json_has_every_fact(capsys):
    from convnet.cli import info

    assert info.main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["backends"]) == {"cuda", "host", "simt"}
    for state in [*facts["backends"].values(), facts["pycuda"]]:
        assert state["usable"] or (state["problem"] and state["mend"])
    assert facts["backends"]["host"]["isa"] in facts["backends"]["host"]["isas"]
    assert facts["version"][0].isdigit()


def test_info_says_how_to_mend_what_is_missing(capsys, monkeypatch):
    from convnet.cli import info

    monkeypatch.setattr(info, "build_info", lambda: None)
    assert info.main([]) == 1
    assert "to mend: CONVNET_CUDA=require" in capsys.readouterr().out

"""benchmarks/gpu_report.py with a device that is not there: small commands in place of the stages."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("these are tests of a checkout", allow_module_level=True)

import environment  # noqa: E402
import gpu_report  # noqa: E402
import results_table  # noqa: E402
import sanitize  # noqa: E402
import stages  # noqa: E402
from stages import UNFINISHED, Report, Stage  # noqa: E402

GPU = {"name": "NVIDIA Fake 9000 (PCIe)", "driver_version": "580.1", "clocks.sm": "1980 MHz"}
FOLDER = "nvidia-fake-9000-pcie"


@pytest.fixture(autouse=True)
def fake_device(monkeypatch):
    for module in (gpu_report, stages):
        monkeypatch.setattr(module, "gpu", lambda: GPU)
    monkeypatch.setattr(stages, "machine", lambda: {"cpu": "A CPU", "cores": 2, "commit": "abc1234", "date": "2027-01-02", "gpu": GPU})


def python(name, code, limit=60, **options):
    return Stage(name, [sys.executable, "-c", code], limit, **options)


def counting(tmp_path, name, exit_code=0, **options):
    """A stage that counts how often it was run."""
    return python(name, f"import pathlib; p = pathlib.Path({str(tmp_path / name)!r}); p.open('a').write('x'); print('the result'); raise SystemExit({exit_code})", **options)


def times(tmp_path, name):
    return len((tmp_path / name).read_text()) if (tmp_path / name).exists() else 0


def stored(tmp_path):
    return json.loads((tmp_path / "results" / "report.json").read_text())


@pytest.fixture
def report(tmp_path):
    return lambda source="one": Report(tmp_path / "results", source)


def test_the_device_is_what_nvidia_smi_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpu() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nprint('NVIDIA H200, 580.1, 143771 MiB, 345 MHz, 1980 MHz, 3201 MHz, 31, 77.5 W\\nNVIDIA T4, ...')\n")
    tool.chmod(0o755)
    device = environment.gpu()
    assert (device["name"], device["driver_version"], device["clocks.max.sm"], device["power.draw"]) == ("NVIDIA H200", "580.1", "1980 MHz", "77.5 W")
    tool.write_text(f"#!{sys.executable}\nprint('No devices were found')\nraise SystemExit(6)\n")
    assert environment.gpu() is None


# ---- one stage -----------------------------------------------------------------------------------------------------


def test_a_stage_is_recorded_with_device_driver_clocks_and_commit(report, tmp_path):
    assert report().run([python("greeting", "print('hello'); print(); raise SystemExit(0)")])
    content = stored(tmp_path)
    assert content["machine"]["gpu"]["driver_version"] == "580.1" and content["machine"]["commit"] == "abc1234"
    record = content["stages"]["greeting"]
    assert (record["state"], record["exit"], record["last_line"]) == ("passed", 0, "hello")
    assert record["gpu_before"]["clocks.sm"] == record["gpu_after"]["clocks.sm"] == "1980 MHz"
    assert record["command"][0] == "python", "the place of the machine's Python is nobody else's business"
    assert (tmp_path / "results" / "greeting.txt").read_text() == "hello\n\n"


def test_a_stage_that_fails_is_recorded_and_the_others_go_on(report, tmp_path):
    assert report().run([python("bad", "print('why'); raise SystemExit(7)"), counting(tmp_path, "good")])
    assert (stored(tmp_path)["stages"]["bad"]["state"], stored(tmp_path)["stages"]["bad"]["exit"]) == ("failed", 7)
    assert times(tmp_path, "good") == 1


def test_a_command_that_does_not_exist_is_a_failed_stage(report, tmp_path):
    report().run([Stage("missing", ["./no-such-command"], 60)])
    assert stored(tmp_path)["stages"]["missing"]["last_line"] == "./no-such-command: No such file or directory"


LIMIT = 123.0


@pytest.fixture
def out_of_time_when(monkeypatch):
    """Makes the limit pass as soon as a file is there, however busy the machine is; gives the processes that were begun."""
    begun = []

    def prepare(path):
        class Hasty(subprocess.Popen):
            def wait(self, timeout=None):
                begun.append(self)
                if timeout != LIMIT:
                    return super().wait(timeout)
                while not path.exists():
                    assert self.poll() is None, "the stage ended by itself"
                    time.sleep(0.01)
                raise subprocess.TimeoutExpired(self.args, timeout)
        monkeypatch.setattr(stages.subprocess, "Popen", Hasty)
        return begun
    return prepare


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_stage_out_of_time_is_ended_with_what_it_started(report, tmp_path, out_of_time_when):
    child = ("import os, pathlib, time; new = pathlib.Path('new'); print('begun', flush=True);"
             "new.write_text(str(os.getpid())); new.rename('pid'); time.sleep(600)")
    code = f"import os, subprocess, sys; os.chdir({str(tmp_path)!r}); subprocess.run([sys.executable, '-c', {child!r}])"
    out_of_time_when(tmp_path / "pid")
    assert not report().run([python("slow", code, LIMIT)])
    record = stored(tmp_path)["stages"]["slow"]
    assert (record["state"], record["exit"], record["last_line"]) == ("out of time", None, "begun")
    deadline = time.monotonic() + 60
    while is_running(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline, "what the stage has started lives on"
        time.sleep(0.01)


def test_a_stage_that_does_not_end_when_asked_is_killed(report, tmp_path, monkeypatch, out_of_time_when):
    monkeypatch.setattr(stages, "PATIENCE", 0.2)
    begun = out_of_time_when(tmp_path / "deaf")
    code = ("import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            f"pathlib.Path({str(tmp_path / 'deaf')!r}).touch(); time.sleep(600)")
    report().run([python("stubborn", code, LIMIT)])
    assert stored(tmp_path)["stages"]["stubborn"]["state"] == "out of time"
    assert begun[0].returncode == -signal.SIGKILL


# ---- one call after another ----------------------------------------------------------------------------------------


def test_a_second_call_runs_only_what_is_not_finished(report, tmp_path):
    slow = python("slow", "import time; time.sleep(600)", limit=0.5)
    planned = [counting(tmp_path, "first"), counting(tmp_path, "failing", 1), slow, counting(tmp_path, "last")]
    assert not report().run(planned)
    planned[2] = counting(tmp_path, "slow")
    assert report().run(planned)
    assert [times(tmp_path, name) for name in ("first", "failing", "slow", "last")] == [1, 1, 1, 1]


def test_a_call_cut_off_in_a_stage_begins_that_stage_again(report, tmp_path):
    first, second = counting(tmp_path, "first"), counting(tmp_path, "second")
    assert report().run([first, second])
    content = stored(tmp_path)
    content["stages"]["second"] = {"state": "running", "command": content["stages"]["second"]["command"]}  # nobody was left to say how it ended
    (tmp_path / "results" / "report.json").write_text(json.dumps(content))
    assert report().state(second) == "interrupted"
    report().run([first, second])
    assert (times(tmp_path, "first"), times(tmp_path, "second")) == (1, 2)


def test_an_interrupted_call_records_what_was_running(report, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(stages, "run_limited", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report().run([counting(tmp_path, "first")])
    assert stored(tmp_path)["stages"]["first"]["state"] == "interrupted"


def test_again_other_sources_or_another_command_run_a_finished_stage_again(report, tmp_path):
    stage = counting(tmp_path, "first")
    report().run([stage])
    report().run([stage], again=True)
    assert times(tmp_path, "first") == 2
    report("two").run([stage])
    assert times(tmp_path, "first") == 3
    report("two").run([Stage("first", [*stage.command, "--more"], 60)])
    assert times(tmp_path, "first") == 4


def test_a_stage_that_the_machine_needs_is_always_run_and_others_wait_for_it(report, tmp_path):
    build, test = counting(tmp_path, "build", always=True), counting(tmp_path, "test", after="build")
    for _ in range(2):
        assert report().run([build, test])
    assert (times(tmp_path, "build"), times(tmp_path, "test")) == (2, 1)
    broken = counting(tmp_path, "build", 1, always=True)
    assert not report("two").run([broken, test])
    assert times(tmp_path, "test") == 1


def test_a_budget_ends_before_a_stage_that_may_not_fit(report, tmp_path):
    planned = [counting(tmp_path, "short", limit=5), counting(tmp_path, "long", limit=500), counting(tmp_path, "later", limit=5)]
    assert not report().run(planned, budget=100)
    assert [times(tmp_path, name) for name in ("short", "long", "later")] == [1, 0, 0]
    assert report().run(planned)
    assert [times(tmp_path, name) for name in ("short", "long", "later")] == [1, 1, 1]


def test_two_calls_at_once_keep_what_the_other_knows(report, tmp_path):
    one, other = report(), report()
    assert one.run([counting(tmp_path, "first")]) and other.run([counting(tmp_path, "second")])
    assert set(stored(tmp_path)["stages"]) == {"first", "second"}
    assert report("two").run([counting(tmp_path, "third")])
    assert set(stored(tmp_path)["stages"]) == {"third"}, "of other sources nothing is known"


def test_the_sources_are_known_by_their_content_and_results_are_none(tmp_path):
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "src" / "x.cu").write_text("one")
    before = stages.source_hash(tmp_path)
    (tmp_path / "benchmarks" / "results" / "conv.json").write_text("{}")
    (tmp_path / "src" / "__pycache__" / "x.pyc").write_text("")
    assert stages.source_hash(tmp_path) == before
    (tmp_path / "src" / "x.cu").write_text("two")
    assert stages.source_hash(tmp_path) != before


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    planned = [counting(tmp_path, "build", always=True), counting(tmp_path, "tests", after="build"), counting(tmp_path, "conv", after="build")]
    monkeypatch.setattr(gpu_report, "stages", lambda *_: planned)
    monkeypatch.delenv("CONVNET_CUDA", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--results", str(tmp_path), *arguments])
        for name, value in (("CONVNET_CUDA", "require"), ("CONVNET_TILES", "off")):  # which main() sets: undone after the test
            monkeypatch.setenv(name, value)
        code = gpu_report.main()
        return code, capsys.readouterr().out
    return run


def test_the_command_runs_all_and_a_second_time_the_build_alone(command, tmp_path):
    code, text = command()
    assert code == 0 and "3 stages, 3 passed" in text and (tmp_path / FOLDER / "report.json").exists()
    code, text = command()
    assert code == 0 and "tests: passed before" in text
    assert [times(tmp_path, name) for name in ("build", "tests", "conv")] == [2, 1, 1]
    assert "| tests | passed | the result |" in results_table.tables(tmp_path, results_table.op_and_net_tables)


def test_the_list_shows_each_stage_and_its_state(command):
    code, text = command("--list")
    assert code == 0 and all("not begun" in line for line in text.splitlines())
    command("--stages", "tests")
    states = {line.split()[0]: line.split()[1:3] for line in command("--list")[1].splitlines()}
    assert states["build"][0] == states["tests"][0] == "passed" and states["conv"] == ["not", "begun"]


def test_a_failure_and_an_unfinished_stage_have_their_exit_codes(command, tmp_path, monkeypatch):
    planned = [counting(tmp_path, "build", always=True), counting(tmp_path, "tests", 1, after="build")]
    monkeypatch.setattr(gpu_report, "stages", lambda *_: planned)
    assert command()[0] == 1
    assert command("--again", "--limit", "tests=1000", "--budget", "900")[0] == UNFINISHED


def test_without_a_gpu_it_says_so_and_a_dry_run_prints_the_commands(command, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_report, "gpu", lambda: None)
    with pytest.raises(SystemExit, match="no GPU here"):
        command()
    code, text = command("--dry-run", "--limit", "7")
    assert code == 0 and text.startswith("no GPU here") and "tests (at most 7 s): " in text and not times(tmp_path, "build")


@pytest.mark.parametrize("arguments", [["--stages", "nothing"], ["--limit", "nothing=7"], ["--limit", "tests=soon"]])
def test_a_wrong_stage_or_limit_is_named(command, arguments):
    with pytest.raises(SystemExit, match=rf"gpu_report: {arguments[0]} {arguments[1]}: "):
        command(*arguments)


def test_what_is_installed_is_not_built(monkeypatch):
    monkeypatch.setattr(gpu_report.importlib.util, "find_spec", lambda module: module == "xdist" or None)
    planned = gpu_report.stages(Path("results"), 128, True, installed=True)
    assert "build" not in {stage.name for stage in planned} and all(stage.command[0] == sys.executable and not stage.after for stage in planned)
    assert "-n" in next(stage for stage in planned if stage.name == "test-ops").command, "as many tests at once as there are cores, where that can be"


@pytest.mark.parametrize("complete", [True, False])
def test_the_stages_call_what_exists_and_end_within_ten_minutes(monkeypatch, complete):
    monkeypatch.setattr(gpu_report.importlib.util, "find_spec", lambda _: complete or None)
    planned = gpu_report.stages(Path("results"), 128, True)
    assert {"ptx", "sass", "ops", "tune", "train-alexnet", "train-alexnet-graphs", "train-cifar-quick-graphs", *sanitize.PLANTED} <= {stage.name for stage in planned}
    for stage in planned:
        assert stage.limit < 590
        files = [word for word in stage.command if word.endswith(".py") and not word.startswith("--")]
        assert all((ROOT / word).exists() for word in files)
        assert ("go" in stage.command) != complete


# ---- compute-sanitizer ---------------------------------------------------------------------------------------------


def pretend(path, body):
    path.write_text(f"#!{sys.executable}\nimport sys\ntool, found, command = sys.argv[2], int(sys.argv[4]), ' '.join(sys.argv[5:])\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("body", "problem"), [
    ("sys.exit(found if 'race_kernel' in command else 0)", ""),
    ("sys.exit(0)", "racecheck is blind here: it does not report race_kernel"),
    ("sys.exit(found)", "racecheck cannot be trusted here: it reports sound_kernel, which has no bug"),
    ("sys.exit(found if 'sound_kernel' not in command else 0)", "racecheck reports our kernels: see above"),
])
def test_a_tool_is_believed_only_if_it_tells_a_bug_from_none(tmp_path, body, problem):
    assert sanitize.check(pretend(tmp_path / "tool", body), "racecheck", "planted", ["workload"]) == problem


def test_a_tool_that_does_not_run_is_neither(tmp_path):
    with pytest.raises(SystemExit, match=r"memcheck: planted out_of_bounds_kernel ended with 3"):
        sanitize.check(pretend(tmp_path / "tool", "sys.exit(3)"), "memcheck", "planted", [])


def test_every_tool_has_its_bug_planted(tmp_path):
    source = (ROOT / "benchmarks" / "planted_bugs.cu").read_text()
    assert all(f'"{kernel}", run<{kernel}>' in source for kernel in (*sanitize.PLANTED.values(), sanitize.SOUND))
    nvcc = shutil.which("nvcc")
    if not nvcc:
        pytest.skip("no nvcc")
    program = tmp_path / "planted_bugs"
    subprocess.run([nvcc, "-std=c++20", "-arch=sm_80", f"-I{ROOT / 'src/kernels'}", "-o", program, ROOT / "benchmarks/planted_bugs.cu"], check=True)
    answer = subprocess.run([program, "unknown"], capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert (answer.returncode, answer.stderr) == (2, "planted_bugs: expected the name of a kernel\n")

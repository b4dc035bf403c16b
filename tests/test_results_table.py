"""The tables of README and docs/speed.md are those of benchmarks/results/, and show what was measured, where and when; nothing else."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("these are tests of a checkout", allow_module_level=True)

import results_table  # noqa: E402
from environment import device_folder, device_of  # noqa: E402

GPU = {"name": "NVIDIA H200", "driver_version": "580.1"}
MACHINE = {"cpu": "A CPU", "cores": 16, "date": "2027-01-02", "commit": "abc1234", "gpu": GPU}
OPS = {"machine": MACHINE, "backend": "cuda", "images": 128, "threads": 16, "peer": "PyTorch 3.1, cuDNN",
       "rows": [{"layer": "conv1", "op": "conv_forward", "flops": 2e9, "seconds": 1e-3, "share": 0.5, "ratios": {"as written": 3.0, "best": 1.234}},
                {"layer": "conv1", "op": "conv_backward_filters", "flops": 2e9, "seconds": 2e-3, "share": 0.25},
                {"layer": "norm1", "op": "lrn", "flops": 0, "bytes": 6e6, "seconds": 2e-3, "share": 0.0, "ratios": {"as written": 30.0, "best": 2.5}}]}
TRAIN = {"machine": MACHINE, "backend": "cuda", "images": 128, "model": "alexnet", "peer": "PyTorch 3.1",
         "rows": {"2x1": {"seconds": [0.008, 0.009, 0.5], "ratio": 1.0}, "torch at its best": {"seconds": [0.018], "ratio": 2.0}}}
REPORT = {"machine": MACHINE, "backend": "cuda", "stages": {
    "tests": {"state": "passed", "last_line": "812 passed"}, "racecheck": {"state": "failed", "last_line": "a | b"}}}


@pytest.fixture
def results(tmp_path):
    def store(folder, **files):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, content in files.items():
            (tmp_path / folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
        return results_table.tables(tmp_path, results_table.op_and_net_tables)
    return store


@pytest.mark.parametrize("page", [results_table.README, results_table.SPEED], ids=lambda page: page.name)
def test_a_page_has_the_tables_of_the_stored_results(page):
    assert results_table.pages(results_table.RESULTS)[page] == page.read_text(), "run: python benchmarks/results_table.py --write"


def test_the_table_of_nets_has_a_row_for_each_of_ours_beside_the_peer_at_its_precision(results, tmp_path):
    rows = {name: {"seconds": seconds, "ratio": 1.0} for name, seconds in {
        "2x1": [0.25, 0.2, 0.1], "2x1 tf32": [0.1], "2x1 --graphs on": [0.16], "torch as written": [0.5], "torch at its best": [0.3], "torch at its best, tf32": [0.12]}.items()}
    results("nvidia-h200", train_alexnet={**TRAIN, "rows": rows}, inference_alexnet={**TRAIN, "phase": "test", "images": 1, "rows": {"1x1": {"seconds": [0.01], "ratio": 1.0}}})
    lines = results_table.tables(tmp_path, results_table.net_table, to_root="../").splitlines()
    assert lines[0] == "**NVIDIA H200** ([benchmarks/results/nvidia-h200](../benchmarks/results/nvidia-h200))"
    assert lines[4:] == ["| alexnet, inference | 1 | 1 device | 10.00 ms | 100 |  |  |",
                         "| alexnet, training | 128 | 2 devices | 200 ms | 640 | 2.50 | 1.50 |",
                         "| alexnet, training | 128 | 2 devices, --precision tf32 | 100 ms | 1280 | 5.00 | 1.20 |",
                         "| alexnet, training | 128 | 2 devices, --graphs on | 160 ms | 800 | 3.12 | 1.88 |"]


def test_the_peer_is_not_beside_a_row_of_fewer_threads(results, tmp_path):
    rows = {name: {"seconds": [seconds], "ratio": 1.0} for name, seconds in {"1x2": 0.1, "1x1": 0.2, "torch as written": 0.5, "torch at its best": 0.12}.items()}
    results("a-cpu", train_alexnet={**TRAIN, "backend": "host_avx2", "rows": rows})
    text = results_table.tables(tmp_path, results_table.net_table)
    assert "| 1 device, 2 threads | 100 ms | 1280 | 5.00 | 1.20 |" in text and "| 1 device, 1 thread | 200 ms | 640 |  |  |" in text


def test_results_lie_in_the_folder_of_their_device():
    folders = [path for path in results_table.RESULTS.iterdir() if path.is_dir()]
    assert folders
    assert [path.name for path in results_table.RESULTS.iterdir() if not path.is_dir()] == [], "expected DEVICE/FILE: see environment.device_folder"
    for folder in folders:
        for result in results_table.read(folder).values():
            assert device_folder(device_of(result["machine"], result["backend"])) == folder.name


def test_where_no_gpu_was_measured_one_line_says_so(results):
    host = {**OPS, "backend": "host_avx2", "machine": {**MACHINE, "gpu": None}}
    lines = results("a-cpu", ops=host).splitlines()
    assert [line for line in lines if "GPU" in line] == [results_table.NO_GPU] == lines[:1]
    assert "**A CPU, 16 cores** ([benchmarks/results/a-cpu](benchmarks/results/a-cpu))" in lines


def test_nothing_measured_gives_no_table(results):
    assert results("empty") == results_table.NO_GPU


def test_a_gpu_comes_first_with_date_commit_and_driver(results):
    results("a-cpu", ops={**OPS, "backend": "host_avx2"})
    text = results("nvidia-h200", ops=OPS, report=REPORT, train_alexnet=TRAIN)
    assert text.startswith("**NVIDIA H200** ([benchmarks/results/nvidia-h200](benchmarks/results/nvidia-h200))")
    assert results_table.NO_GPU not in text
    assert "Ops, 128 images (2027-01-02, commit abc1234)" in text and "driver 580.1" in text
    assert "| of the peak, as written, best | forward | backward_filters |\n| --- | --- | --- |\n| conv1 | 50%, 3.00, 1.23 | 25% |" in text
    assert "| lrn | norm1 | 2 | 3.0 | 30.00 | 2.50 |" in text
    assert "| 2 devices | 9.00 ms | 14222 | 1.00 |" in text
    assert "| PyTorch 3.1, the fastest way that a search finds | 18.00 ms | 7111 | 2.00 |" in text
    assert "| tests | passed | 812 passed |" in text and "| racecheck | failed | a \\| b |" in text


def test_the_peer_at_a_lower_precision_is_named_with_it(results):
    rows = {**TRAIN["rows"], "1x1 tf32": TRAIN["rows"]["2x1"], "torch at its best, tf32": TRAIN["rows"]["torch at its best"]}
    text = results("nvidia-h200", train_alexnet={**TRAIN, "rows": rows})
    assert "| 1 device, --precision tf32 |" in text and "| PyTorch 3.1, the fastest way that a search finds, tf32 |" in text


def test_inference_and_the_input_have_tables_of_their_own(results):
    host = {**TRAIN, "backend": "host_avx2", "machine": {**MACHINE, "gpu": None}}
    text = results("a-cpu", inference_alexnet={**host, "images": 1, "phase": "test"}, input_alexnet={**host, "input": {"share": 0.0123, "step_seconds": 0.5}})
    assert "Inference of alexnet, 1 image (2027-01-02, commit abc1234)." in text
    assert "| alexnet | 128 | 500 ms | 1.2% |" in text and "Training" not in text


@pytest.mark.parametrize(("mapping", "backend", "name"), [
    ("2x1", "host", "2 devices, 1 thread each"),
    ("1x4", "host", "1 device, 4 threads"),
    ("1x2 fast", "host", "1 device, 2 threads, --precision fast"),
    ("1x1 --graphs on", "cuda", "1 device, --graphs on"),
    ("1x1:convnet/models/alexnet-one-gpu", "cuda", "1 device, alexnet-one-gpu"),
])
def test_a_mapping_is_named(mapping, backend, name):
    assert results_table.mapping_name(mapping, backend) == name


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "ops.json").write_text("{")
    with pytest.raises(SystemExit, match=r"ops\.json is not JSON"):
        results_table.tables(tmp_path, results_table.net_table)


def test_a_page_without_markers_is_not_written():
    with pytest.raises(SystemExit, match=r"speed\.md lacks the line <!-- python"):
        results_table.with_tables("text", "tables", "speed.md")
    with pytest.raises(SystemExit, match=r"README\.md lacks the line <!-- end"):
        results_table.with_tables(results_table.BEGIN, "tables", "README.md")

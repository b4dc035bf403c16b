"""Tables of measured tiles: files, where they are found, what is in force, and benchmarks/tune.py, which makes them."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from convnet import tiles
from convnet.arrays import Stream
from convnet.backends import Tensor, load_module, tile_table
from convnet.cli import info
from convnet.errors import DataError, MissingInput
from convnet.tiles import TILES, TileTable, own_file, read_tiles, table_for
from small_nets import DATA, LABELS
from workplace import events

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import tune  # noqa: E402

LINE = {"op": "conv_forward", "precision": "tf32", "m": 128, "n": 93312, "groups": 2, "units": 48, "unit": 25, "tile": "mma", "parts": 3}
KEY = ("conv_forward", "tf32", 128, 93312, 2, 48, 25)
GPU = "NVIDIA H200, sm_90"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of nobody's, and nothing shipped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tiles, "SHIPPED", tmp_path / "measured")
    monkeypatch.delenv("CONVNET_TILES")
    return tmp_path


@pytest.fixture
def simt():
    """Loads simt anew, as a process does that begins; afterwards it is without a table again."""
    yield lambda: load_module.__wrapped__("simt")
    module = load_module("simt")
    module.tile_table = TileTable()
    module.set_tiles({})


def write(path, *lines, **head):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, "lines": lines}))
    return path


# ---- a file ------------------------------------------------------------------------------------------------------------


def test_a_line_says_how_a_product_is_computed_and_what_else_it_says_is_for_the_reader(tmp_path):
    path = write(tmp_path / "t.json", {**LINE, "seconds": "any", "layer": None}, {**LINE, "precision": "exact", "tile": "wide", "parts": 48}, device=7)
    assert read_tiles(path) == {KEY: ("mma", 3), (KEY[0], "exact", *KEY[2:]): ("wide", 48)}


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("op", "fc_forward", "conv_forward, conv_backward_data"), ("op", None, "conv_forward"), ("op", ["conv_forward"], "conv_forward"),
    ("precision", "fast", "exact, bf16x3, tf32, bf16"), ("m", 0, "1 to "), ("m", -1, "1 to "), ("n", 2**63, "1 to 9223372036854775807"), ("groups", 2.0, "1 to "),
    ("units", True, "1 to "), ("unit", "25", "1 to "), ("tile", "huge", "large, mid, wide, small, mma"), ("tile", 3, "large"),
    ("parts", 0, "1 to 48"), ("parts", 49, "1 to 48"), ("parts", None, "1 to 48"), ("parts", float("nan"), "1 to 48"),
])
def test_a_wrong_value_is_named_with_file_line_and_what_is_expected(tmp_path, name, value, expected):
    path = write(tmp_path / "t.json", {**LINE, "m": 7}, {**LINE, name: value})
    with pytest.raises(DataError) as error:
        read_tiles(path)
    assert str(error.value).startswith(f"{path}: line 2 of \"lines\": {name}: found {str(value)[:60]}, expected {expected}")
    assert "benchmarks/tune.py makes it again" in str(error.value) and "CONVNET_TILES=off" in str(error.value)


def test_an_exact_product_is_not_on_tensor_cores_and_a_grid_has_an_end(tmp_path):
    with pytest.raises(DataError, match="tile: found mma, expected large, mid, wide, small;"):
        read_tiles(write(tmp_path / "t.json", {**LINE, "precision": "exact"}))
    with pytest.raises(DataError, match="parts: found 65536, expected 1 to 65535;"):
        read_tiles(write(tmp_path / "t.json", {**LINE, "units": 10**6, "parts": 65536}))


def test_a_product_has_one_line(tmp_path):
    with pytest.raises(DataError, match="line 3 of \"lines\": of the product of line 1, expected each once"):
        read_tiles(write(tmp_path / "t.json", LINE, {**LINE, "m": 7}, {**LINE, "parts": 1}))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"7", b"{}", b'{"lines": {}}', b'{"lines": [7]}', b'{"lines": [[]]}'])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.json: found no (JSON|list of objects)"):
        read_tiles(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"t\.json: cannot be read: No such file"):
        read_tiles(tmp_path / "t.json")


# ---- which files -------------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_no_table(home):
    assert table_for("cuda", GPU) == TileTable() and TileTable().stored() is None


def test_the_users_lines_come_before_those_of_the_architecture(home):
    shipped = write(home / "measured" / "sm_90.json", LINE, {**LINE, "m": 7})
    write(home / "measured" / "sm_80.json", {**LINE, "m": 80})
    assert table_for("cuda", GPU) == TileTable({KEY: ("mma", 3), (*KEY[:2], 7, *KEY[3:]): ("mma", 3)}, (str(shipped),))
    own = write(home / "cache" / "convnet" / "tiles" / "cuda-nvidia-h200-sm-90.json", {**LINE, "parts": 9})
    assert own == own_file("cuda", GPU)
    table = table_for("cuda", GPU)
    assert table.tiles == {KEY: ("mma", 9), (*KEY[:2], 7, *KEY[3:]): ("mma", 3)} and table.files == (str(shipped), str(own))
    assert table_for("cuda", "NVIDIA T4, sm_75") == TileTable()


def test_a_file_can_be_named_and_all_turned_off(home, monkeypatch):
    write(own_file("cuda", GPU), LINE)
    other = write(home / "other.json", {**LINE, "m": 7})
    monkeypatch.setenv("CONVNET_TILES", str(other))
    assert table_for("cuda", GPU) == TileTable({(*KEY[:2], 7, *KEY[3:]): ("mma", 3)}, (str(other),))
    monkeypatch.setenv("CONVNET_TILES", "off")
    assert table_for("cuda", GPU) == TileTable()
    monkeypatch.setenv("CONVNET_TILES", str(home / "nowhere.json"))
    with pytest.raises(MissingInput, match=r"nowhere\.json"):
        table_for("cuda", GPU)


def test_the_digest_is_of_the_ways_alone():
    table = TileTable({KEY: ("mma", 3), (KEY[0], "exact", *KEY[2:]): ("wide", 1)}, ("a",))
    other = TileTable(dict(reversed(table.tiles.items())), ("b", "c"))
    assert table.stored()["digest"] == other.stored()["digest"] != TileTable({**table.tiles, KEY: ("mma", 4)}).stored()["digest"]
    assert table.stored()["lines"] == 2 and table.stored()["files"] == ("a",)


def test_tests_are_run_by_the_rule():
    assert os.environ["CONVNET_TILES"] == "off" and tile_table("simt") is None and tile_table("host") is None


def test_the_users_table_is_in_force_when_the_backend_is_loaded(home, simt):
    key, way = ("conv_forward", "exact", 7, 4, 1, 600, 1), ("wide", 9)
    write(own_file("simt", load_module("simt").device_name(0)), {**dict(zip(tiles.ALLOWED, key, strict=True)), "tile": way[0], "parts": way[1]})
    module = simt()
    assert module.fc_forward_workspace(Stream(0, 0), *(Tensor(0, shape, "float32", shape[-1]) for shape in ((600, 4), (600, 7), (7, 4)))) == 9 * 7 * 4 * 4
    assert module.last_tile() == (key, way)


def test_a_bad_table_of_the_users_stops_what_would_compute_otherwise(home, simt):
    module = load_module("simt")
    own_file("simt", module.device_name(0)).parent.mkdir(parents=True)
    own_file("simt", module.device_name(0)).write_text("{}")
    with pytest.raises(DataError, match="found no list of objects"):
        simt()


# ---- tune.py -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["exact", "tf32"])
def test_the_rules_way_comes_first_and_no_part_is_without_work(precision):
    key = ("conv_forward", precision, 64, 128, 1, 6, 100)
    ways = tune.ways_of(key, ("small", 5))
    assert ways[0] == ("small", 5) and len(ways) == len(set(ways))
    assert set(ways[1:]) == {(tile, parts) for tile in TILES[precision] for parts in (1, 2, 3, 4, 6)}
    assert {parts for _, parts in tune.ways_of((*key[:5], 6, 20), ("small", 1))} == {1}  # each part would have too little
    assert {parts for _, parts in tune.ways_of((*key[:2], 2**12, 2**12, 1, 6, 100), ("small", 1))} == {1}  # a GPU is full


@pytest.fixture
def measured(home, monkeypatch, capsys):
    """measured(...) -> what tune.py printed, and the lines of the table."""
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tune.py", *map(str, words)])
        code = tune.main()
        printed = capsys.readouterr()
        return code, printed.out + printed.err
    return run


NET = DATA + LABELS + """\
[conv1]
type=conv
inputs=data
filters=36
filterSize=3
padding=1
initW=0.1
neuron=relu
[local2]
type=local
inputs=conv1
filters=4
filterSize=3
initW=0.1
[fc3]
type=fc
inputs=local2
outputs=4
initW=0.1
[probs]
type=softmax
inputs=fc3
[logprob]
type=cost.logreg
inputs=labels,probs
"""
RATES = "epsW=0.01\nepsB=0.01\nmomW=0.9\nmomB=0.9\nwc=0\n"
PARAMS = f"[conv1]\n{RATES}[local2]\n{RATES}[fc3]\n{RATES}[logprob]\ncoeff=1\n"


KEY_OF_FC3 = ("conv_forward", "exact", 4, 4, 1, 36, 1)


def test_what_tune_measures_is_in_force_from_then_on(measured, simt, home, place, capsys, monkeypatch):
    net = home / "net"
    net.mkdir()
    (net / "layers.cfg").write_text(NET)
    (net / "params.cfg").write_text(PARAMS)
    words = (net, "--data", "dummy:3x5x5", "--backend", "simt", "--images", 3, 4, "--precision", "exact", "tf32", "--repeats", 1)
    load_module("simt").set_tiles({KEY_OF_FC3: ("wide", 3)})
    monkeypatch.setenv("SIMT_LAUNCHES", str(home / "launches"))
    code, text = measured(*words)
    monkeypatch.delenv("SIMT_LAUNCHES")
    kernels = (home / "launches").read_text()
    assert all(f"conv_forward_kernel<float, {tile}" in kernels for tile in ("Tile<64, 128, ", "Tile<32, 128, ", "Tile<32, 32, ", "MmaTile<Tf32"))
    path = own_file("simt", load_module("simt").device_name(0))
    content = json.loads(path.read_text())
    lines = content["lines"]
    assert code == 0 and f"into {path}" in text and f"{len(lines)} products" in text
    assert content["device"] == load_module("simt").device_name(0) and "nothing of a GPU" in content["seconds"] and content["machine"]["python"] and content["command"][0] == "tune.py"
    # forward, data and filters of each layer but what reads the data; local is always exact; 3 images and 4 are the same columns
    assert len(lines) == text.count(" ms: ") == 2 * (2 + 3) + 3
    assert next(line for line in lines if tiles.key_of(line) == KEY_OF_FC3)["rule"] == ["small", 1], "not the table before"
    assert {line["op"] for line in lines} == set(tiles.ALLOWED["op"])
    for line in lines:
        assert (line["tile"] == line["rule"][0] and line["parts"] == line["rule"][1]) or line["rule_seconds"] > tune.GAIN * line["seconds"]
        assert line["seconds"] > 0 and line["ways"] >= 3 and line["turns"] == 1 and line["layer"] in ("conv1", "local2", "fc3")

    kept = path.read_text()
    assert measured(*words)[0] == 0 and path.read_text() == kept, "what the table has is not measured again"
    write(path, *lines[:-1], device=content["device"])
    text = measured(*words)[1]
    assert json.loads(path.read_text())["lines"][:-1] == lines[:-1] and len(read_tiles(path)) == len(lines) and text.count(" ms: ") == 1
    write(path, *lines, device="another")
    code, text = measured(*words)
    assert code == 2 and "is of another, and this is CPU" in text

    write(path, *lines, device=content["device"])
    module = simt()
    assert module.tile_table.files == (str(path),) and module.tile_table.tiles == read_tiles(path)
    place.run(*(str(net / name) for name in ("layers.cfg", "params.cfg")), "--backend", "simt", "--data-provider", "dummy:3x5x5", "--train-range", "1",
              "--test-range", "2", "--mini", "3", "--max-steps", "1", "--log", "log", files=False)
    (start,) = events("start")
    assert start["tiles"] == {**module.tile_table.stored(), "files": [str(path)]}
    info.main([])
    assert f"tiles of {len(lines)} products as measured ({start['tiles']['digest']}): {path}" in capsys.readouterr().out


def test_tune_tells_what_it_cannot_do(measured, home):
    code, text = measured("--backend", "host")
    assert code == 2 and "host has no tiles, expected cuda or simt" in text
    path = home / "t.json"
    path.write_text("{}")
    code, text = measured("--backend", "simt", "--output", path)
    assert code == 65 and "t.json: found no list of objects" in text

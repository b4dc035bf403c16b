"""The instructions of src/kernels/ptx/: their emulation, what it refuses, and kernels that are made of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import conformance
import numpy as np
import ptx_kernels
import ptx_manual as manual
import pytest

sys.path.insert(0, str(ptx_kernels.ROOT / "benchmarks"))
import sass

FORWARD, REVERSE, RANDOM = 0, 1, 12345
SCHEDULES = [
    (order, landing) for order in (FORWARD, REVERSE, RANDOM) for landing in ("late", "early")
]
EARLY_REFILL, LAX_WAIT, PENDING_AT_EXIT = 1, 2, 3  # gemm.cu


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    if not ptx_kernels.compiler():
        pytest.skip("no C++ compiler: set CXX")
    return ptx_kernels.build_simt(tmp_path_factory.mktemp("ptx"))


@pytest.fixture
def simt(path):
    library = ptx_kernels.Library(path)
    library.set_options(FORWARD, "late")
    yield library
    library.set_options(FORWARD, "late")


@pytest.fixture(params=SCHEDULES, ids=lambda schedule: f"order{schedule[0]}-{schedule[1]}")
def simt_in_any_schedule(simt, request):
    simt.set_options(*request.param)
    return simt


@pytest.fixture(scope="module")
def cases():
    return conformance.all_cases()


def line_of(file, text):
    """`file:LINE` of the line that holds `text`, as in the errors."""
    lines = (ptx_kernels.HERE / file).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if text in line]
    return f"{file}:{number}"


# ---- one instruction at a time ------------------------------------------------------------------


def test_emulation_is_as_the_manual_describes(simt_in_any_schedule, cases):
    for instruction, its_cases in cases.items():
        for name, case in its_cases.items():
            found = conformance.judge(case, case.run(simt_in_any_schedule))
            assert found["compared"] > 0 and found["wrong"] == 0, (instruction, name, found)


class Distorted:
    """A GPU whose last result is off: by one, and a float by the lowest bit of its upper half."""

    def __init__(self, library):
        self._library = library

    def __getattr__(self, name):
        def call(*arguments):
            getattr(self._library, name)(*arguments)
            written = arguments[-2].reshape(-1)
            bits = written.view(np.uint8 if written.itemsize == 1 else np.uint32)
            bits[-1] ^= 1 if bits.itemsize == 1 else 0x10000

        return call


def test_a_gpu_that_differs_in_one_value_is_not_confirmed(simt):
    found = conformance.report(simt, Distorted(simt))
    assert {instruction["verdict"] for instruction in found.values()} == {"differs"}


class Broken:
    """A GPU on which nothing runs."""

    def __getattr__(self, name):
        def call(*arguments):
            raise RuntimeError("cudaLaunchKernelEx: no kernel image")

        return call


def test_a_gpu_on_which_an_instruction_fails_is_not_confirmed(simt):
    found = conformance.report(simt, Broken())
    assert {instruction["verdict"] for instruction in found.values()} == {"differs"}
    case = found["ldmatrix.x4"]["cases"]["rows in order"]
    assert case["cuda"]["error"] == "cudaLaunchKernelEx: no kernel image"


def test_a_gpu_that_does_the_same_is_confirmed(simt):
    found = conformance.report(simt, simt)
    assert {instruction["verdict"] for instruction in found.values()} == {"confirmed"}
    shares = [
        c["same_bits"] for instruction in found.values() for c in instruction["cases"].values()
    ]
    assert shares == [1.0] * len(shares)


def test_rounding_to_tf32_by_the_manual_is_to_nearest_with_ties_away():
    values = np.array(
        [1 + 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-23, 3e38, 3.4028235e38], np.float32
    )
    rounded = manual.floats_of(manual.to_tf32(values))
    assert list(rounded[:3]) == [1 + 2**-10, -1 - 2**-10, 1]
    assert abs(rounded[3] / values[3] - 1) <= 2**-11 and rounded[4] == np.inf


@pytest.mark.skipif(not ptx_kernels.gpu(), reason="no GPU: the emulation stays unconfirmed")
def test_cuda_does_what_the_emulation_does(simt, tmp_path):
    cuda = ptx_kernels.Library(ptx_kernels.build_cuda(tmp_path, ptx_kernels.gpu()))
    found = conformance.report(simt, cuda)
    verdicts = {instruction: found[instruction]["verdict"] for instruction in found}
    assert set(verdicts.values()) == {"confirmed"}, found
    for gemm in (gemm_tf32, gemm_bf16):
        for shape in SHAPES:
            sums, expected = gemm(cuda, *shape)
            np.testing.assert_array_equal(sums, expected)


@pytest.fixture(scope="module")
def cuda_path(tmp_path_factory):
    if not ptx_kernels.nvcc():
        pytest.skip("no nvcc found: set CUDA_HOME")
    return ptx_kernels.build_cuda(tmp_path_factory.mktemp("cuda"), "80", "90a")


def test_library_for_a_gpu_is_linked(cuda_path):
    cuda, bits = ptx_kernels.Library(cuda_path), np.zeros(32, np.uint32)
    if ptx_kernels.gpu() in ("80", "90a"):
        cuda.to_tf32(np.ones(32, np.float32), bits, 1)
        assert (bits == 0x3F800000).all()
    else:
        with pytest.raises(RuntimeError, match=r"^cudaMalloc|^cudaLaunch"):
            cuda.to_tf32(np.ones(32, np.float32), bits, 1)


# What ptxas makes of an instruction, the only one of its kind in its kernel.
MACHINE_CODE = {
    "cp_async_kernel<4>": "LDGSTS.E.ZFILL",
    "cp_async_kernel<8>": "LDGSTS.E.64.ZFILL",
    "cp_async_kernel<16>": "LDGSTS.E.BYPASS.128.ZFILL",
    "ldmatrix_kernel<1, false>": "LDSM.16.M88",
    "ldmatrix_kernel<2, false>": "LDSM.16.M88.2",
    "ldmatrix_kernel<4, false>": "LDSM.16.M88.4",
    "ldmatrix_kernel<1, true>": "LDSM.16.MT88",
    "ldmatrix_kernel<2, true>": "LDSM.16.MT88.2",
    "ldmatrix_kernel<4, true>": "LDSM.16.MT88.4",
    "mma_kernel<false>": "HMMA.1688.F32.TF32",
    "mma_kernel<true>": "HMMA.16816.F32.BF16",
}


def test_machine_code_has_each_instruction_once(cuda_path):
    tools = sass.Tools()
    try:
        kernels = list(tools.of_module(cuda_path, ["80", "90a"]))
    except sass.ToolError as error:
        pytest.skip(str(error))
    for arch in ("80", "90a"):
        found = {k.name: [i.op for i in k.code] for k in kernels if k.arch == arch}
        for name, instruction in MACHINE_CODE.items():
            kind = instruction.partition(".")[0]
            assert [op for op in found[name] if op.startswith(kind)] == [instruction], (arch, name)


def test_conformance_command_writes_its_report(path, simt, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ptx_kernels, "build_simt", lambda folder: path)
    monkeypatch.setattr(ptx_kernels, "gpu", lambda: "")
    assert conformance.main(["--json", str(tmp_path / "conformance.json")]) == 0
    assert capsys.readouterr().out.endswith("the emulation: unconfirmed (no GPU)\n")
    report = json.loads((tmp_path / "conformance.json").read_text())
    assert report["verdict"] == "unconfirmed" and report["why_not_on_gpu"] == "no GPU"
    assert (
        report["instructions"]["mma.m16n8k8.tf32"]["cases"]["random values"]["simt"]["wrong"] == 0
    )


# ---- products of matrices -----------------------------------------------------------------------


def padded(matrix, multiple):
    """The matrix with rows of a multiple of so many elements; what they are padded with must not be read."""
    pitch = -(-matrix.shape[1] // multiple) * multiple
    whole = np.full(
        (matrix.shape[0], pitch), np.nan if matrix.dtype == np.float32 else 0x7FFF, matrix.dtype
    )
    whole[:, : matrix.shape[1]] = matrix
    return whole


def gemm_tf32(library, m, n, k, size=16, bug=None):
    """Sums by the kernel and by numpy, of small integers: (m, n) each."""
    rng = np.random.default_rng(m * n * k)
    a, b = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((m, k), (n, k)))
    in_a, in_b = padded(a, size // 4), padded(b, size // 4)
    sums = np.full((m, n), np.nan, np.float32)
    call = library.gemm_tf32 if bug is None else library.gemm_with_bug
    call(size if bug is None else bug, in_a, in_b, sums, m, n, k, in_a.shape[1], in_b.shape[1])
    return sums, a @ b.T


def gemm_bf16(library, m, n, k, size=16):
    rng = np.random.default_rng(m * n * k)
    a, b = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((m, k), (k, n)))
    in_a, in_b = (padded(manual.to_bf16(v).astype(np.uint16), size // 2) for v in (a, b))
    sums = np.full((m, n), 0x7FFF, np.uint16)
    library.gemm_bf16(size, in_a, in_b, sums, m, n, k, in_a.shape[1], in_b.shape[1])
    return sums, manual.to_bf16(a @ b)


SHAPES = [(32, 32, 32), (1, 1, 1), (33, 31, 50), (40, 70, 100), (64, 5, 15), (7, 64, 129)]


@pytest.mark.parametrize("gemm", [gemm_tf32, gemm_bf16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_small_integers_are_exact(simt_in_any_schedule, gemm, shape):
    sums, expected = gemm(simt_in_any_schedule, *shape)
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("gemm", [gemm_tf32, gemm_bf16])
@pytest.mark.parametrize("size", [4, 8])
def test_products_with_small_copies_are_exact(simt, gemm, size):
    sums, expected = gemm(simt, 33, 31, 50, size)
    np.testing.assert_array_equal(sums, expected)


def test_products_of_any_values_are_within_the_bound_of_tf32(simt):
    m, n, k = 35, 37, 65
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
    in_a, in_b, sums = padded(a, 4), padded(b, 4), np.zeros((m, n), np.float32)
    simt.gemm_tf32(16, in_a, in_b, sums, m, n, k, in_a.shape[1], in_b.shape[1])
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = (k * 2.0**-24 + 2.001 * 2.0**-11) * (np.abs(a) @ np.abs(b.T))
    assert (np.abs(sums - a @ b.T) <= bound).all()


# ---- planted bugs -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [FORWARD, REVERSE, RANDOM])
def test_stage_refilled_before_the_barrier_gives_wrong_sums(simt, order):
    for landing in ("late", "early"):
        simt.set_options(order, landing)
        sums, expected = gemm_tf32(simt, 32, 32, 100, bug=EARLY_REFILL)
        assert (sums != expected).any()


@pytest.mark.parametrize("order", [FORWARD, REVERSE, RANDOM])
def test_waiting_for_one_group_too_few_gives_nan(simt, order):
    simt.set_options(order, "late")
    sums, _ = gemm_tf32(simt, 32, 32, 100, bug=LAX_WAIT)
    assert np.isnan(sums).any()


def test_exit_with_pending_copies_names_thread_and_line(simt_in_any_schedule):
    with pytest.raises(RuntimeError) as caught:
        gemm_tf32(simt_in_any_schedule, 32, 32, 32, bug=PENDING_AT_EXIT)
    message = str(caught.value)
    assert "block (0,0,0), thread (" in message
    assert "exits with asynchronous copies that it has not waited for: 4, the first from" in message
    assert line_of("gemm.cu", "ptx::cp_async<bytes>(") in message


def test_runtime_is_usable_after_pending_copies(simt):
    for _ in range(3):
        with pytest.raises(RuntimeError):
            gemm_tf32(simt, 32, 32, 32, bug=PENDING_AT_EXIT)
        sums, expected = gemm_tf32(simt, 32, 32, 32)
        np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize(
    ("kernel", "line", "expected"),
    [
        (
            "unaligned_target",
            "cp_async<16>(memory + 1",
            "the shared address is not a multiple of 16",
        ),
        ("unaligned_source", "source + 1", "the source is not at a multiple of 16 bytes"),
        (
            "target_in_global_memory",
            "source + 4",
            "4 bytes that are in no array of the block's",
        ),
        (
            "target_beyond_shared_memory",
            "memory + 8",
            "4 bytes that are in no array of the block's",
        ),
        ("source_in_shared_memory", "memory + 4", "the source is shared memory"),
        ("too_many_source_bytes", "source, 12", "reads 12 bytes of the source; expected 0 to 8"),
        ("unaligned_row", "memory[threadIdx.x]", "the shared address is not a multiple of 16"),
        (
            "row_in_global_memory",
            "registers, source",
            "16 bytes that are in no array of the block's",
        ),
        ("half_a_warp", "// half a warp", "mma.m16n8k8.tf32 at"),
        ("half_a_warp", "// half a warp", "it has 16, lane 16 has exited or does not exist"),
        (
            "small_block",
            "ptx::mma_m16n8k16_bf16",
            "it has 31, lane 31 has exited or does not exist",
        ),
        ("two_places", "// odd lanes", "divergent warp: lane"),
        ("two_places", "// even lanes", "divergent warp: lane"),
    ],
)
def test_misuse_is_refused_with_its_line(simt, kernel, line, expected):
    with pytest.raises(RuntimeError) as caught:
        getattr(simt, kernel)()
    assert expected in str(caught.value)
    assert line_of("misuse.cu", line) in str(caught.value)


# ---- when copies land ---------------------------------------------------------------------------


@pytest.mark.parametrize("landing", ["late", "early"])
def test_copies_land_as_late_or_as_early_as_they_may(simt, landing):
    simt.set_options(FORWARD, landing)
    seen = np.zeros((4, 3), np.float32)
    simt.targets_over_time(np.array([5, 6, 7], np.float32), seen)
    n = np.nan
    late = [[n, n, n], [5, n, n], [5, 6, n], [5, 6, 7]]  # the third copy is in no group
    np.testing.assert_array_equal(seen, late if landing == "late" else [[5, 6, 7]] * 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "late"),
        ("late", "late"),
        ("early", "early"),
        ("soon", "SIMT_ASYNC is 'soon', expected"),
    ],
)
def test_landing_comes_from_the_environment(path, text, expected):
    program = (
        "import ctypes, sys\n"
        "landing = ctypes.CDLL(sys.argv[1]).landing\n"
        "landing.restype = ctypes.c_char_p\n"
        "print(landing().decode())\n"
    )
    command = [sys.executable, "-c", program, path]
    environment = {**os.environ, "SIMT_ASYNC": text}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert output.stdout.startswith(expected)

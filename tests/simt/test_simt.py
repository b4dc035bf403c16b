"""The simt runtime: CUDA threads on the CPU.

Compiles the runtime and simt_selftest.cu with the C++ compiler found, and drives it through ctypes.
`python3 tests/simt/test_simt.py` measures what barriers, shuffles and plain threads cost.
"""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "src" / "kernels"
FLAGS = "-std=c++20 -O2 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wno-unknown-pragmas"
FORWARD, REVERSE, RANDOM = 0, 1, 12345
ORDERS = (FORWARD, REVERSE, RANDOM)


def compiler():
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return [name]
    return None


def build(folder):
    """The shared library of the runtime and the test kernels."""

    def compile_one(source):
        target = folder / (source.stem + ".o")
        language = ["-x", "c++"]  # a .cu file is CUDA to clang++ otherwise
        command = [*compiler(), *FLAGS.split(), f"-I{KERNELS}", *language, "-c", source]
        subprocess.run([*command, "-o", target], check=True)
        return target

    sources = [*sorted((KERNELS / "simt").glob("*.cpp")), HERE / "simt_selftest.cu"]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "libsimt_selftest.so"
    subprocess.run([*compiler(), "-shared", *objects, "-o", library, "-pthread"], check=True)
    return library


class Selftest:
    """The C functions of simt_selftest.cu; what a launch throws becomes a RuntimeError."""

    def __init__(self, library):
        self._functions = ctypes.CDLL(str(library))

    def __getattr__(self, name):
        return functools.partial(self._call, name)

    def _call(self, name, *arguments):
        function = self._functions[name]
        function.restype = ctypes.c_char_p
        error = function(*arguments)
        if error:
            raise RuntimeError(error.decode())

    def set_order(self, order):
        self._call("set_order", ctypes.c_uint64(order))


def ints(values):
    values = list(values)
    return (ctypes.c_int * len(values))(*values)


def zeros(count):
    return (ctypes.c_int * count)()


def line_of(text):
    """`simt_selftest.cu:LINE` of the line that holds `text`, as in the errors."""
    lines = (HERE / "simt_selftest.cu").read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if text in line]
    return f"simt_selftest.cu:{number}"


def message_of(call, *arguments):
    with pytest.raises(RuntimeError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if compiler() is None:
        pytest.skip("no C++ compiler: set CXX")
    return build(tmp_path_factory.mktemp("simt"))


@pytest.fixture
def simt(library):
    selftest = Selftest(library)
    selftest.set_order(FORWARD)
    return selftest


@pytest.fixture(params=ORDERS, ids=["forward", "reverse", "random"])
def simt_in_any_order(simt, request):
    simt.set_order(request.param)
    yield simt
    simt.set_order(FORWARD)


# ---- sound kernels ----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 32, 128, 1024])
def test_block_reduction_with_barriers(simt_in_any_order, threads):
    values, sums = range(3, 3 + 5 * threads), zeros(5)
    simt_in_any_order.block_sum(ints(values), sums, 5, threads)
    assert list(sums) == [sum(values[i * threads : (i + 1) * threads]) for i in range(5)]


@pytest.mark.parametrize("threads", [1, 33, 1000])
def test_dynamic_shared_memory(simt_in_any_order, threads):
    values, reversed_values = range(threads), zeros(threads)
    simt_in_any_order.reverse(ints(values), reversed_values, threads)
    assert list(reversed_values) == list(reversed(values))


def test_warp_functions_follow_the_ptx_manual(simt_in_any_order):
    values, results = [7 * lane + 2 for lane in range(32)], zeros(11 * 32)
    simt_in_any_order.warp_functions(ints(values), results)

    def segment(lane):
        return lane // 8 * 8

    lanes = range(32)
    ballot = sum(1 << lane for lane in lanes if values[lane] % 3 == 0)
    expected = {
        "shfl": [values[5] for lane in lanes],
        "shfl, width 8": [values[segment(lane) + 1] for lane in lanes],
        "up": [values[lane - 3 if lane >= 3 else lane] for lane in lanes],
        "up, width 8": [values[lane - 3 if lane % 8 >= 3 else lane] for lane in lanes],
        "down": [values[lane + 3 if lane + 3 < 32 else lane] for lane in lanes],
        "down, width 8": [values[lane + 3 if lane % 8 < 5 else lane] for lane in lanes],
        "xor": [values[lane ^ 17] for lane in lanes],
        # reaches the segments before the lane's own, not those after it
        "xor, width 8": [values[lane ^ 9 if lane ^ 9 <= lane | 7 else lane] for lane in lanes],
        "ballot": [ctypes.c_int(ballot).value] * 32,
        "any": [1] * 32,
        "all": [0] * 32,
    }
    found = {name: list(results[32 * row : 32 * row + 32]) for row, name in enumerate(expected)}
    assert found == expected


def test_shuffles_under_different_masks_keep_apart(simt_in_any_order):
    sums = zeros(32)
    simt_in_any_order.half_warps(ints(range(32)), sums)
    assert list(sums[:16]) == [sum(range(16))] * 16
    assert sums[16] == sum(range(16, 32))


def test_value_of_a_lane_outside_the_mask_is_all_ones(simt):
    results = zeros(32)
    simt.missing_source(results)
    assert list(results) == [*range(1, 31), -1, 0]


def test_barriers_and_warp_functions_go_on_without_exited_threads(simt_in_any_order):
    results = zeros(64)
    simt_in_any_order.early_exit(results)
    assert list(results) == [64] * 64


def test_barriers_count_and_vote(simt_in_any_order):
    results = zeros(5)
    simt_in_any_order.barrier_votes(results)  # blocks of (10, 5, 2) threads, x = 0..9
    count_of_multiples_of_3, everyone, not_everyone, nobody_has_x_77, nobody = results
    assert count_of_multiples_of_3 == 4 * 5 * 2
    assert (everyone, not_everyone, nobody_has_x_77, nobody) == (1, 0, 0, 0)


def test_atomics(simt_in_any_order):
    values = [(i * i) % 1009 for i in range(1000)]
    counts, largest = zeros(16), ints([-5])
    simt_in_any_order.histogram(ints(values), counts, largest, len(values))
    assert list(counts) == [sum(v % 16 == k for v in values) for k in range(16)]
    assert largest[0] == max(values)


def test_static_arrays_are_apart_and_aligned(simt):
    found = zeros(6)
    simt.static_arrays(found)
    bytes_of_first, distance, misalignment = zip(found[:3], found[3:], strict=True)
    assert bytes_of_first == (5 * 3 * 8, 7 * 3 * 8)
    assert all(d >= b for d, b in zip(distance, bytes_of_first, strict=True))
    assert misalignment == (0, 0)


def test_every_thread_of_a_3d_grid_runs_once(simt_in_any_order):
    threads = 3 * 2 * 4 * 5 * 4 * 3
    counts = zeros(1 + threads)
    simt_in_any_order.thread_indices(counts)
    wrong, *runs = counts
    assert wrong == 0
    assert runs == [1] * threads


# ---- order ------------------------------------------------------------------------------------


def tickets(simt, order, blocks=7, threads=96):
    found = zeros(blocks * threads)
    simt.set_order(order)
    simt.tickets(zeros(1), found, blocks, threads)
    simt.set_order(FORWARD)
    return list(found)


def test_forward_and_reverse_order(simt):
    assert tickets(simt, FORWARD) == list(range(7 * 96))
    assert tickets(simt, REVERSE) == list(reversed(range(7 * 96)))


def test_random_order_is_a_permutation_of_blocks_warps_and_lanes(simt):
    found = tickets(simt, RANDOM)
    assert sorted(found) == list(range(7 * 96))
    blocks = [found[i] // 96 for i in range(0, 7 * 96, 96)]
    warps = [found[i] % 96 // 32 for i in range(0, 7 * 96, 32)]
    lanes = [i % 32 for i in found[:32]]
    assert blocks != sorted(blocks) and warps != [0, 1, 2] * 7 and lanes != sorted(lanes)


def test_random_order_depends_on_the_seed_alone(simt):
    assert tickets(simt, RANDOM) == tickets(simt, RANDOM)
    assert tickets(simt, RANDOM) != tickets(simt, RANDOM + 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "0"), ("1", "1"), ("77", "77"), ("fast", "SIMT_ORDER is 'fast'")],
)
def test_order_comes_from_the_environment(library, text, expected):
    program = (
        "import ctypes, sys\n"
        "get_order = ctypes.CDLL(sys.argv[1]).get_order\n"
        "get_order.restype = ctypes.c_char_p\n"
        "order = ctypes.c_uint64()\n"
        "print(get_order(ctypes.byref(order)).decode() or order.value)\n"
    )
    environment = {**os.environ, "SIMT_ORDER": text}
    command = [sys.executable, "-c", program, library]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert output.stdout.strip().startswith(expected)


# ---- planted bugs -----------------------------------------------------------------------------


def test_divergent_barrier_names_both_places(simt):
    message = message_of(simt.divergent_barrier)
    assert message.startswith("divergent_barrier_kernel: block (0,0,0), thread (32,0,0): ")
    assert "divergent barrier" in message
    assert line_of("// first place") in message and line_of("// second place") in message


def test_shuffle_by_half_a_warp_is_a_deadlock(simt_in_any_order):
    message = message_of(simt_in_any_order.half_warp_shuffle, zeros(64))
    assert "deadlock" in message
    assert "16 in __shfl_xor_sync at" in message and "48 in __syncthreads at" in message
    assert line_of("// shuffle of half a warp") in message
    assert line_of("// the rest waits here") in message


def test_lanes_in_different_warp_functions_are_named(simt):
    message = message_of(simt.divergent_warp, zeros(32))
    assert "divergent warp: lane 16 is in __any_sync" in message
    assert "lane 0 in __shfl_sync" in message


def test_lane_outside_of_its_own_mask(simt):
    assert "lane 16 is not in its own mask" in message_of(simt.outside_mask)


def test_unwritten_shared_memory_is_nan(simt_in_any_order):
    results = (ctypes.c_float * 256)()
    simt_in_any_order.unwritten(results)
    assert [i for i, value in enumerate(results) if value != 2.0] == [3 * 32]
    assert results[3 * 32] != results[3 * 32]


def test_missing_barrier_gives_wrong_values(simt_in_any_order):
    values, results = range(64), zeros(64)
    simt_in_any_order.missing_barrier(ints(values), results)
    assert list(results) != [i ^ 1 for i in values]


def test_too_much_static_shared_memory_names_the_array(simt):
    message = message_of(simt.large_static)
    assert "second" in message and line_of("second, [9 << 10]") in message
    assert f"{49 << 10} bytes" in message and "the limit is 49152" in message


def test_static_and_dynamic_shared_memory_count_together(simt):
    simt.large_total(ctypes.c_size_t(195 << 10))
    assert "the limit is 232448" in message_of(simt.large_total, ctypes.c_size_t(196 << 10))


@pytest.mark.parametrize(
    ("grid", "block", "dynamic_smem", "expected"),
    [
        ((1, 1), (2048, 1, 1), 0, "block (2048,1,1) exceeds"),
        ((1, 1), (32, 33, 1), 0, "block (32,33,1) exceeds"),
        ((1, 1), (1, 1, 65), 0, "block (1,1,65) exceeds"),
        ((1, 1), (0, 1, 1), 0, "empty block (0,1,1)"),
        ((0, 1), (1, 1, 1), 0, "empty grid (0,1,1)"),
        ((1, 65536), (1, 1, 1), 0, "grid (1,65536,1) exceeds"),
        ((1, 1), (1, 1, 1), (227 << 10) + 1, "232449 bytes of dynamic shared memory"),
    ],
)
def test_launch_limits(simt, grid, block, dynamic_smem, expected):
    message = message_of(simt.empty, *grid, *block, ctypes.c_size_t(dynamic_smem))
    assert message.startswith("empty_kernel: invalid launch: " + expected)


@pytest.mark.parametrize(("name", "kibibytes"), [("sm_75", 64), ("sm_80", 163), ("sm_86", 99), ("sm_90", 227), ("sm_100", 227)])
def test_shared_memory_is_that_of_the_chosen_architecture(simt, name, kibibytes):
    simt.set_architecture(name.encode())
    most = kibibytes << 10
    simt.empty(1, 1, 1, 1, 1, ctypes.c_size_t(most))
    message = message_of(simt.empty, 1, 1, 1, 1, 1, ctypes.c_size_t(most + 1))
    assert f"{most + 1} bytes of dynamic shared memory; the limit of {name} is {most}" in message
    simt.large_total(ctypes.c_size_t(most - (32 << 10)))
    assert f"the limit is {most}" in message_of(simt.large_total, ctypes.c_size_t(most - (32 << 10) + 1))


def test_an_unknown_architecture_is_named_with_those_there_are(simt):
    assert "SIMT_ARCH is 'sm_1', expected one of sm_75, sm_80" in message_of(simt.set_architecture, b"sm_1")


def test_largest_launch_is_accepted(simt):
    simt.empty(70000, 1, 1, 1, 1, ctypes.c_size_t(0))
    simt.empty(1, 1, 16, 1, 64, ctypes.c_size_t(227 << 10))


def test_launch_from_a_kernel_is_refused(simt):
    assert "a kernel launches a kernel" in message_of(simt.launch_from_kernel)


def test_runtime_is_usable_after_an_error(simt):
    for _ in range(20):
        message_of(simt.half_warp_shuffle, zeros(64))
        sums = zeros(2)
        simt.block_sum(ints(range(128)), sums, 2, 64)
        assert list(sums) == [sum(range(64)), sum(range(64, 128))]


def test_several_os_threads_launch_at_a_time(simt):
    values, os_threads, rounds = range(1024), 4, 200
    sums, failures = zeros(4 * os_threads), zeros(os_threads)
    simt.concurrent(ints(values), sums, os_threads, rounds, failures)
    assert list(failures) == [rounds] * os_threads  # the planted bugs, and nothing else
    assert list(sums) == [sum(values[i : i + 256]) for i in range(0, 1024, 256)] * os_threads


# ---- cost -------------------------------------------------------------------------------------


def measure(simt):
    def nanoseconds(count, call, *arguments):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call(*arguments)
            times.append(time.perf_counter() - start)
        return min(times) / count * 1e9

    for order in ORDERS:
        simt.set_order(order)
        for threads in (32, 256, 1024):
            cost = nanoseconds(threads * 1000, simt.barriers, 1, threads, 1000)
            print(f"order {order:5}  barrier, {threads:4} threads: {cost:5.1f} ns a thread")
        cost = nanoseconds(256 * 1000, simt.shuffles, 256, 1000, zeros(256))
        print(f"order {order:5}  shuffle, 256 threads: {cost:5.1f} ns a lane")
        cost = nanoseconds(256 * 1000, simt.empty, 1000, 1, 256, 1, 1, ctypes.c_size_t(0))
        print(f"order {order:5}  empty thread: {cost:5.1f} ns")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        measure(Selftest(build(Path(folder))))

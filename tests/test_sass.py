"""The static gates of benchmarks/sass_report.py: that they read machine code rightly, and fail what they should."""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLANTED = ROOT / "tests" / "sass" / "planted.cu"
sys.path.insert(0, str(ROOT / "benchmarks"))
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("these are tests of a checkout", allow_module_level=True)

import occupancy  # noqa: E402
import sass_report  # noqa: E402
from sass_gates import GATES, SHARES, failures  # noqa: E402

import sass  # noqa: E402

# What the tools of CUDA 13 print of a kernel with one loop, shortened.
NAME = "_ZN7convnet12scale_kernelIfNS_4TileILi1ELi2ELi3ELi4EEEEEvPK6float4PfT_i"
DISASSEMBLY = f"""\t.target\tsm_90a

//--------------------- .text.{NAME} --------------------------
\t.section\t.text.{NAME},"ax",@progbits
        .size           {NAME},(.L_x_5 - {NAME})
{NAME}:
.text.{NAME}:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*00a0*/               @P0 BRA `(.L_x_1) ;
        /*00b0*/                   LDC.64 R2, c[0x0][0x210] ;
.L_x_2:
        /*00e0*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*00f0*/                   IADD3 R0, R0, 0x40, RZ ;
        /*0130*/                   FSETP.GT.AND P0, PT, R7, RZ, PT ;
        /*0140*/                   FFMA R4, R4, UR7, R11 ;
        /*0150*/                   FFMA R11, R5, R6, R4 ;
        /*0160*/               @P0 FMUL R11, R11, R11 ;
        /*0168*/              @!P2 LDG.E.U8.CONSTANT R4, desc[UR4][R2.64+0x8] ;
        /*0170*/             @!UP1 BRA `(.L_x_2) ;
.L_x_1:
        /*0180*/                   STL [R1+0x4], R2 ;
        /*0190*/                   STG.E desc[UR4][R8.64], R11 ;
        /*01a0*/                   EXIT ;
.L_x_3:
        /*01b0*/                   BRA `(.L_x_3);
        /*01c0*/                   NOP;
.L_x_5:


//--------------------- SYMBOLS --------------------------
"""
USAGE = f"""
Resource usage:
 Common:
  GLOBAL:0
 Function {NAME}:
  REG:14 STACK:8 SHARED:96 LOCAL:0 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
ELF = f"""
.nv.info.{NAME}
\t<0x1>
\tAttribute:\tEIATTR_CUDA_API_VERSION
\tFormat:\tEIFMT_SVAL
\tValue:\t0x82
\t<0xf>
\tAttribute:\tEIATTR_INDIRECT_BRANCH_TARGETS
\tFormat:\tEIFMT_SVAL
\tValue:\t
\t\tOffset of Indirect Branch: 0x9d20\t Number of targets: 2
\t\tTargets: 0x9ef0 0x9e40

\t<0x10>
\tAttribute:\tEIATTR_MAX_THREADS
\tFormat:\tEIFMT_SVAL
\tValue:\t0x40 0x2 0x1
"""


def test_a_kernel_is_read_from_what_the_tools_print():
    (kernel,) = sass.parse("90a", DISASSEMBLY, USAGE, ELF)
    assert (kernel.name, kernel.registers, kernel.shared, kernel.stack, kernel.threads) == (NAME, 14, 96, 8, 128)
    assert kernel.local_accesses == 1
    assert [instruction.op for instruction in kernel.loop] == [
        "LDG.E.128", "IADD3", "FSETP.GT.AND", "FFMA", "FFMA", "FMUL", "LDG.E.U8.CONSTANT", "BRA"]
    assert kernel.share == 2 / 8
    assert sass.widths(("LDG",), kernel.code) == {16: 1, 1: 1}
    assert sass.widths(("STG",), kernel.code) == {4: 1}


def test_a_kernel_without_bounds_has_none():
    (kernel,) = sass.parse("90a", DISASSEMBLY, USAGE, ELF.replace("MAX_THREADS", "EXIT_INSTR_OFFSETS"))
    assert kernel.threads is None


@pytest.mark.parametrize(("disassembly", "usage"), [("\t.target\tsm_90a\n", USAGE), (DISASSEMBLY, "Resource usage:\n")])
def test_tools_that_print_something_else_are_an_error_not_an_empty_table(disassembly, usage):
    with pytest.raises(sass.ToolError):
        sass.parse("90a", disassembly, usage, ELF)


@pytest.mark.parametrize(("name", "readable"), [
    ("void convnet::neuron_forward_kernel<(convnet::Neuron)3, float>(convnet::Rows<float const>, float)", "neuron_forward_kernel<3, float>"),
    ("void convnet::conv_forward_kernel<float, convnet::Tile<64, 128, 8, 8>, true>(int)", "conv_forward_kernel<float, Tile<64, 128, 8, 8>, true>"),
    ("convnet::(anonymous namespace)::fill_kernel(float*, int)", "fill_kernel"),
])
def test_names_are_those_of_the_source(name, readable):
    assert sass.readable(name) == readable


def test_launches_are_those_of_the_very_kernel_where_names_agree():
    small, large = (sound(name=f"conv_kernel<float, Tile<{m}, 32, 4, 4>, true>") for m in (32, 64))
    neuron, unknown = sound(name="neuron_kernel<3, float>"), sound(name="conv_kernel<float, Tile<64, 32, 4, 4>, false>")
    log = [(small.name, "(2,1,1)", "(64,1,1)", "0"), (large.name, "(1,1,1)", "(128,1,1)", "512"), (small.name, "(1,1,1)", "(32,1,1)", "0"),
           ("neuron_kernel<Neuron::relu, float>", "(9,1,1)", "(32,8,1)", "0")]
    sass.add_launches([small, large, neuron, unknown], "".join("\t".join(line) + "\n" for line in log))
    assert [(k.launched, k.dynamic) for k in (small, large, neuron, unknown)] == [(64, 0), (128, 512), (256, 0), (0, 0)]


# ---- gates ---------------------------------------------------------------------------------------------------------

TILE = "conv_forward_kernel<float, Tile<64, 128, 8, 8>, true>"


def instructions(**counts):
    return [sass.Instruction(op.replace("_", "."), "") for op, count in counts.items() for _ in range(count)]


def sound(name=TILE, arch="80", **changes):
    """A kernel that passes every gate: a loop, and the stores behind it."""
    loop = changes.pop("loop", {"LDG_E_128": 6, "LDS_128": 64, "FFMA": 1024, "IADD3": 90})
    code = [*instructions(**loop), sass.Instruction("BRA", "`(.L_x_1)"), *instructions(**changes.pop("after", {"STG_E_128": 32}))]
    return sass.Kernel(arch, name, **{"registers": 168, "shared": 25600, "stack": 0, "threads": 128, **changes}, code=code, labels={".L_x_1": 0})


MMA_TILE = "conv_forward_kernel<float, MmaTile<Tf32, 128, 128, 64, 64, 4, 2>, true>"
MMA = {"name": MMA_TILE, "registers": 232, "shared": 0, "dynamic": 67584}
MMA_LOOP = {"LDGSTS_E_BYPASS_128": 8, "LDS": 64, "HMMA_1688_F32_TF32": 64, "IMAD": 240}

STORED = {**MMA, "name": "conv_forward_kernel<bfloat16, MmaTile<Bf16, 128, 128, 64, 64, 4, 2>, true, bfloat16, float>"}
STORED_LOOP = {"LDGSTS_E_BYPASS_128": 4, "LDSM_16_MT88_4": 8, "HMMA_16816_F32_BF16": 32, "IMAD": 84}

FAULTS = [
    ("accesses to local memory: 2, expected at most 0", {"after": {"STG_E_128": 32, "STL_64": 1, "LDL_64": 1}}),
    ("bytes of local memory: 16, expected at most 0", {"stack": 16}),
    ("registers of a block: 86016, expected at most 65536", {"threads": 512}),
    ("registers of a block: 73728, expected at most 65536", {"name": "sgd_update_kernel<float>", "threads": None, "registers": 72}),
    ("bytes of static shared memory: 49664, expected at most 49152", {"shared": 49664}),
    ("bytes of shared memory: 106496, expected at most 101376", {"arch": "86", "dynamic": 80896}),
    ("threads of a launch: 256, expected at most 128", {"launched": 256}),
    ("blocks on a multiprocessor: 0, expected at least 1", {"name": "sgd_update_kernel<float>", "shared": 200 << 10}),
    ("blocks on a multiprocessor: 1, expected at least 2", {"arch": "75", "shared": 40 << 10}),
    ("multiply-adds in the loop: 1023, expected at least 1024", {"loop": {"LDG_E_128": 6, "FFMA": 1023}}),
    ("share of multiply-adds in the loop: 0.786, expected at least 0.800", {"loop": {"LDG_E_128": 6, "FFMA": 1024, "IMAD": 271}}),
    ("narrow loads from global memory: 4, expected at most 0", {"loop": {"LDG_E_128": 5, "LDG_E": 4, "FFMA": 1024}}),
    ("loads of 16 bytes from global memory: 1, expected at least 2", {"loop": {"LDG_E_128": 1, "FFMA": 1024}}),
    ("narrow stores to global memory: 4, expected at most 0", {"after": {"STG_E_128": 31, "STG_E": 4}}),
    ("stores of 16 bytes to global memory: 0, expected at least 1", {"after": {"EXIT": 1}}),
    ("narrow loads from shared memory: 1, expected at most 0", {"loop": {"LDG_E_128": 6, "LDS_64": 1, "FFMA": 1024}}),
    ("narrow loads from global memory: 1, expected at most 0", {"name": "neuron_backward_kernel<1, 8, bfloat16>", "loop": {"LDG_E": 1}}),
    ("narrow stores to global memory: 2, expected at most 0", {"name": "scaled_copy_kernel<8, bfloat16, float>", "loop": {"LDG_E_128": 1}, "after": {"STG_E": 2}}),
    ("products on tensor cores in the loop: 63, expected at least 64", {**MMA, "loop": {**MMA_LOOP, "HMMA_1688_F32_TF32": 63}}),
    ("share of products on tensor cores in the loop: 0.107, expected at least 0.110", {**MMA, "loop": {**MMA_LOOP, "IMAD": 460}}),
    ("share of products on tensor cores in the loop: 0.164, expected at least 0.170", {**STORED, "loop": {**STORED_LOOP, "IMAD": 150}}),
    ("narrow copies to shared memory: 4, expected at most 0", {**MMA, "loop": {**MMA_LOOP, "LDGSTS_E": 4}}),
    ("blocks on a multiprocessor: 1, expected at least 2", {**MMA, "arch": "90a", "dynamic": 120000}),
]


def test_a_sound_kernel_passes():
    assert failures([sound(), sound(name="sgd_update_kernel<float>", threads=None, registers=64), sound(**MMA, loop=MMA_LOOP), sound(**STORED, loop=STORED_LOOP)]) == []


def test_what_is_never_launched_on_a_gpu_is_held_to_nothing():
    assert failures([sound(**MMA, arch="80", loop={"BRA": 1})]) and not failures([sound(**MMA, arch="75", loop={"BRA": 1})])


@pytest.mark.parametrize(("message", "changes"), FAULTS, ids=[message.partition(":")[0] for message, _ in FAULTS])
def test_a_faulty_kernel_fails_its_gate_by_name_number_and_limit(message, changes):
    kernel = sound(**changes)
    assert any(failure.startswith(f"sm_{kernel.arch} {kernel.name}: {message}: ") for failure in failures([kernel]))


def test_every_gate_is_seen_to_fail():
    assert {message.partition(":")[0] for message, _ in FAULTS} == {gate.name for gate in GATES}


def test_every_tile_of_the_launchers_has_its_share():
    tiles = re.findall(r"using \w+ = Tile<(.*)>;", (ROOT / "src/kernels/conv_launch.cuh").read_text())
    assert {tuple(map(int, tile.split(", "))) for tile in tiles} == set(SHARES)


# ---- with the tools ------------------------------------------------------------------------------------------------


def tools():
    found = sass.Tools()
    try:
        found.find("nvdisasm")
        found.find("cuobjdump")
    except sass.ToolError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture(scope="module")
def planted():
    found = tools()
    if not found.nvcc:
        pytest.skip("no nvcc")
    return {kernel.name: kernel for kernel in found.compiled([PLANTED], ["80"])}


@pytest.mark.parametrize(("name", "gate"), [
    ("spilling_kernel", "accesses to local memory"),
    ("indexing_kernel", "bytes of local memory"),
    ("greedy_kernel", "registers of a block"),
    (TILE, "narrow loads from global memory"),
    (TILE, "stores of 16 bytes to global memory"),
    (TILE, "multiply-adds in the loop"),
])
def test_a_planted_fault_is_found_in_what_nvcc_makes(planted, name, gate):
    assert any(failure.startswith(f"sm_80 {name}: {gate}: ") for failure in failures([planted[name]]))


def test_a_kernel_without_fault_passes_as_nvcc_makes_it(planted):
    kernel = planted["sound_kernel"]
    assert failures([kernel]) == [] and kernel.threads == 128
    assert sass.widths(("LDG",), kernel.code) == sass.widths(("STG",), kernel.code) == {16: 1}


def test_the_command_fails_and_names_kernel_gate_number_and_limit(planted, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sass_report.py", str(PLANTED), "--arch", "80", "--kernels", "spilling|sound"])
    assert sass_report.main() == 1
    assert re.search(r"^FAILED sm_80 spilling_kernel: bytes of local memory: \d+, expected at most 0: ", capsys.readouterr().out, re.M)
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "sound"])
    assert sass_report.main() == 0


# ---- occupancy -----------------------------------------------------------------------------------------------------

CASES = [(registers, threads, shared) for registers in (16, 32, 33, 40, 64, 96, 127, 128, 168, 200, 255)
         for threads in (32, 64, 100, 128, 256, 384, 512, 1000, 1024) for shared in (0, 1, 5120, 16000, 25600, 26624, 49152)]
PROGRAM = """
#include <cuda_occupancy.h>
#include <cstdio>
int main() {
  int major, minor, threads_of_sm, registers, threads;
  unsigned long shared_of_sm, shared_of_block, reserved, shared;
  while (scanf("%d %d %d %lu %lu %lu %d %d %lu", &major, &minor, &threads_of_sm, &shared_of_sm, &shared_of_block, &reserved, &registers, &threads, &shared) == 9) {
    cudaOccDeviceProp device{};
    device.computeMajor = major, device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024, device.maxThreadsPerMultiprocessor = threads_of_sm, device.warpSize = 32;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.sharedMemPerBlock = 48 << 10, device.sharedMemPerMultiprocessor = shared_of_sm;
    device.sharedMemPerBlockOptin = shared_of_block, device.reservedSharedMemPerBlock = reserved, device.numSms = 100;
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = shared;
    kernel.maxDynamicSharedSizeBytes = 0, kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    cudaOccDeviceState state{};
    state.carveoutConfig = 100;
    cudaOccResult result{};
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0) != CUDA_OCC_SUCCESS) return 1;
    printf("%d\\n", result.activeBlocksPerMultiprocessor);
  }
}
"""


def test_occupancy_is_that_of_nvidias_calculator(tmp_path):
    found = sass.Tools()
    headers = [path for path in (Path(root) / "include" for root in ([found.toolkit] if found.nvcc else [])) if (path / "cuda_occupancy.h").exists()]
    if not (headers and shutil.which("g++")):
        pytest.skip("no toolkit with cuda_occupancy.h, or no g++")
    (tmp_path / "calculator.cpp").write_text(PROGRAM)
    subprocess.run(["g++", "-w", f"-I{headers[0]}", "-o", tmp_path / "calculator", tmp_path / "calculator.cpp"], check=True)
    asked, ours = [], []
    for arch, limits in occupancy.MULTIPROCESSORS.items():
        for case in CASES:
            asked.append(f"{arch[:-1]} {arch[-1]} {limits.threads} {limits.shared} {limits.shared_of_block} {limits.reserved} {' '.join(map(str, case))}")
            ours.append(occupancy.blocks_of_multiprocessor(arch, *case))
    answer = subprocess.run([tmp_path / "calculator"], input="\n".join(asked), capture_output=True, text=True, check=True).stdout.split()
    assert [(case, count) for case, count, theirs in zip(asked, ours, map(int, answer), strict=True) if count != theirs] == []
    assert len(set(ours)) > 10

"""The instructions of src/kernels/ptx/ as the PTX manual describes them, in numpy.

Written from the manual's own formulas (PTX ISA 9: "Data Movement and Conversion Instructions: cvt, cp.async",
"Warp Level Matrix Instructions: ldmatrix, mma") and not from the emulation, so that a slip in either shows. A misreading
that both share shows on a GPU only: conformance.py.

Fragments are arrays (warps, 32 lanes, registers) of 32 bits.
"""

from __future__ import annotations

import numpy as np

LANES = range(32)


def bits_of(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def floats_of(bits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


# ---- cvt ---------------------------------------------------------------------------------------


def to_tf32(values: np.ndarray) -> np.ndarray:
    """cvt.rna.tf32.f32: the nearest of the values with ten bits of fraction, the larger magnitude of two.

    Values beyond the largest are infinite. What a NaN becomes the manual does not say; ptxas 13.0 makes of the
    instruction, for sm_80, 90 and 100, operations that clear its low 13 bits, and so is it here.
    """
    values = values.astype(np.float32)
    with np.errstate(all="ignore"):
        magnitude = np.abs(values.astype(np.float64))
        exponent = np.maximum(np.frexp(magnitude)[1] - 1, -126)
        unit = np.exp2(exponent.astype(np.float64) - 10)
        rounded = np.floor(magnitude / unit + 0.5) * unit
        rounded = np.where(rounded >= 2.0**128, np.inf, rounded)
        bits = bits_of(np.copysign(rounded, values).astype(np.float32))
    return np.where(np.isnan(values), bits_of(values) & np.uint32(0xFFFFE000), bits)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """cvt.rn.bf16: the nearest of the values with seven bits of fraction, the even one of two; NaN is 0x7FFF."""
    values = values.astype(np.float32)
    with np.errstate(all="ignore"):
        magnitude = np.abs(values.astype(np.float64))
        exponent = np.maximum(np.frexp(magnitude)[1] - 1, -126)
        unit = np.exp2(exponent.astype(np.float64) - 7)
        rounded = np.rint(magnitude / unit) * unit
        rounded = np.where(rounded >= 2.0**128, np.inf, rounded)
        upper = bits_of(np.copysign(rounded, values).astype(np.float32)) >> 16
    return np.where(np.isnan(values), 0x7FFF, upper).astype(np.uint32)


def pack_bf16(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """cvt.rn.bf16x2.f32 d, high, low: the first source in the upper half."""
    return to_bf16(high) << 16 | to_bf16(low)


# ---- cp.async ----------------------------------------------------------------------------------


def cp_async(source: np.ndarray, source_bytes: np.ndarray) -> np.ndarray:
    """source: (..., bytes); of each the first source_bytes, then zeros."""
    return np.where(np.arange(source.shape[-1]) < source_bytes[..., None], source, 0)


# ---- ldmatrix ----------------------------------------------------------------------------------


def ldmatrix(memory: np.ndarray, places: np.ndarray, matrices: int, transposed: bool) -> np.ndarray:
    """memory: (warps, rows, 8) of 16 bits; places: (warps, 32), the row that each lane points at.

    Lanes 0 to 7 have the rows of the first matrix, 8 to 15 those of the second, and so on. Lane 0 receives elements 0
    and 1 of row 0, lane 1 elements 2 and 3, lane 4 elements 0 and 1 of row 1; transposed, of columns for rows.
    """
    registers = np.zeros((len(memory), 32, matrices), np.uint32)
    for warp, rows in enumerate(memory):
        for j in range(matrices):
            matrix = np.stack([rows[places[warp, lane]] for lane in range(8 * j, 8 * j + 8)])
            if transposed:
                matrix = matrix.T
            pairs = np.ascontiguousarray(matrix).reshape(32, 2).astype(np.uint32)
            registers[warp, :, j] = pairs[:, 0] | pairs[:, 1] << 16
    return registers


# ---- mma ---------------------------------------------------------------------------------------
# (row, column) of fragment elements, element i of a lane, in the manual's words: groupID = lane >> 2,
# threadID_in_group = lane % 4.


def place_of_sum(lane: int, i: int) -> tuple[int, int]:
    """c0 and c1 are in row groupID, c2 and c3 eight below."""
    return (lane >> 2) + (0 if i < 2 else 8), (lane % 4) * 2 + (i & 1)


def place_of_a_tf32(lane: int, i: int) -> tuple[int, int]:
    """a0 and a2 in row groupID, a1 and a3 eight below; a0 and a1 in column threadID_in_group, the others four on."""
    return (lane >> 2) + (0 if i in (0, 2) else 8), lane % 4 + (0 if i in (0, 1) else 4)


def place_of_b_tf32(lane: int, i: int) -> tuple[int, int]:
    return lane % 4 + (0 if i == 0 else 4), lane >> 2


def place_of_a_bf16(lane: int, i: int) -> tuple[int, int]:
    """a0, a1, a4, a5 in row groupID, the others eight below; from a4 on eight columns on."""
    row = lane >> 2 if 0 <= i < 2 or 4 <= i < 6 else (lane >> 2) + 8
    return row, (lane % 4) * 2 + (i & 1) + (0 if i < 4 else 8)


def place_of_b_bf16(lane: int, i: int) -> tuple[int, int]:
    return (lane % 4) * 2 + (i & 1) + (0 if i < 2 else 8), lane >> 2


def elements_tf32(fragment: np.ndarray) -> np.ndarray:
    """The values of (32, registers): the low 13 bits do not count."""
    return floats_of(fragment & np.uint32(0xFFFFE000))


def elements_bf16(fragment: np.ndarray) -> np.ndarray:
    """The values of (32, registers), two a register, the lower half first."""
    halves = np.stack([fragment & np.uint32(0xFFFF), fragment >> np.uint32(16)], axis=-1)
    return floats_of(halves << np.uint32(16)).reshape(32, -1)


FORMS = {
    "tf32": (8, elements_tf32, place_of_a_tf32, place_of_b_tf32),
    "bf16": (16, elements_bf16, place_of_a_bf16, place_of_b_bf16),
}


def gathered(elements: np.ndarray, place, shape: tuple[int, int]) -> np.ndarray:
    """A matrix out of the elements (32, count) of the lanes."""
    matrix = np.full(shape, np.nan)
    for lane in LANES:
        for i in range(elements.shape[1]):
            matrix[place(lane, i)] = elements[lane, i]
    return matrix


def counted(values: np.ndarray) -> np.ndarray:
    """Magnitudes, those of denormals raised to the smallest normal one."""
    return np.where(values == 0, 0, np.maximum(np.abs(values), 2.0**-126))


def mma(form: str, a: np.ndarray, b: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums in float64, as fragments (warps, 32, 4), and how far off the hardware's may be.

    The manual promises exact products and sums of float32's precision or better, in any order. What has been published
    of NVIDIA's tensor cores (Fasi, Higham, Mikaitis, Pranesh 2021) is coarser: several terms are shifted to the largest
    one's exponent and cut off there, 23 bits below it or further. A product's exponent is the sum of those of its
    factors, so that unit is up to 2^-22 of the largest term, where a denormal counts as 2^-126, whose exponent it has.
    With at most 2*depth such cuts, the sum of a group being a term of the next:
      |error| <= 2 * depth * (2^-22 * sum of |terms| + 2^-149)
    """
    depth, elements, place_of_a, place_of_b = FORMS[form]
    exact = np.empty(sums.shape)
    bound = np.empty(sums.shape)
    for warp in range(len(sums)):
        matrix_a = gathered(elements(a[warp]), place_of_a, (16, depth))
        matrix_b = gathered(elements(b[warp]), place_of_b, (depth, 8))
        start = gathered(sums[warp], place_of_sum, (16, 8))
        with np.errstate(invalid="ignore"):
            terms = matrix_a[:, :, None] * matrix_b[None, :, :]
            total = start + terms.sum(axis=1)
            size = counted(start) + (counted(matrix_a)[:, :, None] * counted(matrix_b)).sum(axis=1)
        for lane in LANES:
            for i in range(4):
                exact[warp, lane, i] = total[place_of_sum(lane, i)]
                bound[warp, lane, i] = (
                    2 * depth * (2.0**-22 * size[place_of_sum(lane, i)] + 2.0**-149)
                )
    return exact, bound

"""What numpy writes into pickles, read without handing numpy anything unchecked.

An array is pickled as a call of `_reconstruct` (an empty array) and a state (shape, type, order,
bytes), from protocol 5 on as a call of `_frombuffer`; a number as a call of `scalar`; a type as a
call of `dtype` and a state. Names, in any spelling of numpy 1 or 2, are inert `Symbol`s; the
calls and states are carried out here, on types listed here and sizes compared with the bytes
present.
"""

from __future__ import annotations

import math
import re

import numpy as np

PLAIN_TYPE = r"(?:b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6})"
MAX_RANK = 32


class Refusal(Exception):
    """What makes a record no data; the reader adds the file and the byte."""


class Symbol:
    """A name that numpy's pickles refer to: it can be compared and shown, and does nothing."""

    def __init__(self, dotted: str):
        self.dotted = dotted

    def __str__(self) -> str:
        return self.dotted


class Dtype:
    """A type on its way: `dtype("f4")` makes it, its state then says the order of the bytes."""

    def __init__(self, code: str):
        self.code = code
        self.order = "="

    def __str__(self) -> str:
        return f"the type {self.code}"

    def real(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class Arrays:
    """Carries out the calls and states of one pickle.

    Together the arrays of a pickle have at most `budget` bytes, those of the file: a stored
    string used again and again makes no arrays out of nothing.
    """

    def __init__(self, budget: int):
        self.budget = budget
        self.unfilled: dict[int, np.ndarray] = {}  # by id: made, their state not yet seen
        self.calls = {
            "numpy.core.multiarray._reconstruct": self._reconstruct,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy.core.numeric._frombuffer": self._frombuffer,
            "numpy.dtype": self._dtype,
            "_codecs.encode": _encode,
            "builtins.bytes": _bytes,
            "builtins.bytearray": _bytes,
        }
        self.names = {*self.calls, "numpy.ndarray", "builtins.set"}

    def symbol(self, module: object, name: object) -> Symbol:
        dotted = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"
        known = dotted.replace("numpy._core.", "numpy.core.").replace("__builtin__.", "builtins.")
        if known not in self.names:
            shown = dotted if dotted.isprintable() else ascii(dotted)
            raise Refusal(f"record refers to {shown[:100]}: not data")
        return Symbol(known)

    def call(self, function: Symbol, arguments: tuple) -> object:
        if function.dotted not in self.calls:
            raise Refusal(f"record calls {function}: not data")
        try:
            return self.calls[function.dotted](*arguments)
        except TypeError as error:
            raise Refusal(f"{function} with {len(arguments)} arguments it never has") from error

    def build(self, target: object, state: object) -> None:
        if isinstance(target, Dtype):
            _set_byte_order(target, state)
        elif self.unfilled.get(id(target)) is target and isinstance(target, np.ndarray):
            self._fill(target, state)
        else:
            raise Refusal(f"a {type(target).__name__} is given a state, which is not data")

    def check_all_filled(self) -> None:
        if self.unfilled:
            raise Refusal("an array has no contents")

    # The calls.

    def _reconstruct(self, kind: object, shape: object, code: object) -> np.ndarray:
        if not isinstance(kind, Symbol) or kind.dotted != "numpy.ndarray":
            raise Refusal("an array of a class other than numpy.ndarray")
        array = np.empty(0, np.int8)  # what shape and code say is replaced by the state
        self.unfilled[id(array)] = array
        return array

    def _fill(self, array: np.ndarray, state: object) -> None:
        """state: (version, shape, type, columns first, bytes)"""
        if type(state) is not tuple or len(state) != 5 or type(state[3]) not in (bool, int):
            raise Refusal("the state of an array is not (version, shape, type, order, bytes)")
        _, shape, dtype, fortran, contents = state
        raw = self._checked(shape, dtype, contents)
        del self.unfilled[id(array)]
        # Filled in place, since the memo may already refer to it.
        array.__setstate__((1, shape, dtype.real(), bool(fortran), raw))

    def _scalar(self, dtype: object, contents: object) -> np.generic:
        raw = self._checked((), dtype, contents)
        return np.frombuffer(raw, dtype.real())[0]

    def _frombuffer(
        self, contents: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> np.ndarray:
        raw = self._checked(shape, dtype, contents)
        flat = np.frombuffer(raw, dtype.real()).copy()  # a copy, to be writable
        if not isinstance(order, str) or order not in ("C", "F", "K"):
            raise Refusal("the order of an array is none of C, F, K")
        if order != "K":
            return flat.reshape(shape, order=order)
        if not _is_shape(axes) or sorted(axes) != list(range(len(shape))):
            raise Refusal("the axes of an array are not a permutation")
        return flat.reshape(shape).transpose(axes)

    def _dtype(self, code: object, align: object = False, copy: object = True) -> Dtype:
        if not isinstance(code, str) or not re.fullmatch(PLAIN_TYPE, code):
            shown = ascii(code)[:20] if isinstance(code, (str, bytes)) else type(code).__name__
            raise Refusal(f"an array of type {shown}, expected bool, int, uint, float or text")
        return Dtype(code)

    def _checked(self, shape: object, dtype: object, contents: object) -> bytes:
        """The bytes of an array, once they are known to be those of this shape and type."""
        if not _is_shape(shape) or not isinstance(dtype, Dtype):
            raise Refusal("an array whose shape or type is neither")
        raw = contents.encode("latin-1") if isinstance(contents, str) else contents
        if not isinstance(raw, bytes):
            raise Refusal(f"an array whose contents are a {type(raw).__name__}, expected bytes")
        check_contents(shape, dtype.real(), raw)
        self.budget -= len(raw)
        if self.budget < 0:
            raise Refusal("the arrays of the record are larger than the file")
        return raw


def check_contents(shape: tuple[int, ...], dtype: np.dtype, raw: bytes) -> None:
    """Refuse bytes that are not those of an array of this shape and plain type."""
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(raw):
        raise Refusal(
            f"an array of shape {shape} and type {dtype} needs {expected} bytes, "
            f"the record holds {len(raw)}"
        )
    if dtype.kind == "b" and raw.translate(None, b"\0\1"):
        raise Refusal("an array of bool holds other values than 0 and 1")
    if dtype.kind == "U":
        characters = np.frombuffer(raw, np.dtype(dtype.str[0] + "u4"))
        if characters.max(initial=0) > 0x10FFFF:
            raise Refusal("an array of text holds what is no character")


def _is_shape(value: object) -> bool:
    return (
        type(value) is tuple
        and len(value) <= MAX_RANK
        and all(type(size) is int and 0 <= size < 2**62 for size in value)
    )


def _set_byte_order(dtype: Dtype, state: object) -> None:
    """state: (3, order, subtype, names, fields, itemsize, alignment, flags)"""
    if (
        type(state) is not tuple
        or len(state) != 8
        or not isinstance(state[1], str)
        or state[1] not in ("<", ">", "|", "=")
        or any(part is not None for part in state[2:5])
        or type(state[5]) is not int
        or state[5] not in (-1, dtype.real().itemsize)
    ):
        raise Refusal(f"the state of {dtype} is not that of a plain type")
    dtype.order = state[1]


def _encode(text: object, encoding: object) -> bytes:
    """How protocols 0 to 2 write the bytes of Python 3."""
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise Refusal("_codecs.encode of other than text to latin-1")
    return text.encode("latin-1")


def _bytes(contents: object = b"", encoding: object = "latin-1") -> bytes:
    return contents if isinstance(contents, bytes) else _encode(contents, encoding)

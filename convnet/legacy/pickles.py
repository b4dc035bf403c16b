"""Python pickles as data: `read_pickle` interprets the opcodes and executes nothing.

A pickle is a program for a small stack machine, and Python's own reader lets that program import
and call anything; a filter on what it imports is not enough, since numpy's own constructors can be
fed states that crash the process. This machine knows the same opcodes (protocols 0 to 5) and makes
only None, bool, int, float, str, bytes, list, tuple, dict, set, and numpy arrays and scalars of
plain types (`pickled_numpy.py`). Any other name in the file is refused before anything is done
with it.

Rules, where a pickle leaves a choice:
- a `str` of Python 2 is a str, each byte the character of the same number (latin-1); where it is
  the contents of an array it is encoded back. `text.encode("latin-1")` gives the bytes of others;
- a bytearray is bytes, a `long` is an int;
- a key of a dict or an element of a set is a number, a text, bytes, None, or a tuple of these;
- data is a tree: what holds itself, or is nested more than 100 deep, is refused;
- no size in the file is believed: it is compared with the bytes present before anything is made.

`foreign=True` is for files that hold objects of their programs beside the data, as checkpoints do:
what would be refused as not data is a `Foreign` then, which says what the file says of it.
"""

from __future__ import annotations

import codecs
import os
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from convnet.errors import DataError, MissingInput
from convnet.legacy.pickled_numpy import Arrays, Dtype, Refusal, Symbol

MAX_DEPTH = 100
MAX_INTEGER = 1024  # bytes, or digits, of one integer


class Foreign:
    """A name, a call, an object or a reference of the program that wrote a pickle: what the file says of it, and no more.

    arguments  those it was called with or made of; None: a bare name
    state      what the file gives it as its contents
    """

    def __init__(self, name: str, arguments: tuple | None = None):
        self.name, self.arguments, self.state = name, arguments, None

    def __repr__(self) -> str:
        return f"<{self.name[:100]!r} of a pickle>"


PERSISTENT = "persistent id"  # the name of a reference to what is outside the pickle
SCALARS = (type(None), bool, int, float, str, bytes, np.generic)
DATA_ERRORS = (Refusal, ValueError, TypeError, OverflowError, MemoryError, struct.error)


def read_pickle(source: str | os.PathLike | bytes, foreign: bool = False, name: str = "<bytes>") -> object:
    """The value in a pickle: a file, or the bytes themselves, which messages call `name`.

    DataError names the file and the byte at which it stops being data; MissingInput says that
    the file cannot be opened.
    """
    if isinstance(source, bytes):
        data = source
    else:
        name = os.fspath(source)
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise MissingInput(f"{name}: cannot be read: {error.strerror}") from error
    machine = _Machine(data, foreign)
    try:
        return machine.run()
    except DATA_ERRORS as error:
        raise DataError(
            f"{name}: byte {machine.opcode_at}: {error}; expected a pickle of numbers, text, "
            "lists, dicts and arrays: is the file complete, and the right one?"
        ) from error


class _Machine:
    """The stack machine. `marks` holds the heights of the stack at which MARKs were set."""

    def __init__(self, data: bytes, foreign: bool):
        self.data = data
        self.foreign = foreign
        self.at = 0  # where the next byte is read
        self.opcode_at = 0  # where the opcode being interpreted stands, for messages
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.arrays = Arrays(budget=len(data))

    def run(self) -> object:
        while True:
            self.opcode_at = self.at
            opcode = self.take(1)
            if opcode == b".":
                return self.finish()
            if opcode not in OPCODES:
                raise Refusal(f"{opcode!r} is not an opcode of a pickle")
            OPCODES[opcode](self)

    def finish(self) -> object:
        value = self.pop()
        if self.stack or self.marks:
            raise Refusal(f"the record ends with {len(self.stack)} values left over")
        if self.at != len(self.data):
            raise Refusal(f"the record ends here, {len(self.data) - self.at} bytes follow it")
        self.arrays.check_all_filled()
        _check_plain(value)
        return value

    # Reading.

    def take(self, size: int) -> bytes:
        left = len(self.data) - self.at
        if size > left:
            raise Refusal(f"the file is truncated: {size} bytes should follow, {left} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Refusal("the file is truncated: the line does not end")
        return self.take(end + 1 - self.at)[:-1]

    # The stack and the memo.

    def push(self, value: object) -> None:
        self.stack.append(value)

    def _height(self) -> int:
        """How many values belong to those before the last MARK."""
        return self.marks[-1] if self.marks else 0

    def pop(self) -> object:
        if len(self.stack) <= self._height():
            raise Refusal("a value is used that nobody made (the stack is empty)")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        if not self.marks:
            raise Refusal("values are gathered that have no MARK below them")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def top(self, kind: type) -> object:
        if len(self.stack) <= self._height() or type(self.stack[-1]) is not kind:
            raise Refusal(f"items are added to what is not a {kind.__name__}")
        return self.stack[-1]

    def put(self, key: int) -> None:
        value = self.pop()
        self.memo[key] = value
        self.push(value)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise Refusal(f"memo {key} is used and was never stored")
        self.push(self.memo[key])

    # Containers.

    def set_items(self, values: list) -> None:
        target = self.top(dict)
        if len(values) % 2:
            raise Refusal("a dict has a key without a value")
        target.update(zip(map(_checked_key, values[::2]), values[1::2], strict=True))

    # Names, calls and states: only of what pickled_numpy knows.

    def name(self, module: object, name: object) -> None:
        try:
            self.push(self.arrays.symbol(module, name))
        except Refusal:
            if not self.foreign:
                raise
            self.push(Foreign(f"{module}.{name}"))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if isinstance(function, Foreign) and isinstance(arguments, tuple):
            self.make(function, arguments)
        elif not isinstance(function, Symbol) or not isinstance(arguments, tuple):
            raise Refusal(f"a {type(function).__name__} is called, which is not data")
        elif function.dotted == "builtins.set" and len(arguments) == 1:
            if type(arguments[0]) is not list:
                raise Refusal("a set is made of what is not a list")
            self.push(set(map(_checked_key, arguments[0])))
        else:
            self.push(self.arrays.call(function, arguments))

    def make(self, kind: object, arguments: tuple) -> None:
        """What a class of the writer would make; a dict that keeps its order is a dict, as ours are."""
        if not isinstance(kind, Foreign) or kind.arguments is not None:
            raise Refusal("an object is made of what is not a class")
        if kind.name != "collections.OrderedDict":
            self.push(Foreign(kind.name, arguments))
            return
        pairs = arguments[0] if arguments else []
        if type(pairs) is not list or not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            raise Refusal("an ordered dict is made of what are not pairs")
        self.push({_checked_key(key): value for key, value in pairs})

    def make_of_mark(self) -> None:
        kind, *arguments = self.pop_to_mark() or [None]
        self.make(kind, tuple(arguments))

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        self.push(target)
        if isinstance(target, Foreign):
            target.state = state
        elif not (self.foreign and type(target) is dict):  # the attributes of an ordered dict, which ours has not
            self.arrays.build(target, state)

    def skip_frame(self) -> None:
        """A frame says how many bytes belong together: nothing we need, but they must be there."""
        size, left = self.unsigned(8), len(self.data) - self.at
        if size > left:
            raise Refusal(f"the file is truncated: a frame of {size} bytes has {left}")

    def check_protocol(self) -> None:
        protocol = self.unsigned(1)
        if protocol > 5:
            raise Refusal(f"protocol {protocol} of pickle, known are 0 to 5")

    def drop(self) -> None:
        if self.marks and self._height() == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def duplicate(self) -> None:
        value = self.pop()
        self.stack += (value, value)


def _checked_key(key: object) -> object:
    """Hashing recurses in C without a limit, hence no tuples in tuples."""
    if not isinstance(key, SCALARS) and not (
        type(key) is tuple and all(isinstance(part, SCALARS) for part in key)
    ):
        raise Refusal(f"a {type(key).__name__} is the key of a dict or the element of a set")
    return key


def _check_plain(root: object) -> None:
    """Refuse names and types left in the data, and nesting that a reader could not walk."""
    seen: dict[int, int] = {}  # id of a container -> the deepest level at which it was visited

    def visit(value: object, level: int) -> None:
        if isinstance(value, (Symbol, Dtype)):
            raise Refusal(f"the record refers to {value}: not data")
        if not isinstance(value, (list, tuple, dict, set)) or seen.get(id(value), -1) >= level:
            return
        if level == MAX_DEPTH:
            raise Refusal(f"lists or dicts nested more than {MAX_DEPTH} deep, or in themselves")
        seen[id(value)] = level
        for child in value.values() if isinstance(value, dict) else value:
            visit(child, level + 1)

    visit(root, 0)


# What the bytes of a value mean.


def _latin1(raw: bytes) -> str:
    return raw.decode("latin-1")


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _long(raw: bytes) -> int:
    if len(raw) > MAX_INTEGER:
        raise Refusal(f"an integer of {len(raw)} bytes, at most {MAX_INTEGER} are read")
    return int.from_bytes(raw, "little", signed=True)


def _decimal(line: bytes) -> int:
    if not re.fullmatch(rb"[-+]?[0-9]{1,%d}L?" % MAX_INTEGER, line):
        raise Refusal(f"{_shown(line)} is not an integer")
    return int(line.rstrip(b"L"))


def _decimal_or_bool(line: bytes) -> int | bool:
    return line == b"01" if line in (b"00", b"01") else _decimal(line)


def _quoted(line: bytes) -> str:
    """A str as Python 2's repr writes it; escapes it never writes are refused."""
    inner = line[1:-1]
    bad_escape = rb"""\\(?!['"abfnrtv]|x[0-9a-fA-F]{2})"""
    if (
        len(line) < 2
        or line[:1] not in (b"'", b'"')
        or line[:1] != line[-1:]
        # A pattern for the whole line took ten times as long on an array of 88 MB.
        or re.search(bad_escape, inner.replace(rb"\\", b""))
    ):
        raise Refusal(f"{_shown(line)} is not a quoted string")
    return _latin1(codecs.escape_decode(inner)[0])


def _shown(raw: bytes) -> str:
    return repr(raw[:40]) + ("..." if len(raw) > 40 else "")


# The opcodes, each a function of the machine; letters and names are those of `pickletools`.


def _constant(value: object) -> Callable:
    return lambda m: m.push(value)


def _fixed(code: str) -> Callable:
    layout = struct.Struct(code)
    return lambda m: m.push(layout.unpack(m.take(layout.size))[0])


def _sized(width: int, decode: Callable) -> Callable:
    """A value after its own size, `width` bytes of it (a negative size reads as a huge one)."""
    return lambda m: m.push(decode(m.take(m.unsigned(width))))


def _line(decode: Callable) -> Callable:
    return lambda m: m.push(decode(m.line()))


def _tuple_of(count: int) -> Callable:
    return lambda m: m.push(tuple([m.pop() for _ in range(count)][::-1]))


def _refused(opcode: str, why: str, foreign: Callable | None = None) -> Callable:
    """An opcode of what is no data; `foreign`: what it does where objects of other programs are let in."""

    def refuse(m: _Machine) -> None:
        if not (m.foreign and foreign):
            raise Refusal(f"{opcode} {why}: not data")
        foreign(m)

    return refuse


def _instance(m: _Machine) -> None:
    name = f"{_latin1(m.line())[:99]}.{_latin1(m.line())[:99]}"
    if not m.foreign:
        raise Refusal(f"record refers to {name}: not data")
    m.make(Foreign(name), tuple(m.pop_to_mark()))


def _new_object(m: _Machine) -> None:
    arguments, kind = m.pop(), m.pop()
    if not isinstance(arguments, tuple):
        raise Refusal("an object is made of what is not a tuple")
    m.make(kind, arguments)


def _reference(m: _Machine, identity: object) -> None:
    m.push(Foreign(PERSISTENT, (identity,)))


def _set_item(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items([key, value])


def _append(m: _Machine, values: Iterable) -> None:
    m.top(list).extend(values)


def _add_items(m: _Machine) -> None:
    elements = m.pop_to_mark()
    m.top(set).update(map(_checked_key, elements))


def _dict_from_mark(m: _Machine) -> None:
    items = m.pop_to_mark()
    m.push({})
    m.set_items(items)


# fmt: off
OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    # constants and numbers
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False),
    b"I": _line(_decimal_or_bool), b"L": _line(_decimal), b"F": _line(float),
    b"K": _fixed("<B"), b"M": _fixed("<H"), b"J": _fixed("<i"), b"G": _fixed(">d"),
    b"\x8a": _sized(1, _long), b"\x8b": _sized(4, _long),
    # text and bytes
    b"S": _line(_quoted), b"U": _sized(1, _latin1), b"T": _sized(4, _latin1),
    b"V": _line(lambda line: line.decode("raw-unicode-escape")),
    b"\x8c": _sized(1, _utf8), b"X": _sized(4, _utf8), b"\x8d": _sized(8, _utf8),
    b"C": _sized(1, bytes), b"B": _sized(4, bytes), b"\x8e": _sized(8, bytes),
    b"\x96": _sized(8, bytes),
    # containers
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"]": lambda m: m.push([]), b"}": lambda m: m.push({}), b")": _constant(()),
    b"\x8f": lambda m: m.push(set()),
    b"l": lambda m: m.push(m.pop_to_mark()), b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"d": _dict_from_mark,
    b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"a": lambda m: _append(m, [m.pop()]), b"e": lambda m: _append(m, m.pop_to_mark()),
    b"s": _set_item, b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"\x90": _add_items,
    # stack and memo
    b"0": _Machine.drop, b"1": _Machine.pop_to_mark, b"2": _Machine.duplicate,
    b"p": lambda m: m.put(_decimal(m.line())), b"q": lambda m: m.put(m.unsigned(1)),
    b"r": lambda m: m.put(m.unsigned(4)), b"\x94": lambda m: m.put(len(m.memo)),
    b"g": lambda m: m.get(_decimal(m.line())), b"h": lambda m: m.get(m.unsigned(1)),
    b"j": lambda m: m.get(m.unsigned(4)),
    b"\x80": _Machine.check_protocol, b"\x95": _Machine.skip_frame,
    # names and calls
    b"c": lambda m: m.name(_utf8(m.line()), _utf8(m.line())),
    b"\x93": lambda m: m.name(*reversed([m.pop(), m.pop()])),
    b"R": _Machine.call, b"b": _Machine.build,
    # what makes objects of classes, or refers to what is not in the file
    b"i": _instance,
    b"o": _refused("OBJ", "makes an object of a class", _Machine.make_of_mark),
    b"\x81": _refused("NEWOBJ", "makes an object of a class", _new_object),
    b"\x92": _refused("NEWOBJ_EX", "makes an object of a class"),
    b"\x91": _refused("FROZENSET", "makes a frozenset"),
    b"P": _refused("PERSID", "refers to another file", lambda m: _reference(m, _latin1(m.line()))),
    b"Q": _refused("BINPERSID", "refers to another file", lambda m: _reference(m, m.pop())),
    b"\x82": _refused("EXT1", "refers to a registry"),
    b"\x83": _refused("EXT2", "refers to a registry"),
    b"\x84": _refused("EXT4", "refers to a registry"),
    b"\x97": _refused("NEXT_BUFFER", "refers to a buffer outside the file"),
    b"\x98": _refused("READONLY_BUFFER", "refers to a buffer outside the file"),
}
# fmt: on

"""The reader of pickles gives the data of honest files and executes nothing of the others."""

from __future__ import annotations

import collections
import contextlib
import pickle
import struct
import warnings

import numpy as np
import pytest

from convnet.errors import DataError, MissingInput
from convnet.legacy.pickles import Foreign, read_pickle

# Written by Python 2.7.18 and numpy 1.16.6, cPickle.dumps(record, protocol), of
# {"data": uint8 (3, 4), columns first, 250.. wrapping, "labels": [1, 0, 2, 300],
#  "mean": float32 [[0.5], [-2]], "name": "caf\xe9\n", "u": u"\u20ac", "big": 2**70, "neg": -3L,
#  "x": 1.5, "t": (1, (), ("a",)), "none": None, "yes": True, "s": float64(2.5), "i": int64(-7)}
PYTHON2 = {
    0: b"(dp1\nS'big'\np2\nL1180591620717411303424L\nsS'labels'\np3\n(lp4\nI1\naI0\naI2\naI300\na"
    b"sS'yes'\np5\nI01\nsS'data'\np6\ncnumpy.core.multiarray\n_reconstruct\np7\n(cnumpy\nndarray\n"
    b"p8\n(I0\ntS'b'\ntRp9\n(I1\n(I3\nI4\ntcnumpy\ndtype\np10\n(S'u1'\nI0\nI1\ntRp11\n(I3\nS'|'\n"
    b"NNNI-1\nI-1\nI0\ntbI01\nS'\\xfa\\xfe\\x02\\xfb\\xff\\x03\\xfc\\x00\\x04\\xfd\\x01\\x05'\n"
    b"tbsS'none'\np12\nNsS'name'\np13\nS'caf\\xe9\\n'\np14\nsS'i'\ncnumpy.core.multiarray\nscalar"
    b"\np15\n(g10\n(S'i8'\nI0\nI1\ntRp16\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbS'\\xf9\\xff\\xff\\xff"
    b"\\xff\\xff\\xff\\xff'\ntRp17\nsS'neg'\np18\nL-3L\nsS's'\ng15\n(g10\n(S'f8'\nI0\nI1\ntRp19\n"
    b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbS'\\x00\\x00\\x00\\x00\\x00\\x00\\x04@'\ntRp20\nsS'u'\n"
    b"V\\u20ac\nsS't'\n(I1\n(t(S'a'\ntp21\ntp22\nsS'x'\nF1.5\nsS'mean'\np23\ng7\n(g8\n(I0\nt"
    b"S'b'\ntRp24\n(I1\n(I2\nI1\ntg10\n(S'f4'\nI0\nI1\ntRp25\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    b"S'\\x00\\x00\\x00?\\x00\\x00\\x00\\xc0'\ntbs.",
    2: b"\x80\x02}q\x01(U\x03bigq\x02\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@U\x06labelsq\x03]q"
    b"\x04(K\x01K\x00K\x02M,\x01eU\x03yesq\x05\x88U\x04dataq\x06cnumpy.core.multiarray\n"
    b"_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t(K\x01K\x03K\x04\x86cnumpy\n"
    b"dtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
    b"tb\x88U\x0c\xfa\xfe\x02\xfb\xff\x03\xfc\x00\x04\xfd\x01\x05tbU\x04noneq\x0cNU\x04nameq\r"
    b"U\x05caf\xe9\nq\x0eU\x01icnumpy.core.multiarray\nscalar\nq\x0fh\nU\x02i8K\x00K\x01\x87Rq"
    b"\x10(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\xf9\xff\xff\xff\xff\xff"
    b"\xff\xff\x86Rq\x11U\x03negq\x12\x8a\x01\xfdU\x01sh\x0fh\nU\x02f8K\x00K\x01\x87Rq\x13(K\x03"
    b"U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\x00\x00\x00\x00\x00\x00\x04@\x86Rq"
    b"\x14U\x01uX\x03\x00\x00\x00\xe2\x82\xacU\x01tK\x01)U\x01a\x85q\x15\x87U\x01xG?\xf8\x00\x00"
    b"\x00\x00\x00\x00U\x04meanq\x16h\x07h\x08K\x00\x85U\x01b\x87Rq\x17(K\x01K\x02K\x01\x86h\nU"
    b"\x02f4K\x00K\x01\x87Rq\x18(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
    b"\x00\x00\x00?\x00\x00\x00\xc0tbu.",
}

RECORD = {
    "data": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "columns_first": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "permuted": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2),
    "big_endian": np.arange(3, dtype=">i4"),
    "labels": [0, -1, 255, 256, 70000, 2**40, -(2**70)],
    "flags": np.array([True, False]),
    "none": np.zeros((0, 5)),
    "text": np.array(["cat", "dog"]),
    "raw": np.array([b"cat", b"do"]),
    "scalar": np.float64(2.5),
    "half": np.float16(-2),
    "bytes": b"\x00\xff",
    "no bytes": b"",
    "name": "caf\xe9\n\u20ac'\\",
    "nested": (1, (), [2.5, None, True, {"a": "b"}]),
    "set": {1, "a", (2, 3)},
    (1, "a"): float("inf"),
}


def same(left: object, right: object) -> bool:
    """Equal in value, type, order of bytes and writability."""
    if isinstance(left, np.ndarray):
        return (
            type(right) is np.ndarray
            and left.dtype == right.dtype
            and np.array_equal(left, right)
            and right.flags.writeable
        )
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        equal = type(left) is type(right) and len(left) == len(right)
        return equal and all(map(same, left, right))
    return type(left) is type(right) and left == right


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set)):
        return all(map(is_plain, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in "biufSU" and isinstance(value.tolist(), object)
    return value is None or type(value) in (bool, int, float, str, bytes)


def refused(data: bytes, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_pickle(data)
    for word in (*words, "byte "):
        assert word in str(caught.value)


@pytest.mark.parametrize("protocol", PYTHON2)
def test_python_2_records_are_read(protocol):
    record = read_pickle(PYTHON2[protocol])
    expected = {
        "data": np.array([[250, 251, 252, 253], [254, 255, 0, 1], [2, 3, 4, 5]], np.uint8),
        "labels": [1, 0, 2, 300],
        "mean": np.array([[0.5], [-2]], np.float32),
        "name": "caf\xe9\n",
        "u": "\u20ac",
        "big": 2**70,
        "neg": -3,
        "x": 1.5,
        "t": (1, (), ("a",)),
        "none": None,
        "yes": True,
        "s": np.float64(2.5),
        "i": np.int64(-7),
    }
    assert same({key: record[key] for key in expected}, expected) and len(record) == len(expected)


@pytest.mark.parametrize("protocol", range(6))
def test_python_3_records_are_read_in_every_protocol(protocol):
    read = read_pickle(pickle.dumps(RECORD, protocol))
    # numpy itself forgets the order of bytes in some protocols; the values are what counts
    expected = pickle.loads(pickle.dumps(RECORD, protocol))
    assert same(expected, read)


def test_files_are_read_and_named_in_errors(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps([1, 2], 2))
    assert read_pickle(path) == [1, 2] == read_pickle(str(path))
    path.write_bytes(pickle.dumps([1, 2], 2)[:-1])
    with pytest.raises(DataError, match=r"data_batch_1: byte \d+: the file is truncated"):
        read_pickle(path)
    with pytest.raises(MissingInput, match="data_batch_2: cannot be read: No such file"):
        read_pickle(tmp_path / "data_batch_2")


def test_shared_values_stay_shared():
    array = np.arange(3)
    first, second = read_pickle(pickle.dumps([array, array], 2))
    assert first is second and np.array_equal(first, array)


def test_bytearrays_are_bytes():
    for protocol in range(6):
        assert read_pickle(pickle.dumps([bytearray(b"ab"), bytearray()], protocol)) == [b"ab", b""]


# What would execute.


class Calls:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_refused_by_name_and_not_made(protocol, tmp_path):
    made = tmp_path / "made"
    refused(pickle.dumps(Calls(open, str(made), "w"), protocol), "io.open", "not data")
    assert not made.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    {
        "system": (b"cos\nsystem\n(S'true'\ntR.", ["os.system: not data"]),
        "instance": (b"(S'true'\nios\nsystem\n.", ["os.system: not data"]),
        "uncalled": (b"cos\nsystem\n.", ["os.system: not data"]),
        "stack global": (b"\x8c\x02os\x8c\x06system\x93.", ["os.system: not data"]),
        "name not text": (b"K\x01K\x02\x93.", ["not data"]),
        "object": (b"(cnumpy\nndarray\no.", ["OBJ", "not data"]),
        "new object": (b"cnumpy\nndarray\n)\x81.", ["NEWOBJ", "not data"]),
        "class called": (b"cnumpy\nndarray\n(tR.", ["numpy.ndarray", "not data"]),
        "value called": (b"K\x01)R.", ["int is called"]),
        "list given a state": (b"]}b.", ["a list is given a state"]),
        "type left over": (b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR.", ["the type u1", "not data"]),
        "name in a list": (b"]cnumpy\nndarray\na.", ["numpy.ndarray", "not data"]),
        "persistent": (b"Pfile\n.", ["another file"]),
        "extension": (b"\x82\x01.", ["registry"]),
        "buffer outside": (b"\x97.", ["outside the file"]),
        "another codec": (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", ["latin-1"]),
    }.values(),
)
def test_other_names_and_objects_are_refused(data, words):
    refused(data, *words)


def test_classes_of_the_library_are_refused_by_name():
    refused(pickle.dumps(collections.OrderedDict(a=1), 2), "collections.OrderedDict")
    refused(pickle.dumps(np.ma.zeros(3), 2), "numpy.ma")
    refused(pickle.dumps(Calls(eval, "1"), 4), "builtins.eval")


# Arrays that lie.


def array_record(shape=b"K\x02K\x03\x86", code=b"u1", state=None, contents=b"012345") -> bytes:
    """A pickled array, by default uint8 of shape (2, 3)."""
    if state is None:
        state = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
        + state + b"b\x89T" + struct.pack("<I", len(contents)) + contents + b"tb."
    )


def test_the_hand_made_array_is_read():
    expected = np.array([[48, 49, 50], [51, 52, 53]], np.uint8)
    assert same(read_pickle(array_record()), expected)


@pytest.mark.parametrize("code", [b"O", b"O8", b"V6", b"M8", b"c8", b"f16", b"S0", b"u3", b"i4,i4"])
def test_types_that_are_not_plain_are_refused(code):
    refused(array_record(code=code), f"type '{code.decode()}'")


def test_sizes_are_compared_with_the_bytes_present():
    huge = b"\x8a\x05\0\0\0\0\x01" * 2 + b"\x86"
    refused(array_record(shape=huge), "needs 18446744073709551616 bytes", "holds 6")
    refused(array_record(shape=b"K\x02K\x04\x86"), "needs 8 bytes", "holds 6")
    refused(array_record(shape=b"K\x02J\xfd\xff\xff\xff\x86"), "shape or type is neither")
    refused(array_record(code=b"u2"), "needs 12 bytes")
    refused(array_record(code=b"S9999999"), "needs 59999994 bytes")
    refused(array_record(contents=b""), "holds 0")


def test_one_stored_string_makes_no_heap_of_arrays():
    one = array_record(contents=bytes(60000), shape=b"M\x60\xea\x85")
    start, end = one.index(b"cnumpy.core"), one.index(b"T\x60\xea")
    build = one[start:end]
    stored = one[end:-3] + b"q\x00"
    refused(b"\x80\x02(" + stored + (build + b"h\x00tb") * 2 + b"l.", "larger than the file")


@pytest.mark.parametrize(
    "state",
    {
        "subtype": b"(K\x03U\x01|U\x02u1NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        "fields": b"(K\x03U\x01|N(U\x01at}J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        "size": b"(K\x03U\x01|NNNK\x10J\xff\xff\xff\xffK\x00t",
        "order": b"(K\x03U\x01?NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        "short": b"(K\x03U\x01|t",
        "no tuple": b"K\x03",
    }.values(),
)
def test_forged_states_of_a_type_are_refused(state):
    refused(array_record(state=state), "the state of the type u1")


def test_values_that_no_array_of_its_type_holds_are_refused():
    refused(array_record(code=b"b1"), "other values than 0 and 1")
    refused(array_record(code=b"U1", shape=b"K\x01\x85", contents=b"\xff" * 4), "no character")


def test_an_array_without_or_with_two_states_is_refused():
    record = array_record()
    refused(record[: record.index(b"(K\x01")] + b".", "no contents")
    refused(record[:-1] + b"}b.", "given a state")


# Damage.


def test_deep_nesting_is_refused():
    refused(b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 100 deep")
    refused(b")" + b"\x85" * 200_000 + b".", "nested more than 100 deep")
    refused(b"}" + b")" + b"\x85" * 200_000 + b"Ns.", "key of a dict")
    refused(b"]q\x00h\x00a.", "in themselves")
    assert read_pickle(b"]" * 100 + b"a" * 99 + b".")


def test_lists_shared_many_times_are_walked_once():
    doubled = b"]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(60))
    assert len(read_pickle(doubled + b".")) == 2


@pytest.mark.parametrize(
    ("data", "word"),
    {
        "empty": (b"", "truncated"),
        "not a pickle": (b"\x1f\x8b\x08", "not an opcode"),
        "empty stack": (b"0.", "stack is empty"),
        "nothing left": (b".", "stack is empty"),
        "too much left": (b"NN.", "left over"),
        "bytes after it": (b"N.N", "1 bytes follow"),
        "no mark": (b"Nt.", "no MARK"),
        "open mark": (b"N(.", "stack is empty"),
        "memo never stored": (b"h\x05.", "memo 5"),
        "huge text": (b"T\xff\xff\xff\xffabc.", "4294967295 bytes should follow, 4 are left"),
        "huge long": (b"\x8b\xff\xff\xff\xff.", "truncated"),
        "huge frame": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "frame of"),
        "large integer": (b"\x8b\x00\x08\x00\x00" + b"\x01" * 2048 + b".", "2048 bytes"),
        "long decimal": (b"L" + b"9" * 5000 + b"L\n.", "not an integer"),
        "no decimal": (b"Ix\n.", "not an integer"),
        "no float": (b"Fx\n.", "could not convert"),
        "no quotes": (b"Sx\n.", "not a quoted string"),
        "bad escape": (b"S'\\q'\n.", "not a quoted string"),
        "open escape": (b"S'a\\'\n.", "not a quoted string"),
        "bad utf-8": (b"\x8c\x01\xff.", "utf-8"),
        "key without value": (b"}(Nu.", "without a value"),
        "list as key": (b"}]Ns.", "a list is the key"),
        "append to a tuple": (b")Na.", "not a list"),
        "newer protocol": (b"\x80\x06N.", "protocol 6"),
    }.values(),
)
def test_damage_is_named(data, word):
    refused(data, word)


SAMPLES = [*PYTHON2.values(), *(pickle.dumps(RECORD, protocol) for protocol in (0, 2, 3, 5))]


def test_a_file_cut_at_any_byte_is_refused():
    for sample in SAMPLES:
        for size in range(len(sample)):
            refused(sample[:size])


def test_flipped_bytes_give_data_or_a_data_error():
    random = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sample in SAMPLES:
            for _ in range(500):
                damaged = bytearray(sample)
                for place in random.integers(0, len(sample), random.integers(1, 4)):
                    damaged[place] = random.integers(0, 256)
                with contextlib.suppress(DataError):
                    assert is_plain(read_pickle(bytes(damaged)))


def test_random_opcodes_give_data_or_a_data_error():
    random = np.random.default_rng(2)
    record = array_record()
    pieces = [bytes([byte]) for byte in b"(.0125NabdehlqRstu)]}\x85\x86\x87\x88\x8f\x90\x93\x94"]
    pieces += [b"K\x00", b"U\x01b", b"U\x02u1", b"h\x00", b"q\x00", record[2:-1]]
    pieces += [b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c__builtin__\nset\n"]
    pieces += [b"cnumpy.core.multiarray\nscalar\n"]
    for _ in range(3000):
        program = b"".join(pieces[i] for i in random.integers(0, len(pieces), 12)) + b"."
        with contextlib.suppress(DataError):
            assert is_plain(read_pickle(program))


# Objects of other programs, beside the data.


class Thing:
    pass


@pytest.mark.parametrize("protocol", range(6))
def test_foreign_objects_are_told_and_not_made(protocol, tmp_path):
    made = tmp_path / "made"
    thing = Thing()
    thing.size = 3
    record = {"call": Calls(open, str(made), "w"), "thing": thing, "ordered": collections.OrderedDict(b=1, a=np.arange(3))}
    read = read_pickle(pickle.dumps(record, protocol), foreign=True)
    assert (read["call"].name, read["call"].arguments) == ("io.open", (str(made), "w")) and not made.exists()
    assert isinstance(read["thing"], Foreign) and read["thing"].state == {"size": 3}
    assert list(read["ordered"]) == ["b", "a"] and read["ordered"]["a"].tolist() == [0, 1, 2]


def test_old_instances_references_and_bare_names_are_told():
    instance, old, reference, name = read_pickle(b"(lp0\n(I1\nioptions\nOption\n(dS'x'\nI2\nsba(coptions\nOption\nI1\noaPfile\nacoptions\nParser\na.", foreign=True)
    assert (instance.name, instance.arguments, instance.state) == ("options.Option", (1,), {"x": 2})
    assert (old.name, old.arguments, old.state) == ("options.Option", (1,), None)
    assert (reference.name, reference.arguments) == ("persistent id", ("file",))
    assert (name.name, name.arguments) == ("options.Parser", None)


@pytest.mark.parametrize("data", [b"cx\nY\n)R)R.", b"ccollections\nOrderedDict\n(K\x01tR.", b"ccollections\nOrderedDict\n(](NetR.", b"(o.", b"NN\x81.",
                                  b"ccollections\nOrderedDict\n(]((]Nletatt.", b"}cx\nY\nNs."])
def test_foreign_objects_that_nobody_writes_are_refused(data):
    with pytest.raises(DataError):
        read_pickle(data, foreign=True)


def test_flipped_bytes_beside_foreign_objects_give_a_value_or_a_data_error():
    random = np.random.default_rng(3)
    sample = pickle.dumps({"thing": Thing(), "ordered": collections.OrderedDict(a=np.arange(3)), "call": Calls(eval, "1/0")}, 2)
    for _ in range(2000):
        damaged = bytearray(sample)
        for place in random.integers(0, len(sample), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(DataError):
            read_pickle(bytes(damaged), foreign=True)

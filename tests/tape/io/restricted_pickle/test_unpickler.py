"""Pickles from untrusted files: hostile ones are refused without running, lying and bounded ones; data are loaded."""

from __future__ import annotations

import pickle
import pickletools
import resource
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tape.errors import DataError
from tape.io.restricted_pickle import bounds, restricted_loads, unpickler
from tests.support.pickle_assembler import (
    FALSE,
    NONE,
    TRUE,
    build,
    call,
    dict_of,
    doubled,
    integer,
    list_of,
    name,
    pickled,
    raw,
    text,
    tuple_of,
)

RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
SCALAR = name("numpy._core.multiarray", "scalar")
FROM_BUFFER = name("numpy._core.numeric", "_frombuffer")
EMPTY_ARRAY = call(RECONSTRUCT, name("numpy", "ndarray"), tuple_of(integer(0)), raw(b"b"))
MINUS_ONE = integer(-1)


def dtype(code: str, *state: bytes) -> bytes:
    """A data type with its state, which is that of a native number by default."""
    made = call(name("numpy", "dtype"), text(code), FALSE, TRUE)
    parts = state or (integer(3), text("<"), NONE, NONE, NONE, MINUS_ONE, MINUS_ONE, integer(0))
    return build(made, tuple_of(*parts))


def array(shape: bytes, kind: bytes, data: bytes) -> bytes:
    return build(EMPTY_ARRAY, tuple_of(integer(1), shape, kind, FALSE, data))


OBJECTS = call(name("numpy", "dtype"), text("O8"), FALSE, TRUE)
# a data type of raw bytes whose state makes it a structure with a pointer in it
LYING = build(
    call(name("numpy", "dtype"), text("V8"), FALSE, TRUE),
    tuple_of(
        integer(3),
        text("|"),
        NONE,
        tuple_of(text("a")),
        dict_of(text("a"), tuple_of(OBJECTS, integer(0))),
        *(integer(8), integer(1), integer(0)),
    ),
)
POINTER = raw(b"A" * 8)
FLOATS = dtype("f8")


def load(*instructions: bytes) -> Any:
    return restricted_loads(pickled(*instructions), "file, record 3")


# bug 35 in docs/compatibility.md
@pytest.mark.parametrize(
    "hostile",
    [
        call(name("numpy", "ndarray"), tuple_of(integer(1)), OBJECTS, POINTER),
        call(name("numpy", "ndarray"), tuple_of(integer(1)), FLOATS, POINTER),
        call(SCALAR, OBJECTS, POINTER),
        call(SCALAR, LYING, POINTER),
        call(FROM_BUFFER, POINTER, LYING, tuple_of(integer(1)), text("C")),
        array(tuple_of(integer(1)), LYING, POINTER),
        array(tuple_of(integer(1)), OBJECTS, list_of(text("a"))),
        dtype("f8", integer(3), text("<"), NONE, NONE, NONE, integer(4), MINUS_ONE, integer(0)),
        dtype("f8", integer(3), text("<"), tuple_of(FLOATS, tuple_of(integer(1 << 40))), *[NONE] * 2, *[MINUS_ONE] * 3),
        dtype("U2", integer(3), text("<"), NONE, NONE, NONE, integer(1 << 30), integer(4), integer(8)),
        dtype("f8", integer(3), text("<"), NONE, NONE, NONE, MINUS_ONE, MINUS_ONE, integer(63)),
        call(name("numpy", "dtype"), text("M8[ns]"), FALSE, TRUE),
        call(name("numpy", "dtype"), text("f8,O8"), FALSE, TRUE),
        call(name("numpy", "dtype"), text("S999999999999"), FALSE, TRUE),
        name("numpy", "float64"),
    ],
)
def test_bytes_never_become_pointers_or_structures(hostile: bytes) -> None:
    with pytest.raises(DataError, match="file, record 3: refused or damaged"):
        load(list_of(hostile))


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        (tuple_of(integer(1 << 40)), raw(b"")),
        (tuple_of(integer(2)), raw(b"A" * 15)),
        (tuple_of(integer(-1), integer(-1)), raw(b"A" * 8)),
        (tuple_of(integer(1 << 63), integer(2)), raw(b"")),
        (tuple_of(*[integer(1)] * 40), raw(b"A" * 8)),
        (tuple_of(text("a")), raw(b"A" * 8)),
        (tuple_of(integer(1)), integer(8)),
    ],
)
def test_an_arrays_size_must_be_that_of_its_bytes(shape: bytes, data: bytes) -> None:
    with pytest.raises(DataError):
        load(array(shape, FLOATS, data))


def test_values_that_numpy_does_not_define_are_refused() -> None:
    with pytest.raises(DataError, match="booleans"):
        load(array(tuple_of(integer(1)), dtype("b1"), raw(b"\x02")))
    letters = dtype("U1", integer(3), text("<"), NONE, NONE, NONE, integer(4), integer(4), integer(8))
    with pytest.raises(DataError, match="no characters"):
        load(array(tuple_of(integer(1)), letters, raw(b"\xff" * 4)))


@pytest.mark.parametrize(
    "instance",
    [
        name("collections", "OrderedDict"),
        name("_codecs", "encode"),
        name("numpy", "ndarray"),
        name("numpy", "dtype"),
        FLOATS,
        list_of(),
        dict_of(),
        raw(b"a"),
    ],
)
@pytest.mark.parametrize("state", [dict_of(text("x"), integer(1)), tuple_of(NONE, dict_of(text("x"), integer(1)))])
def test_a_state_never_sets_attributes(instance: bytes, state: bytes) -> None:
    with pytest.raises(DataError, match="sets attributes of"):
        load(build(instance, state))
    assert not any(hasattr(kind, "x") for kind in (OrderedDict, np.ndarray, np.dtype))


def test_attributes_of_an_ordered_dictionary_are_dropped() -> None:
    loaded = load(build(call(name("collections", "OrderedDict")), dict_of(text("_metadata"), integer(1))))
    assert loaded == OrderedDict()
    assert not vars(loaded)


@pytest.mark.parametrize(
    "incomplete",
    [
        name("builtins", "set"),
        name("numpy", "ndarray"),
        EMPTY_ARRAY,
        call(name("numpy", "dtype"), text("f8"), FALSE, TRUE),
        tuple_of(name("_codecs", "encode"), integer(1)),
        dict_of(text("a"), list_of(name("builtins", "complex"))),
    ],
)
def test_neither_names_nor_unfinished_objects_are_values(incomplete: bytes) -> None:
    with pytest.raises(DataError, match="incomplete"):
        load(incomplete)


@pytest.mark.parametrize(
    "code",
    [
        b"\x82\x01",  # EXT1
        b"\x83\x01\x00",  # EXT2
        b"\x84\x01\x00\x00\x00",  # EXT4
        b"\x97",  # NEXT_BUFFER
        raw(b"a") + b"\x98",  # READONLY_BUFFER
        b"Pos.system\n",  # PERSID
        text("x") + b"Q",  # BINPERSID
        b"(Vtrue\nios\nsystem\n",  # INST
        b"(" + name("os", "system") + text("true") + b"o",  # OBJ
        name("subprocess", "Popen") + tuple_of(text("true")) + b"\x81",  # NEWOBJ
        name("collections", "OrderedDict") + b")}" + b"\x92" + b"(",  # NEWOBJ_EX, then a mark that nothing closes
        text("os") + text("system") + b"\x93" + tuple_of(text("true")) + b"R",  # STACK_GLOBAL
        call(text("x")),
        b"\x80\x06",
    ],
)
def test_other_instructions_are_refused(code: bytes) -> None:
    with pytest.raises(DataError):
        load(code)


def test_every_instruction_is_in_one_table_but_those_of_buffers_outside_the_file() -> None:
    tables = (unpickler._OPERATIONS, unpickler._LITERALS, unpickler._ARGUMENT_OPERATIONS, {unpickler._STOP})
    known = sorted(code for table in tables for code in table)
    assert known == sorted(
        {ord(opcode.code) for opcode in pickletools.opcodes} - {*pickle.NEXT_BUFFER, *pickle.READONLY_BUFFER}
    )


@pytest.mark.parametrize(
    "bomb",
    [
        doubled(60),
        doubled(60, b"(%bt", b")"),
        doubled(60, b"}(K\x00%bK\x01\x86u".replace(b"%bK\x01\x86", b"%b\x86"), b"}"),
        call(name("_codecs", "encode"), doubled(60)),
        call(name("collections", "OrderedDict"), tuple_of(doubled(60))),
        dict_of(doubled(60, b"(%bt", b")"), NONE),
        doubled(60) + b"(" + doubled(60) + b"iso\nsystem\n",
    ],
)
def test_lists_that_double_at_every_level_are_refused_at_once(bomb: bytes) -> None:
    with pytest.raises(DataError) as caught:
        load(bomb)
    assert len(str(caught.value)) < 1000


def test_an_index_of_the_memo_takes_no_memory_and_has_32_bits() -> None:
    assert load(b"Nr\xff\xff\xff\xff") is None
    for index in (b"-1", b"2305843009213693951"):  # 2^61 - 1, whose multiples have equal hashes
        with pytest.raises(DataError, match="memo"):
            load(b"Np" + index + b"\n")


@pytest.mark.parametrize(
    "key",
    [
        b")" + b"\x85" * 100_000,  # hashing nested tuples recurses
        integer((1 << 61) - 1),
        call(name("builtins", "complex"), b"G" + bytes(8), b"G" + bytes(8)),
        tuple_of(*[text("a")] * 1000),
        list_of(),
        call(name("builtins", "frozenset")),
        call(SCALAR, dtype("c16"), raw(bytes(16))),
    ],
)
def test_keys_with_slow_or_predictable_hashes_are_refused(key: bytes) -> None:
    with pytest.raises(DataError, match="key"):
        load(dict_of(key, NONE))
    with pytest.raises(DataError, match="key"):
        load(b"\x8f(", key, b"\x90")
    with pytest.raises(DataError, match="key"):
        load(call(name("builtins", "set"), list_of(key)))
    with pytest.raises(DataError, match="key"):
        load(call(name("collections", "OrderedDict"), list_of(tuple_of(key, NONE))))


def test_deep_nesting_and_containers_in_themselves_are_refused() -> None:
    with pytest.raises(DataError, match="levels"):
        load(b")" + b"\x85" * 100_000)
    with pytest.raises(DataError, match="contains itself"):
        load(b"]q\x00h\x00a")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A limit of 2 GB beyond what the process has now."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x96" + (1 << 40).to_bytes(8, "little"), "declared"),  # BYTEARRAY8
        (b"\x8e" + (1 << 62).to_bytes(8, "little"), "declared"),  # BINBYTES8
        (b"\x8d" + (1 << 63).to_bytes(8, "little"), "declared"),  # BINUNICODE8
        (b"\x95" + (1 << 40).to_bytes(8, "little"), "declared"),  # FRAME
        (b"T\xff\xff\xff\x7f", "declared"),  # BINSTRING
        (b"T\xff\xff\xff\xff", "declared"),
        (b"\x8b\xff\xff\xff\x7f", "integer of"),  # LONG4
        (b"\x8b\x00\x00\x10\x00" + bytes(1 << 20), "integer of"),
        (b"L" + b"9" * 100_000 + b"L\n", "integer of"),
        (call(name("builtins", "bytearray"), integer(1 << 40)), "unexpected arguments"),
        (array(tuple_of(integer(1 << 37)), FLOATS, raw(b"")), "bytes"),
        (text("A" * (1 << 20)) + b"q\x000(" + call(name("builtins", "bytearray"), b"h\x00") * 5000, "larger than"),
        (b"(" + text("A" * (1 << 20)) + b"q\x00" + b"h\x00" * 100_000 + b"l", "more than"),
        (b"(" + doubled(28) + b"l", "more than"),
    ],
)
def test_memory_is_bounded_by_the_size_of_the_file(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(content)


@pytest.mark.parametrize(
    "content", [b"\x8f" * 251, b"(" * 1001, b"N" + b"\x94" * 1001, b"]" * 1001, b"N" + b"\x85" * 1001]
)
def test_the_number_of_objects_is_bounded(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_MOST_OBJECTS", 1000)
    with pytest.raises(DataError, match="more than 1,000 objects"):
        load(content)


VALUES = [
    {"primary": "MKV", "id": b"1abc\xff", "protein_length": 3, "tertiary": np.zeros((3, 3), "f4"), "none": None},
    [True, False, 1.5, -3, 1 << 70, 2 + 1j, (), ("a", (1,)), "\u00e9", bytearray(b"ab"), b""],
    OrderedDict(a=frozenset({1, "b"}), b={"x", (None, "y")}),
    [np.float32(1.5), np.int64(-2), np.bool_(True), np.str_("ab"), np.bytes_(b"ab"), np.dtype(">i2"), np.dtype("S5")],
    [np.arange(6, dtype=">u2").reshape(2, 3), np.asfortranarray(np.eye(3)), np.array(["a", "bcd"]), np.zeros((0, 3))],
    [np.array(2.5), np.array([b"a", b"bc"]), np.array([True, False]), np.array([1 + 2j])],
    {"shared": [value := np.arange(3), value, "text", "text"]},
    random_state := np.random.RandomState(1).get_state(),
]


def equal(one: object, other: object) -> bool:
    """Equality of values, types and data types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_data_of_every_protocol_are_loaded(value: Any, protocol: int) -> None:
    assert equal(restricted_loads(pickle.dumps(value, protocol), "here"), value)


def test_loaded_arrays_can_be_written_to() -> None:
    loaded = restricted_loads(pickle.dumps(np.zeros(3)), "here")
    loaded[0] = 1
    assert loaded[0] == 1


@pytest.mark.parametrize(
    "old",
    [
        b"(dp0\nS'primary'\np1\nS'MKV'\np2\nsS'id'\np3\nS'1abc\\xff'\np4\nsS'n'\nI3\nsS'm'\nL3L\nsS'flag'\nI01\ns.",
        b"\x80\x02}q\x00(U\x07primaryU\x03MKVU\x02idU\x051abc\xffU\x01nK\x03U\x01mK\x03U\x04flag\x88u.",
    ],
)
def test_python_2s_byte_strings_are_text(old: bytes) -> None:
    assert restricted_loads(old, "here") == {"primary": "MKV", "id": "1abc\xff", "n": 3, "m": 3, "flag": True}


def test_python_2s_arrays_are_loaded() -> None:
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    state = b"(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    loaded = restricted_loads(made + state + b"S'\\x00\\x00\\xc0?\\x00\\x00\\x00\\x00'\ntb.", "here")
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [1.5, 0.0]


# --- generated pickles ----------------------------------------------------------------------------------------------

NAMES = [
    ("builtins", "set"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "eval"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("os", "system"),
]
PARTS = st.one_of(
    st.sampled_from([bytes([code]) for code in range(256)]),
    st.sampled_from([bytes([code]) for code in b"()]}\x85\x86\x87tleausRbo\x81\x90\x91\x92\x93\x9420N\x88\x89"]),
    st.sampled_from([name(*one) for one in NAMES]),
    st.sampled_from([FLOATS, EMPTY_ARRAY, OBJECTS, POINTER, tuple_of(integer(1)), text("C"), raw(b"b"), text("<")]),
    st.sampled_from([b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"2", b"(h\x00h\x00e", b"(h\x00h\x00t"]),
    st.integers(-(2**70), 2**70).map(integer),
    st.text(st.characters(codec="utf-8"), max_size=4).map(text),
    st.binary(max_size=9).map(raw),
)
PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, OrderedDict, set, frozenset),
    *(np.ndarray, np.dtype, np.number, np.bool_, np.str_, np.bytes_),
)
FAST = settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def check_plain_or_refused(data: bytes) -> None:
    """The whole contract: plain values, of which a text can be made, or the error that names the record."""
    try:
        value = restricted_loads(data, "file, record 3")
    except DataError as error:
        message = str(error)
        assert message.startswith("file, record 3: ")
        assert len(message) < 1000
        return
    pending = [value]
    while pending:
        one = pending.pop()
        assert isinstance(one, PLAIN)
        assert not (isinstance(one, np.ndarray | np.dtype) and np.dtype(getattr(one, "dtype", one)).hasobject)
        pending += one.values() if isinstance(one, dict) else one if isinstance(one, (list, tuple, set)) else ()
    repr(value)


@FAST
@given(st.lists(PARTS, max_size=30))
def test_generated_instructions_give_plain_values_or_the_error(parts: list[bytes]) -> None:
    check_plain_or_refused(pickled(*parts))


@FAST
@given(
    st.sampled_from(VALUES),
    st.integers(0, 5),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
)
def test_altered_pickles_give_plain_values_or_the_error(
    value: Any, protocol: int, changes: list[tuple[float, bytes, int]]
) -> None:
    data = pickle.dumps(value, protocol)
    for where, replacement, removed in changes:
        start = int(where * len(data))
        data = data[:start] + replacement + data[start + removed :]
    check_plain_or_refused(data)

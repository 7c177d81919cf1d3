"""Files of torch.save: both formats give what torch.load gives; hostile tensors, storages and archives are refused."""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tape.errors import CheckpointError
from tape.io.restricted_pickle import RefusedPickleError
from tape.io.zip_files import verify_crcs
from tape.models.torch_files import load_torch_file, load_torch_stream
from tests.support.pickle_assembler import (
    FALSE,
    NONE,
    build,
    call,
    dict_of,
    integer,
    name,
    pickled,
    raw_protocol_2,
    text,
    tuple_of,
)

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.float8_e4m3fn),
]


def content() -> dict[str, Any]:
    base = torch.arange(24.0)
    marked = torch.ones(2, 2)
    marked.tensor_model_parallel = True  # Megatron-LM's
    state = torch.nn.Linear(3, 2).state_dict()
    return {
        "state": state,
        "types": [torch.ones(3).to(dtype) for dtype in DTYPES],
        "views": [base, base[4:], base.view(4, 6).T, base[::5], base[:0], torch.tensor(2.5), torch.zeros(0, 3)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "marked": marked,
        "expanded": torch.arange(3).expand(2, 3),
        "numpy": np.random.RandomState(1).get_state(),
        "others": [torch.Size([2, 3]), torch.float16, torch.device("cuda", 1), Counter(a=2), b"ab", None],
    }


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert type(found) is Tensor
        assert found.dtype == expected.dtype
        assert found.stride() == expected.stride()
        assert torch.equal(found.to(torch.complex64), expected.detach().to(torch.complex64))
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)) and not isinstance(expected, torch.Size):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert type(found) is type(expected)
        assert found == expected


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("zip_file", [False, True])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_both_formats_give_what_was_saved(tmp_path: Path, protocol: int, zip_file: bool, mapped: bool) -> None:
    saved = content()
    if not zip_file:  # which saves every storage with the type of its first tensor
        saved["types"] = saved["types"][:-2]
    torch.save(saved, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zip_file)
    loaded = load_torch_file(tmp_path / "a.pt", mapped=mapped)
    assert_same(loaded, saved)
    assert isinstance(loaded["state"], OrderedDict)
    assert not vars(loaded["state"])
    assert not hasattr(loaded["marked"], "tensor_model_parallel")
    views = loaded["views"]
    assert views[0].untyped_storage().data_ptr() == views[1].untyped_storage().data_ptr()


def write_zip(path: Path, *instructions: bytes, storage: bytes = bytes(64), **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled(*instructions, protocol=2))
        archive.writestr("a/data/0", storage)
        for record, data in records.items():
            archive.writestr(f"a/{record}", data)
    return path


def storage_of(numel: int, kind: str = "FloatStorage", key: str = "0") -> bytes:
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), integer(numel)) + b"Q"


def tensor(storage: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    shape, steps = (tuple_of(*map(integer, lengths)) for lengths in (size, stride))
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), storage, integer(offset), shape, steps, FALSE, hooks)


def test_tensors_within_their_storage_are_read_wherever_it_lies_in_the_file(tmp_path: Path) -> None:
    numbers = np.arange(16, dtype="f4").tobytes()
    for padding in range(4):  # numbers of a mapped file need not be aligned
        write_zip(
            tmp_path / "a.pt", text("x" * padding) + b"0", tensor(storage_of(16), 3, (2, 5), (6, 1)), storage=numbers
        )
        for mapped in (False, True):
            assert load_torch_file(tmp_path / "a.pt", mapped=mapped).tolist() == [[3, 4, 5, 6, 7], [9, 10, 11, 12, 13]]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "hostile",
    [
        tensor(storage_of(16), 0, (17,), (1,)),
        tensor(storage_of(16), 16, (1,), (1,)),
        tensor(storage_of(16), 0, (2, 2), (15, 1)),
        tensor(storage_of(16), -1, (1,), (1,)),
        tensor(storage_of(16), 1, (2,), (-1,)),
        tensor(storage_of(16), 0, (-1,), (1,)),
        tensor(storage_of(16), 1 << 61, (1,), (1,)),
        tensor(storage_of(16), 0, (1 << 40,), (0,)),
        tensor(storage_of(16), 0, (1 << 61, 1 << 61, 0), (1, 1, 1)),
        tensor(storage_of(16), 0, (1, 1), (1,)),
        tensor(storage_of(16), 0, (1,) * 80, (1,) * 80),
        tensor(storage_of(17), 0, (1,), (1,)),
        tensor(storage_of(1 << 40), 0, (1,), (1,)),
        tensor(storage_of(-1), 0, (1,), (1,)),
        tensor(storage_of(1, key="1"), 0, (1,), (1,)),
        tensor(storage_of(1, key="../data.pkl"), 0, (1,), (1,)),
        tensor(storage_of(1, kind="Tensor"), 0, (1,), (1,)),
        tensor(NONE, 0, (1,), (1,)),
        storage_of(16),
        tuple_of(text("module"), name("torch", "Tensor"), text("x.py"), text("pass")) + b"Q",
        call(name("torch", "Tensor"), integer(1 << 40)),
        build(name("torch", "Tensor"), dict_of(text("x"), integer(1))),
        call(name("torch", "FloatStorage"), integer(1 << 40)),
        call(name("torch", "device"), text("cuda:x")),
        call(name("torch", "Size"), tuple_of(integer(-1))),
        call(name("torch", "float32")),
        call(name("torch.serialization", "_get_layout"), text("torch.sparse_coo")),
        call(name("torch._utils", "_rebuild_parameter"), text("x"), FALSE, NONE),
        call(
            name("torch._tensor", "_rebuild_from_type_v2"),
            *[name("torch", "Size"), name("torch", "Tensor")],
            b")",
            NONE,
        ),
        call(name("_codecs", "encode"), text("x"), text("zip")),
        call(name("builtins", "bytearray"), integer(1 << 40)),
        call(name("numpy", "ndarray"), tuple_of(integer(1)), raw_protocol_2(b"A" * 8)),
    ],
)
def test_tensors_outside_their_storage_and_other_calls_are_refused(
    tmp_path: Path, hostile: bytes, mapped: bool
) -> None:
    write_zip(tmp_path / "a.pt", dict_of(text("x"), hostile))
    with pytest.raises(CheckpointError, match=r"a\.pt: refused"):
        load_torch_file(tmp_path / "a.pt", mapped=mapped)


@pytest.mark.parametrize("other", ["linalg_norm", "hub", "load", "FloatTensor", "classes"])
def test_other_names_of_torch_are_refused_by_name(tmp_path: Path, other: str) -> None:
    write_zip(tmp_path / "a.pt", call(name("torch", other), text("x")))
    with pytest.raises(CheckpointError, match=rf"a\.pt: refused: its pickle refers to torch\.{other},"):
        load_torch_file(tmp_path / "a.pt")


def test_overlapping_records_do_not_multiply_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        tensors = [tensor(storage_of(1 << 18, key=str(key)), 0, (1,), (1,)) for key in range(3)]
        archive.writestr("a/data.pkl", pickled(b"(", *tensors, b"l", protocol=2))
        archive.writestr("a/data/0", bytes(1 << 20))
        for key in (1, 2):  # further entries of the directory for the same bytes
            twin = copy.copy(archive.filelist[-1])
            twin.filename = f"a/data/{key}"
            archive.filelist.append(twin)
    assert (tmp_path / "a.pt").stat().st_size < 2 << 20
    with pytest.raises(CheckpointError, match="does not hold"):
        load_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("position", [1 << 40, (1 << 63) + 5])
@pytest.mark.parametrize("record", [0, 1, 2])
def test_records_beyond_the_file_are_refused(tmp_path: Path, record: int, position: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickled(tensor(storage_of(16), 0, (16,), (1,)), protocol=2))
        archive.writestr("a/byteorder", b"little")
        archive.writestr("a/data/0", bytes(64))
        archive.filelist[record].header_offset = position
    with pytest.raises(CheckpointError, match=r"a\.pt: damaged"):
        verify_crcs(tmp_path / "a.pt")
    for mapped in (False, True):
        with pytest.raises(CheckpointError, match=r"a\.pt: refused or damaged"):
            load_torch_file(tmp_path / "a.pt", mapped=mapped)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_zip(tmp_path / "a.pt", NONE), "a") as archive:
        archive.writestr("a/data.pkl", pickled(NONE, protocol=2))
    with pytest.raises(CheckpointError, match=r"a\.pt: .*two records have one name"):
        load_torch_file(tmp_path / "a.pt")


def test_archives_of_other_kinds_are_refused_with_the_reason(tmp_path: Path) -> None:
    for record, data, words in (
        ("constants.pkl", b"", "TorchScript"),
        ("byteorder", b"big", "byte order"),
        ("b/data.pkl", b"", r"without data\.pkl"),
    ):
        write_zip(tmp_path / "a.pt", NONE, **{record: data})
        with pytest.raises(CheckpointError, match=words):
            load_torch_file(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"N." + bytes(1 << 20))
    with pytest.raises(CheckpointError, match="compressed"):
        load_torch_file(tmp_path / "a.pt")


def legacy(*instructions: bytes, keys: Any = (), storages: bytes = b"") -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join([*head, pickled(*instructions, protocol=2), pickle.dumps(list(keys), 2), storages])


LEGACY_TENSOR = tensor(storage_of(2)[:-2] + NONE + b"tQ", 0, (2,), (1,))
NUMBERS = np.array([1.5, 2.5], "f4").tobytes()


def test_the_older_format_is_read_from_its_description() -> None:
    data = legacy(LEGACY_TENSOR, keys=["0"], storages=(2).to_bytes(8, "little") + NUMBERS)
    assert load_torch_stream(io.BytesIO(data)).tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("keys", "storages"),
    [
        ([], b""),
        (["1"], (2).to_bytes(8, "little") + NUMBERS),
        (["0", "0"], 2 * ((2).to_bytes(8, "little") + NUMBERS)),
        (["0"], (3).to_bytes(8, "little") + NUMBERS),
        (["0"], (1 << 62).to_bytes(8, "little") + NUMBERS),
        (["0"], (2).to_bytes(8, "little") + NUMBERS[:-1]),
        ([["0"]], b""),
    ],
)
def test_storages_of_the_older_format_must_be_complete(keys: list[Any], storages: bytes) -> None:
    with pytest.raises(RefusedPickleError):
        load_torch_stream(io.BytesIO(legacy(LEGACY_TENSOR, keys=keys, storages=storages)))


def test_a_file_that_begins_with_a_tensor_is_refused() -> None:
    with pytest.raises(RefusedPickleError, match="magic number"):
        load_torch_stream(io.BytesIO(pickled(LEGACY_TENSOR, protocol=2)))


def test_memory_for_the_older_format_is_bounded_by_the_file() -> None:
    huge = tensor(storage_of(1 << 40)[:-2] + NONE + b"tQ", 0, (2,), (1,))
    with pytest.raises(RefusedPickleError, match="does not hold"):
        load_torch_stream(io.BytesIO(legacy(huge, keys=["0"])))


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.booleans(),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), max_size=3),
)
def test_altered_files_raise_nothing_but_the_refusal(zip_file: bool, changes: list[tuple[float, bytes, int]]) -> None:
    stream = io.BytesIO()
    torch.save({"w": torch.arange(6.0).view(2, 3), "n": [1, "a"]}, stream, _use_new_zipfile_serialization=zip_file)
    data = stream.getvalue()
    for where, replacement, removed in changes:
        start = int(where * len(data))
        data = data[:start] + replacement + data[start + removed :]
    with contextlib.suppress(RefusedPickleError):
        repr(load_torch_stream(io.BytesIO(data)))


def test_a_file_that_cannot_be_mapped_for_lack_of_memory_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError(f"unable to mmap 9 bytes from file <a.pt>: {os.strerror(errno.ENOMEM)} (12)")

    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    monkeypatch.setattr(torch.UntypedStorage, "from_file", fail)
    with pytest.raises(MemoryError, match="unable to mmap"):
        load_torch_file(tmp_path / "a.pt", mapped=True)

"""TAPE's LMDB layout, growth of the memory map, restricted unpickling, forks, and damaged files."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import lmdb
import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.io.lmdb_store import LMDBReader, restricted_loads, write_lmdb

RECORDS = [
    {"primary": "MKV", "protein_length": 3, "ss3": np.array([0, 1, 2])},
    {"primary": "GCTVEDRC", "protein_length": 8, "id": b"1abc-A"},
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_lmdb(tmp_path / "task_train.lmdb", RECORDS)
    return tmp_path / "task_train.lmdb"


def raw_put(path: Path, key: bytes, value: bytes | None) -> None:
    """Write or delete one key as another program would."""
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(key, value) if value is not None else transaction.delete(key)
    environment.close()


def test_the_stored_keys_are_those_of_tape(store: Path) -> None:
    environment = lmdb.open(str(store), readonly=True, lock=False)
    with environment.begin() as transaction:
        contents = {key: pickle.loads(value) for key, value in transaction.cursor()}
    environment.close()
    assert set(contents) == {b"num_examples", b"0", b"1"}
    assert contents[b"num_examples"] == 2
    assert contents[b"0"]["primary"] == "MKV"
    np.testing.assert_array_equal(contents[b"0"]["ss3"], [0, 1, 2])
    assert [path.name for path in store.iterdir()] == ["data.mdb"]


def test_the_reader_indexes_and_iterates_over_records(store: Path) -> None:
    with LMDBReader(store) as reader:
        assert len(reader) == 2
        assert reader[0]["id"] == "0"
        assert reader[-1]["id"] == "1abc-A"
        assert [record["primary"] for record in reader] == ["MKV", "GCTVEDRC"]
        with pytest.raises(IndexError):
            reader[2]


def test_the_map_grows_beyond_its_initial_size(tmp_path: Path) -> None:  # bug 39 in docs/compatibility.md
    blob = np.zeros(1 << 20, dtype=np.uint8)
    count = write_lmdb(tmp_path / "big.lmdb", ({"primary": "A", "blob": blob + i} for i in range(40)))
    assert count == 40
    reader = LMDBReader(tmp_path / "big.lmdb")
    assert len(reader) == 40
    assert reader[39]["blob"][0] == 39


def test_a_failed_write_leaves_no_store(tmp_path: Path) -> None:
    def records():
        yield {"primary": "A"}
        raise DataError("record 2 is bad")

    with pytest.raises(DataError, match="record 2"):
        write_lmdb(tmp_path / "x.lmdb", records())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_replaced_only_with_overwrite(store: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        write_lmdb(store, [])
    write_lmdb(store, RECORDS[:1], overwrite=True)
    assert len(LMDBReader(store)) == 1


def test_two_readers_share_a_file_and_a_replaced_file_is_reopened(store: Path, tmp_path: Path) -> None:
    first, second = LMDBReader(store), LMDBReader(store)
    link = tmp_path / "link.lmdb"
    link.symlink_to(store)
    third = LMDBReader(link)
    first.close()
    assert second[0]["primary"] == third[0]["primary"] == first[0]["primary"]
    write_lmdb(store, RECORDS[1:], overwrite=True)
    assert len(LMDBReader(store)) == 1
    assert len(second) == 2


def _first_residues(reader: LMDBReader, queue) -> None:
    queue.put([record["primary"] for record in reader])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # pytest's own threads
def test_readers_work_in_other_processes(store: Path, method: str) -> None:
    reader = LMDBReader(store)
    assert reader[0]["primary"] == "MKV"
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=_first_residues, args=(reader, queue))
    worker.start()
    assert queue.get() == ["MKV", "GCTVEDRC"]
    worker.join()
    assert worker.exitcode == 0
    assert reader[1]["primary"] == "GCTVEDRC"


def test_a_reader_can_be_pickled(store: Path) -> None:
    copy = pickle.loads(pickle.dumps(LMDBReader(store)))
    assert copy[0]["primary"] == "MKV"


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_malicious_record_is_refused_and_does_not_run(
    store: Path, tmp_path: Path
) -> None:  # bug 35 in docs/compatibility.md
    marker = tmp_path / "ran"
    raw_put(store, b"1", pickle.dumps({"primary": "A", "x": Malicious(marker)}))
    with pytest.raises(DataError, match=r"task_train.lmdb, record 1: .*(posix|nt)\.system"):
        LMDBReader(store)[1]
    assert not marker.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\neval\n(S'1+1'\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\nstr\nS'format'\ntR.",
        b"cnumpy\nload\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x0astr.format\x93.",
        b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.",
        b"",
        b"\x80\x04garbage",
    ],
)
def test_globals_outside_the_allow_list_are_refused(payload: bytes) -> None:
    with pytest.raises(DataError, match="file, record 3"):
        restricted_loads(payload, "file, record 3")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_pickle_protocol_are_loaded(protocol: int) -> None:
    data = OrderedDict(
        a=np.arange(6, dtype=np.float32).reshape(2, 3),
        b=np.float64(1.5),
        c=np.array(["x", "yy"]),
        d=b"1abc\xff",
        e={1, 2},
        f=np.dtype("int16"),
        g=np.array([[True, False]]).T,
        h=np.bool_(True),
    )
    loaded = restricted_loads(pickle.dumps(data, protocol=protocol), "here")
    assert list(loaded) == list(data)
    np.testing.assert_array_equal(loaded["a"], data["a"])
    np.testing.assert_array_equal(loaded["g"], data["g"])
    assert (loaded["b"], loaded["d"], loaded["e"], loaded["f"], loaded["h"]) == (
        1.5,
        b"1abc\xff",
        {1, 2},
        "int16",
        True,
    )


def test_pickles_of_numpy_1_are_loaded() -> None:
    old = pickle.dumps(np.arange(3), protocol=2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(restricted_loads(old, "here"), [0, 1, 2])


def test_missing_key_names_file_and_record(store: Path) -> None:
    raw_put(store, b"1", None)
    with pytest.raises(DataError, match=r"task_train\.lmdb, record 1: missing"):
        LMDBReader(store)[1]
    raw_put(store, b"num_examples", None)
    with pytest.raises(DataError, match=r"task_train\.lmdb, key 'num_examples': missing"):
        LMDBReader(store)


def test_content_of_the_wrong_type_is_refused(store: Path) -> None:
    raw_put(store, b"0", pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="record 0: expected a dict, found list"):
        LMDBReader(store)[0]
    raw_put(store, b"num_examples", pickle.dumps("two"))
    with pytest.raises(DataError, match="expected a number of records"):
        LMDBReader(store)


@pytest.mark.parametrize("size", [0, 100, 4096, 8192, 12287])
def test_truncated_file_is_an_error_not_a_crash(store: Path, size: int) -> None:
    os.truncate(store / "data.mdb", size)
    with pytest.raises(DataError, match=r"task_train\.lmdb"):
        LMDBReader(store)


def test_a_missing_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no LMDB store"):
        LMDBReader(tmp_path / "absent.lmdb")


def test_a_store_without_a_directory_is_read(tmp_path: Path) -> None:
    path = tmp_path / "single.mdb"
    environment = lmdb.open(str(path), subdir=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"num_examples", pickle.dumps(1))
        transaction.put(b"0", pickle.dumps({"primary": "AC"}))
    environment.close()
    assert LMDBReader(path)[0]["primary"] == "AC"

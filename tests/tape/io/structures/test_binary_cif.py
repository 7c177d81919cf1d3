"""BinaryCIF: every encoding, Biopython's reader as a second implementation, and arrays without a limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from Bio.PDB.binary_cif import BinaryCIFParser

from tape.errors import DataError
from tape.io.structures import binary_cif, read_structures
from tape.io.structures.binary_cif import MOST_ROWS, binary_cif_block
from tests.support import structure_files as encoders
from tests.support.structure_files import byte_array, new_structure, write_structure

NUMBERS = np.array([5, 5, 5, -300, 127, -128, 128, 0, 0, 70000, -1])


@pytest.mark.parametrize(
    ("encode", "values"),
    [
        (lambda values: byte_array(values.astype(np.int32)), NUMBERS),
        (lambda values: byte_array(values.astype(np.float32)), NUMBERS / 4),
        (encoders.integer_packing, NUMBERS),
        (encoders.integer_packing, np.zeros(0, dtype=np.int64)),
        (encoders.delta, NUMBERS),
        (encoders.run_length, NUMBERS),
        (encoders.fixed_point, NUMBERS / 8),
        (encoders.interval_quantization, np.arange(0, 101, 7.0)),
        (lambda values: encoders.strings(values.tolist()), np.array(["CA", "", "CB", "CA"], dtype=object)),
    ],
)
def test_decoding_undoes_the_encoding(encode: Callable[[np.ndarray], dict[str, Any]], values: np.ndarray) -> None:
    np.testing.assert_array_equal(binary_cif._decode(encode(values)), values)


def test_unsigned_packed_numbers_are_sums() -> None:
    encoding = {"kind": "IntegerPacking", "byteCount": 1, "srcSize": 3, "isUnsigned": True}
    data = byte_array(np.array([255, 45, 7, 255, 0], dtype=np.uint8))
    packed = {"data": data["data"], "encoding": [encoding, *data["encoding"]]}
    np.testing.assert_array_equal(binary_cif._decode(packed), [300, 7, 255])


def test_coordinates_equal_those_of_biopython(tmp_path: Path) -> None:
    path = write_structure(tmp_path / "x.bcif", new_structure({"A": "MKVLAAGIW"}))
    (chain,) = read_structures([path])
    (other,) = BinaryCIFParser().get_structure("x", str(path))[0]
    np.testing.assert_allclose(chain.tertiary, [residue["CA"].coord for residue in other], atol=1e-4)


def _file(change: Callable[[dict[str, Any]], None]) -> bytes:
    """A BinaryCIF file of a small structure, whose column of residue numbers is changed."""
    structure = new_structure({"A": "MKV"})
    structure.setup_entities()
    content = msgpack.unpackb(encoders.binary_cif(structure.make_mmcif_document()[0]))
    (atoms,) = [item for item in content["dataBlocks"][0]["categories"] if item["name"] == "_atom_site"]
    change(next(column for column in atoms["columns"] if column["name"] == "auth_seq_id"))
    packed: bytes = msgpack.packb(content)
    return packed


def _bomb(column: dict[str, Any]) -> None:
    pairs = byte_array(np.array([1, 2_000_000_000], dtype=np.int32))
    column["data"] = {"data": pairs["data"], "encoding": [{"kind": "RunLength"}, *pairs["encoding"]]}


def _strings_bomb(column: dict[str, Any]) -> None:
    column["data"] = encoders.strings(["x" * 1000, "y"])
    offsets = byte_array(np.tile([0, 1000], 200_000).astype(np.int32))
    column["data"]["encoding"][0].update(offsets=offsets["data"], offsetEncoding=offsets["encoding"])
    column["data"]["encoding"][0]["stringData"] = "x" * 10_000


def _unknown_encoding(column: dict[str, Any]) -> None:
    column["data"]["encoding"][0]["kind"] = "Zip"


def _shorter(column: dict[str, Any]) -> None:
    column["data"] = encoders.strings(["1", "2"])


def _string_beyond_the_end(column: dict[str, Any]) -> None:
    column["data"]["data"] = b"\x7f" * len(column["data"]["data"])


def _no_encoding(column: dict[str, Any]) -> None:
    column["data"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_bomb, f"of more than {MOST_ROWS:,} rows"),
        (_strings_bomb, "strings of more than"),
        (_unknown_encoding, "'Zip'"),
        (_shorter, "the columns of _atom_site have different lengths"),
        (_string_beyond_the_end, "out of bounds"),
        (_no_encoding, "damaged, or not BinaryCIF"),
    ],
)
def test_columns_that_are_damaged_or_without_a_limit_are_refused(
    change: Callable[[dict[str, Any]], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_cif, "_MOST_CHARACTERS", 1 << 20)
    with pytest.raises(DataError, match=rf"x\.bcif: .*{message}"):
        binary_cif_block(_file(change), "x.bcif")


@pytest.mark.parametrize("content", [b"\xc1", b"\x92\x01", b"\x93abc", msgpack.packb({"dataBlocks": 5})])
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="not BinaryCIF"):
        binary_cif_block(content, "x.bcif")

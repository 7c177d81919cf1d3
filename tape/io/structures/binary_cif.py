"""BinaryCIF files (Sehnal et al. 2020): mmCIF whose columns are encoded arrays, in MessagePack.

Gemmi does not read them. Libraries that do (biotite, python-ihm, Biopython) expand run lengths without a limit, so that
a file of some hundred bytes can fill the memory; here no array has more entries than :data:`MOST_ROWS`.

The result is a Gemmi block, which is interpreted as that of an mmCIF file is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tape.errors import DataError, import_extra, quoted

MOST_ROWS = 1 << 24  # of a category, such as atoms
_MOST_CHARACTERS = 1 << 28  # of the strings of a column
# What a structure is made of; the other categories of a file are not decoded.
_CATEGORIES = (
    "_entry",
    "_entity",
    "_entity_poly",
    "_entity_poly_seq",
    "_struct_asym",
    "_pdbx_struct_mod_residue",
    "_atom_site",
)
_NUMBER_TYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<u1", 5: "<u2", 6: "<u4", 32: "<f4", 33: "<f8"}
_ABSENT = {1: False, 2: None}  # values of a mask, as Gemmi takes them: "." (not applicable) and "?" (unknown)


def binary_cif_block(content: bytes, where: str) -> Any:
    """The ``gemmi.cif.Block`` with the categories of a structure.

    Args:
        content: a BinaryCIF file.
        where: its name, for messages.

    Raises:
        DataError: the content is no BinaryCIF, truncated or damaged, or there is not one data block with atoms.
        ConfigError: the package msgpack is not installed.
    """
    import gemmi

    try:
        blocks = [_categories(block) for block in _unpack(content, where)["dataBlocks"]]
        blocks = [categories for categories in blocks if "_atom_site" in categories]
        if len(blocks) != 1:
            raise DataError(f"{where}: has {len(blocks)} data blocks with atoms (category atom_site), not 1")
        block = gemmi.cif.Document().add_new_block("structure")
        for name, category in blocks[0].items():
            columns = {column["name"]: _column(column) for column in category["columns"]}
            if len({len(values) for values in columns.values()}) > 1:
                raise DataError(f"{where}: the columns of {name} have different lengths")
            block.set_mmcif_category(f"{name}.", columns)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise DataError(f"{where}: damaged, or not BinaryCIF: {quoted(str(error))}") from error
    return block


def _unpack(content: bytes, where: str) -> Any:
    msgpack = import_extra("msgpack", ".bcif files need msgpack", "structures")
    try:
        return msgpack.unpackb(content, max_str_len=_MOST_CHARACTERS)
    except (ValueError, msgpack.UnpackException) as error:
        raise DataError(f"{where}: truncated, damaged, or not BinaryCIF: {error}") from error


def _categories(block: Mapping[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in block["categories"] if item["name"] in _CATEGORIES}


def _column(column: Mapping[str, Any]) -> list[Any]:
    """Values of a column as text, False for "." and None for "?"."""
    values = list(map(str, _decode(column["data"]).tolist()))
    if column.get("mask") is None:
        return values
    mask = _decode(column["mask"]).tolist()
    if len(mask) != len(values):
        raise ValueError(f"column {column['name']}: mask of {len(mask)} entries for {len(values)} values")
    return [_ABSENT.get(state, value) for state, value in zip(mask, values, strict=True)]


def _decode(data: Mapping[str, Any]) -> np.ndarray:
    """The array of a column or of a mask: the steps of its encoding, undone from the last to the first."""
    return _undo(data["data"], data["encoding"])


def _undo(values: Any, encodings: Sequence[Mapping[str, Any]]) -> np.ndarray:
    for encoding in reversed(encodings):
        values = _DECODERS[encoding["kind"]](values, encoding)
        if len(values) > MOST_ROWS:
            raise ValueError(f"more than {MOST_ROWS:,} rows")
    return np.asarray(values)


def _byte_array(values: bytes, encoding: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(values, dtype=_NUMBER_TYPES[encoding["type"]])


def _fixed_point(values: np.ndarray, encoding: Mapping[str, Any]) -> np.ndarray:
    places = max(0, round(np.log10(encoding["factor"])))
    return np.round(values / encoding["factor"], places)


def _interval_quantization(values: np.ndarray, encoding: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(
        encoding["min"] + values * ((encoding["max"] - encoding["min"]) / (encoding["numSteps"] - 1)), dtype=np.float64
    )


def _run_length(values: np.ndarray, encoding: Mapping[str, Any]) -> np.ndarray:
    numbers, counts = values[0::2], values[1::2].astype(np.int64)
    if len(numbers) != len(counts) or (counts < 0).any() or int(counts.sum()) > MOST_ROWS:
        raise ValueError(f"run lengths that are no counts, or of more than {MOST_ROWS:,} rows")
    return np.repeat(numbers, counts)


def _delta(values: np.ndarray, encoding: Mapping[str, Any]) -> np.ndarray:
    return encoding["origin"] + np.cumsum(values, dtype=np.int64)


def _integer_packing(values: np.ndarray, encoding: Mapping[str, Any]) -> np.ndarray:
    """Numbers beyond the range of a byte or two are sums of its limits and of the entry after them."""
    limits = np.iinfo(values.dtype)
    goes_on = values == limits.max
    if not encoding["isUnsigned"]:
        goes_on |= values == limits.min
    ends = np.flatnonzero(~goes_on)
    if values.size and (not ends.size or ends[-1] != values.size - 1):
        raise ValueError("a packed number without an end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    return np.add.reduceat(values.astype(np.int64), starts) if ends.size else values.astype(np.int64)


def _string_array(values: bytes, encoding: Mapping[str, Any]) -> np.ndarray:
    offsets = _undo(encoding["offsets"], encoding["offsetEncoding"]).tolist()
    text: str = encoding["stringData"]
    if sum(b - a for a, b in pairwise(offsets) if b > a) > _MOST_CHARACTERS:
        raise ValueError(f"strings of more than {_MOST_CHARACTERS:,} characters")
    strings = np.array([text[a:b] for a, b in pairwise(offsets)] + [""], dtype=object)
    places = _undo(values, encoding["dataEncoding"])
    if (places < -1).any():
        raise ValueError("a string with a negative number")
    return np.asarray(strings[places])  # -1, a value that the mask leaves out, is the empty one at the end


_DECODERS: dict[str, Callable[[Any, Mapping[str, Any]], np.ndarray]] = {
    "ByteArray": _byte_array,
    "FixedPoint": _fixed_point,
    "IntervalQuantization": _interval_quantization,
    "RunLength": _run_length,
    "Delta": _delta,
    "IntegerPacking": _integer_packing,
    "StringArray": _string_array,
}

"""Finding structure files, and reading one into a Gemmi structure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tape.errors import DataError, import_extra
from tape.io.text_files import ReadCallback, open_bytes, split_suffix

from .binary_cif import binary_cif_block
from .placement import place_by_numbers

PDB_SUFFIXES = (".pdb", ".ent")
MMCIF_SUFFIXES = (".cif", ".mmcif")
BINARY_CIF_SUFFIXES = (".bcif",)
STRUCTURE_SUFFIXES = PDB_SUFFIXES + MMCIF_SUFFIXES + BINARY_CIF_SUFFIXES
# Bytes after decompression. The largest structure of the PDB, 3J3Q, has 2.4 million atoms, which take about 100 bytes
# each in mmCIF and 10 in BinaryCIF, where objects of MessagePack can take sixty times their bytes in memory.
LARGEST_FILE = 1 << 28
LARGEST_BINARY_CIF = 1 << 26
# Until 1996, columns 73 to 80 of the PDB format had the entry's code and the number of the line, "1ABC  12", where now
# are element and charge.
_LEGACY_COLUMNS = 72
_LEGACY_ATOM = re.compile(rb"^(?:ATOM  |HETATM).{66}([0-9][0-9A-Z]{3})[ \d]{3}\d[ \r]*$", re.MULTILINE)
_WWPDB_PREFIX = "pdb"  # of file names in the archive of the wwPDB: pdb1abc.ent.gz


def is_structure_file(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` has the suffix of a structure file."""
    return split_suffix(path)[0] in STRUCTURE_SUFFIXES


def find_structure_files(sources: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Structure files among files and folders, each folder with its subfolders and sorted by path.

    Args:
        sources: files, which may have any order, and folders; hidden files in them are skipped.

    Raises:
        DataError: a file has another suffix, or there are none, or two have the same name, and so would their chains.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            files = (path for path in source.rglob("*") if is_structure_file(path) and not path.name.startswith("."))
            found += sorted(path for path in files if path.is_file())
        elif is_structure_file(source):
            found.append(source)
        else:
            raise DataError(f"{source}: not a structure file; its suffix must be {' '.join(STRUCTURE_SUFFIXES)}")
    if not found:
        raise DataError(
            f"{', '.join(map(str, sources))}: no structure files; their suffixes are"
            f" {' '.join(STRUCTURE_SUFFIXES)}, also with .gz, .bz2, .xz or .zst after it"
        )
    _check_names(found)
    return found


def _check_names(files: Iterable[Path]) -> None:
    names: dict[str, Path] = {}
    for path in files:
        other = names.setdefault(structure_name(path), path)
        if other is not path:
            raise DataError(f"{other} and {path} have the same name, and so would their chains; keep one")


def structure_name(path: Path) -> str:
    """Name of a structure: that of its file without suffixes, and without the ``pdb`` of ``pdb1abc.ent``."""
    suffix, compression = split_suffix(path)
    name = path.name[: len(path.name) - len(suffix) - len(compression)]
    if suffix == ".ent" and len(name) == 7 and name.startswith(_WWPDB_PREFIX):
        return name.removeprefix(_WWPDB_PREFIX)
    return name


def require_gemmi() -> Any:
    """The module ``gemmi``.

    Raises:
        ConfigError: it is not installed. Names the extra.
    """
    return import_extra("gemmi", "structure files need gemmi", "structures")


def read_structure(path: Path, progress: ReadCallback | None = None) -> Any:
    """Read a file as a ``gemmi.Structure`` with entities.

    Raises:
        DataError: the file is missing, truncated, too large, not in the format of its suffix, or has no atoms.
        ConfigError: gemmi is not installed.
    """
    gemmi = require_gemmi()
    content = _read_bytes(path, progress)
    suffix = split_suffix(path)[0]
    try:
        if suffix in PDB_SUFFIXES:
            structure = gemmi.read_pdb_string(content, max_line_length=_LEGACY_COLUMNS if _is_legacy(content) else 0)
        elif suffix in MMCIF_SUFFIXES:
            structure = _from_mmcif(gemmi, content, path)
        else:
            structure = gemmi.make_structure_from_block(binary_cif_block(content, os.fspath(path)))
        _name_blank_chain(structure)
        structure.setup_entities()
        if suffix in PDB_SUFFIXES:
            place_by_numbers(structure)
        structure.assign_label_seq_id()
    except (RuntimeError, ValueError, IndexError) as error:  # gemmi's own; UnicodeDecodeError is a ValueError
        raise DataError(f"{path}: damaged, or not a {suffix} file: {_first_line(error)}") from error
    if not len(structure) or not structure[0].count_atom_sites():
        raise DataError(f"{path}: has no atoms; its format must be that of the suffix {suffix}")
    return structure


def _read_bytes(path: Path, progress: ReadCallback | None) -> bytes:
    largest = LARGEST_BINARY_CIF if split_suffix(path)[0] in BINARY_CIF_SUFFIXES else LARGEST_FILE
    with open_bytes(path, progress) as stream:
        content: bytes = stream.read(largest + 1)
    if len(content) > largest:
        raise DataError(f"{path}: larger than {largest >> 20} MiB after decompression, which no structure is")
    return content


def _is_legacy(content: bytes) -> bool:
    """Whether all atoms of a PDB file end in the code of one entry and the number of a line."""
    atoms = sum(map(content.count, (b"\nATOM  ", b"\nHETATM"))) + content.startswith((b"ATOM  ", b"HETATM"))
    codes = _LEGACY_ATOM.findall(content)
    return bool(codes) and len(codes) == atoms and len(set(codes)) == 1


def _from_mmcif(gemmi: Any, content: bytes, path: Path) -> Any:
    blocks = [block for block in gemmi.cif.read_string(content) if block.find_values("_atom_site.Cartn_x")]
    if len(blocks) != 1:
        raise DataError(f"{path}: has {len(blocks)} data blocks with atoms (category atom_site), not 1")
    return gemmi.make_structure_from_block(blocks[0])


def _name_blank_chain(structure: Any) -> None:
    """Name the chain without a name that modeling programs write; Gemmi makes no entity for it."""
    for model in structure:
        names = {chain.name for chain in model}
        free = next(name for name in "ABCDEFGHIJKLMNOPQRSTUVWXYZ_" if name not in names or name == "_")
        for chain in model:
            chain.name = chain.name or free


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

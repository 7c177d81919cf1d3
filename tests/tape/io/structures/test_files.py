"""Finding structure files, and files that are damaged, too large or something else."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from tape.errors import ConfigError, DataError
from tape.io.structures import files as structure_files
from tape.io.structures import find_structure_files, read_structures
from tape.io.structures.files import structure_name
from tests.support.structure_files import new_structure, write_structure


def test_folders_and_files_are_found(tmp_path: Path) -> None:
    inside = tmp_path / "more" / "2xyz.bcif.gz"
    inside.parent.mkdir()
    for path in (tmp_path / "1abc.cif", inside, tmp_path / ".hidden.pdb", tmp_path / "notes.txt"):
        path.touch()
    single = tmp_path / "notes.txt"
    assert find_structure_files([tmp_path]) == [tmp_path / "1abc.cif", inside]
    with pytest.raises(DataError, match=r"notes\.txt: not a structure file"):
        find_structure_files([single])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no structure files; their suffixes are .pdb .ent .cif"):
        find_structure_files([tmp_path / "empty"])


def test_files_whose_chains_would_have_the_same_names_are_refused(tmp_path: Path) -> None:
    for name in ("1abc.cif", "pdb1abc.ent.gz"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"1abc\.cif and .*pdb1abc\.ent\.gz have the same name"):
        find_structure_files([tmp_path])


@pytest.mark.parametrize(
    ("file", "name"),
    [("1abc.cif.gz", "1abc"), ("pdb1abc.ent", "1abc"), ("pdbs.pdb", "pdbs"), ("AF-P1-F1.v4.cif", "AF-P1-F1.v4")],
)
def test_the_name_of_a_structure_is_that_of_its_file(file: str, name: str) -> None:
    assert structure_name(Path(file)) == name


@pytest.mark.parametrize("suffix", ["pdb", "cif", "bcif"])
def test_compressed_files_are_read(tmp_path: Path, suffix: str) -> None:
    path = write_structure(tmp_path / f"x.{suffix}", new_structure({"A": "MKV"}))
    packed = tmp_path / "packed" / f"x.{suffix}.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [chain.primary for chain in read_structures([packed])] == ["MKV"]
    packed.write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(DataError, match=rf"x\.{suffix}\.gz: truncated"):
        list(read_structures([packed]))


@pytest.mark.parametrize("suffix", ["pdb", "cif", "bcif"])
@pytest.mark.parametrize("content", [b"", b">x\nMKV\n", b"\xff\xfe\0\0" * 50, b"ATOM  1\n", b"data_x\nloop_\n_a.b\n"])
def test_files_in_another_format_are_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.{suffix}: "):
        list(read_structures([path]))


@pytest.mark.parametrize("suffix", ["pdb", "cif", "bcif"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused_or_read_up_to_their_end(tmp_path: Path, suffix: str, kept: float) -> None:
    path = write_structure(tmp_path / f"x.{suffix}", new_structure({"A": "MKVLAAGIW"}))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    try:
        chains = list(read_structures([path]))
    except DataError as error:
        assert f"x.{suffix}" in str(error)  # noqa: PT017 - a truncated PDB file is one with fewer residues
    else:
        assert suffix != "bcif"
        assert "MKVLAAGIW".startswith(chains[0].primary)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = write_structure(tmp_path / "x.pdb", new_structure({"A": "MKV"}))
    path.write_bytes(path.read_bytes().replace(b"LYS", b"L\xffS"))
    with pytest.raises(DataError, match=r"x\.pdb: damaged: a name has characters other than ASCII"):
        list(read_structures([path]))


def test_files_that_are_too_large_after_decompression_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure_files, "LARGEST_FILE", 1 << 21)
    monkeypatch.setattr(structure_files, "LARGEST_BINARY_CIF", 1 << 20)
    for suffix, limit in (("pdb", 2), ("bcif", 1)):
        path = tmp_path / f"bomb.{suffix}.gz"
        path.write_bytes(gzip.compress(b"\n" * (1 << 24)))
        with pytest.raises(DataError, match=rf"bomb\.{suffix}\.gz: larger than {limit} MiB after decompression"):
            list(read_structures([path]))


def test_without_gemmi_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(ConfigError, match=r"pip install 'proteinlm\[structures\]'"):
        list(read_structures([tmp_path / "x.pdb"]))

"""HDF5 files of embeddings, and how biotrainer and bio_embeddings read them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.inference.embedded_proteins import EmbeddedProteins
from tape.inference.embedding_files import check_identifiers, check_layout, write_embeddings
from tape.inference.embedding_hdf5 import sequence_hash
from tape.inference.embedding_journal import EmbeddingJournal, read_places

h5py = pytest.importorskip("h5py")

Written = Callable[..., Path]
HIDDEN = 4


def read_as_biotrainer(path: Path, sequences: Sequence[str]) -> dict[str, Any]:
    """Sequence -> embedding, by the rule of ``EmbeddingStep`` and ``EmbeddingService.load_embeddings`` (1.4.0)."""
    found = {}
    with h5py.File(path, "r") as file:
        for sequence in sequences:
            name = hashlib.sha256(f"{sequence}_{len(sequence)}".encode()).hexdigest()
            assert name in file, f"Sequence hash {name} not found in embeddings file!"
            found[sequence] = file[name][:]
    return found


def read_as_bio_embeddings(path: Path) -> dict[str, Any]:
    """Id -> embedding, by the rule of ``QueryEmbeddingsFile`` (0.2.2)."""
    with h5py.File(path, "r") as file:
        names = {file[name].attrs["original_id"]: name for name in file}
        return {identifier: np.array(file[name]) for identifier, name in names.items()}


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes the states 0, 1, 2 ... of proteins (id -> sequence), or their means."""

    def write(
        proteins: Mapping[str, str],
        name: str = "out.h5",
        full: bool = True,
        layers: tuple[int, ...] = (-1,),
        scale: float = 1.0,
        layout: str | None = None,
        dtype: str = "float32",
    ) -> Path:
        path, sequences = tmp_path / name, list(proteins.values())
        with EmbeddingJournal(tmp_path / f"{name}.partial", {}) as journal:
            for number, sequence in enumerate(sequences):
                rows = len(sequence) + 2 if full else 1
                states = scale * np.arange(rows * HIDDEN * len(layers), dtype="f4").reshape(rows, -1)
                journal.append([(number, (states, np.full(3, number, dtype="f4")))])
        places = read_places(path, {})
        embedded = EmbeddedProteins(
            identifiers=list(proteins),
            sequence=sequences.__getitem__,
            lengths=np.asarray([len(sequence) for sequence in sequences]),
            places=[places[number] for number in range(len(sequences))],
            full_sequence=full,
            layers=layers,
            dtype=dtype,
        )
        write_embeddings(path, embedded, "0" * 64, layout)
        return path

    return write


def test_biotrainer_finds_embeddings_by_the_hash_of_the_sequence(written: Written) -> None:
    found = read_as_biotrainer(written({"a": "MKV", "b": "AC"}), ["MKV", "AC"])
    # L x H, without <cls> and <sep>
    np.testing.assert_array_equal(found["MKV"], np.arange(4, 16, dtype="f4").reshape(3, HIDDEN))
    assert found["AC"].shape == (2, HIDDEN)
    assert read_as_biotrainer(written({"a": "MKV"}, "avg.h5", full=False), ["MKV"])["MKV"].shape == (HIDDEN,)


def test_bio_embeddings_finds_embeddings_by_any_id(written: Written) -> None:
    proteins = {"sp|P1/2": "MKV", ".": "AC", "P 3": "MKV", "Å": "MKV"}
    found = read_as_bio_embeddings(written(proteins))
    assert {identifier: len(states) for identifier, states in found.items()} == {
        identifier: len(sequence) for identifier, sequence in proteins.items()
    }


def test_the_data_sets_have_the_order_of_the_input(written: Written) -> None:
    proteins = {f"p{number}": "A" * number for number in range(1, 9)}
    with h5py.File(written(proteins)) as file:
        assert [file[name].attrs["original_id"] for name in file] == list(proteins)
        assert {name: file.attrs[name] for name in ("schema", "version", "layout", "model_sha256")} == {
            "schema": "proteinlm-embeddings",
            "version": 2,
            "layout": "sequence_hash",
            "model_sha256": "0" * 64,
        }
        assert file.attrs["layers"].tolist() == [-1]


def test_proteins_of_one_sequence_have_data_sets_of_their_own(written: Written) -> None:
    name = sequence_hash("MKV")
    with h5py.File(written({"a": "MKV", "b": "MKV", "c": "MKV"})) as file:
        assert {key: file[key].attrs["original_id"] for key in file} == {name: "a", f"{name}-2": "b", f"{name}-3": "c"}


def test_layout_id_names_the_data_sets_by_id(written: Written) -> None:
    with h5py.File(written({"sp|P1|X": "MKV", "b": "AC"}, layout="id")) as file:
        assert [(name, file[name].attrs["original_id"]) for name in file] == [("sp|P1|X", "sp|P1|X"), ("b", "b")]


@pytest.mark.parametrize("identifier", ["a/b", ".", ""])
def test_layout_id_refuses_ids_that_are_paths(identifier: str, tmp_path: Path) -> None:
    check_identifiers(tmp_path / "o.h5", ["fine.1", "..", identifier], "x.fasta")
    with pytest.raises(DataError, match=r"x\.fasta: the id '.*' can't be the name of an HDF5 data set.*leave out"):
        check_identifiers(tmp_path / "o.h5", ["fine.1", identifier], "x.fasta", "id")


def test_layout_table_has_arrays_of_all_proteins(written: Written) -> None:
    proteins = {"a": "MKV", "b/c": "AC"}
    with h5py.File(written(proteins, layout="table")) as file:
        assert [name.decode() for name in file["ids"]] == list(proteins)
        assert file["lengths"][:].tolist() == [3, 2]
        assert file["offsets"][:].tolist() == [0, 5, 9]
        assert file["states"].shape == (9, HIDDEN)
        assert (file.attrs["version"], file.attrs["layout"]) == (1, "table")
    with h5py.File(written(proteins, "means.h5", full=False, layout="table")) as file:
        assert file["avg"][:].tolist() == [[0, 1, 2, 3]] * 2
        assert file["pooled"][:].tolist() == [[0] * 3, [1] * 3]


def test_layers_are_the_first_dimension(written: Written) -> None:
    (states,) = read_as_bio_embeddings(written({"a": "MK"}, layers=(0, 3))).values()
    assert states.shape == (2, 2, HIDDEN)
    assert states[1, 0].tolist() == [12, 13, 14, 15]  # the second token's numbers are 8 to 15
    (mean,) = read_as_bio_embeddings(written({"a": "MK"}, "avg.h5", full=False, layers=(0, 3))).values()
    assert mean.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_table_holds_one_layer_and_other_formats_have_no_layout(tmp_path: Path) -> None:
    check_layout(tmp_path / "o.h5", "table", 1)
    check_layout(tmp_path / "o.npz", None, 2)
    with pytest.raises(ConfigError, match="table holds one layer"):
        check_layout(tmp_path / "o.h5", "table", 2)
    with pytest.raises(ConfigError, match=r"o\.npz: --hdf5_layout is for \.h5 and \.hdf5"):
        check_layout(tmp_path / "o.npz", "id", 1)


@pytest.mark.parametrize("layout", [None, "table"])
def test_float16_halves_the_file(layout: str | None, written: Written) -> None:
    with h5py.File(written({"a": "MKV"}, layout=layout, dtype="float16")) as file:
        kept: list[Any] = []
        file.visititems(lambda name, dataset: kept.append(dataset) if name != "ids" else None)
        floats = [dataset.dtype for dataset in kept if dataset.dtype.kind == "f"]
        assert floats == [np.float16]


def test_a_value_that_float16_can_not_hold_is_an_error(written: Written, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"embedding of 'a' has the value 133000, which float16 can't hold"):
        written({"a": "MKV"}, scale=7000, dtype="float16")
    assert not (tmp_path / "out.h5").exists()

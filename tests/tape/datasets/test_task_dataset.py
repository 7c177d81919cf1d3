"""The data sets of the tasks: items, labels, batches, and the errors for invalid records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from tape.datasets import (
    EmbedDataset,
    FluorescenceDataset,
    LanguageModelingDataset,
    MaskedLanguageModelingDataset,
    ProteinnetDataset,
    RemoteHomologyDataset,
    SecondaryStructureDataset,
    StabilityDataset,
)
from tape.datasets.contacts import contact_labels
from tape.datasets.index import load_split
from tape.datasets.sources import dataset_provenance
from tape.errors import DataError, UnknownResidueError
from tape.tokenizers import TAPETokenizer

Writer = Callable[..., Path]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("secondary_structure", SecondaryStructureDataset),
        ("proteinnet", ProteinnetDataset),
        ("remote_homology", RemoteHomologyDataset),
        ("fluorescence", FluorescenceDataset),
        ("stability", StabilityDataset),
        ("pfam", MaskedLanguageModelingDataset),
    ],
)
def test_every_split_of_every_task_keeps_long_proteins(folder: str, kind: Any, write_split: Writer) -> None:
    # bug 16 in docs/compatibility.md: records with protein_length over 512 were dropped, and the field was required
    length = 600
    labels = {
        "ss3": np.zeros(length, np.int64),
        "tertiary": np.zeros((length, 3), np.float32),
        "valid_mask": np.ones(length, bool),
        "fold_label": 3,
        "log_fluorescence": [1.0],
        "stability_score": [1.0],
    }
    record = {"primary": "A" * length, **labels}
    for split in ("train", "valid", "test"):
        dataset = kind(write_split(folder, split, [{**record, "protein_length": length}, record]), split)
        assert [len(dataset[index][0]) for index in range(len(dataset))] == [length + 2] * 2


def test_value_tasks_read_and_batch_one_number_per_protein(write_split: Writer) -> None:
    data = write_split("fluorescence", "train", [{"primary": "ACD", "log_fluorescence": [1.5]}, {"primary": "A"}])
    write_split("stability", "train", [{"primary": "AC", "stability_score": np.array([-0.5], np.float32)}])
    dataset = FluorescenceDataset(data, "train")
    ids, mask, value = dataset[0]
    assert ids.tolist() == [2, 5, 7, 8, 3]
    assert mask.tolist() == [1, 1, 1, 1, 1]
    batch = dataset.collate_fn([(ids, mask, value), (ids[:3], mask[:3], 2.0)])
    assert batch["input_ids"].tolist()[1] == [2, 5, 7, 0, 0]
    assert batch["targets"].dtype == torch.float32
    assert batch["targets"].tolist() == [[1.5], [2.0]]
    assert StabilityDataset(data, "train")[0][2] == -0.5
    with pytest.raises(
        DataError, match=r"fluorescence_train\.lmdb, record 1: no field 'log_fluorescence'; present: id, primary"
    ):
        dataset[1]


def test_remote_homology_reads_one_class_per_protein(write_split: Writer) -> None:
    records = [{"primary": "ACD", "fold_label": 1194}, {"primary": "ACD", "fold_label": 1195, "id": "d1"}]
    dataset = RemoteHomologyDataset(write_split("remote_homology", "valid", records), "valid")
    batch = dataset.collate_fn([dataset[0]])
    assert batch["targets"].tolist() == [1194]
    assert batch["targets"].dtype == torch.int64
    with pytest.raises(DataError, match=r"record 1 \(d1\): field 'fold_label' has class 1195; allowed are 0 to 1194"):
        dataset[1]


def test_secondary_structure_has_one_class_per_residue(write_split: Writer) -> None:
    records = [
        {"primary": "ACD", "ss3": np.array([0, 1, 2]), "valid_mask": np.array([True, False, True])},
        {"primary": "AC", "ss3": [2, 2]},
    ]
    dataset = SecondaryStructureDataset(write_split("secondary_structure", "train", records), "train")
    batch = dataset.collate_fn([dataset[0], dataset[1]])
    assert batch["targets"].tolist() == [[-1, 0, -1, 2, -1], [-1, 2, 2, -1, -1]]
    assert batch["input_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no field 'ss3'; present: id, primary"),
        ({"ss3": [0, 1]}, "field 'ss3' has 2 entries for 3 residues"),
        ({"ss3": [0, 1, 3]}, "field 'ss3' has class 3; allowed are 0 to 2"),
        ({"ss3": "HEQ"}, "field 'ss3' has 'Q' at residue 3; allowed are"),
        ({"ss3": 1}, "has a single value for 3 residues"),
        ({"ss3": [0, 1, 2], "valid_mask": [1]}, "field 'valid_mask' has 1 entries for 3 residues"),
    ],
)
def test_invalid_secondary_structure_is_refused_with_file_record_and_field(
    write_split: Writer, fields: dict[str, Any], message: str
) -> None:
    data = write_split("secondary_structure", "cb513", [{"primary": "ACD", **fields}])
    dataset = SecondaryStructureDataset(data, "cb513")
    with pytest.raises(DataError, match=r"secondary_structure_cb513\.lmdb, record 0.*" + re.escape(message)):
        dataset[0]


def test_contact_labels_are_euclidean_below_8_angstrom() -> None:
    rng = np.random.default_rng(0)
    positions = np.cumsum(rng.normal(size=(40, 3)) * 2.5, axis=0)
    valid = rng.random(40) > 0.2
    labels = contact_labels(positions, valid)
    distance = squareform(pdist(positions))
    separation = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    counted = (separation >= 6) & np.outer(valid, valid)
    assert np.array_equal(labels != -1, counted)
    assert np.array_equal(labels[counted], (distance < 8.0)[counted])
    assert (labels == 1).any()


def test_exactly_8_angstrom_is_no_contact_and_unresolved_is_invalid() -> None:
    positions = np.zeros((8, 3))
    positions[6, 0] = 8.0
    positions[7] = np.nan
    labels = contact_labels(positions, np.ones(8, dtype=bool))
    assert labels[0, 6] == 0
    assert labels[0, 7] == labels[1, 7] == -1


def test_contact_batches_are_padded_with_ignored_pairs(write_split: Writer) -> None:
    records = [
        {"primary": "A" * n, "tertiary": np.zeros((n, 3), np.float32), "valid_mask": np.ones(n, bool)} for n in (9, 7)
    ]
    dataset = ProteinnetDataset(write_split("proteinnet", "test", records), "test")
    batch = dataset.collate_fn([dataset[0], dataset[1]])
    assert batch["targets"].shape == (2, 9, 9)
    assert batch["protein_length"].tolist() == [9, 7]
    assert (batch["targets"][1, 7:] == -1).all()
    assert batch["targets"][1, 0, 6] == 1


def test_contact_records_of_the_wrong_size_are_refused(write_split: Writer) -> None:
    records = [
        {"primary": "ACD", "tertiary": np.zeros((3, 2)), "valid_mask": [1, 1, 1]},
        {"primary": "ACD", "tertiary": np.zeros((3, 3))},
    ]
    dataset = ProteinnetDataset(write_split("proteinnet", "test", records), "test")
    with pytest.raises(DataError, match=r"'tertiary' has shape \(3, 2\), not \(3, 3\)"):
        dataset[0]
    with pytest.raises(DataError, match=r"record 1: .* has 3 residues at \(0, 0, 0\).*valid_mask"):
        dataset[1]


def test_masks_are_a_function_of_seed_epoch_and_record(small_data: Path) -> None:
    first, second = (MaskedLanguageModelingDataset(small_data, "train") for _ in range(2))
    first.set_epoch(1, 0)
    second.set_epoch(1, 0)
    assert all(np.array_equal(a, b) for i in (3, 0) for a, b in zip(first[i], second[i], strict=True))
    before = np.concatenate([first[i][2] for i in range(10)])
    first.set_epoch(1, 1)
    assert not np.array_equal(before, np.concatenate([first[i][2] for i in range(10)]))


def test_masks_of_an_evaluated_split_are_the_same_in_every_evaluation(small_data: Path) -> None:
    # bug 21 in docs/compatibility.md: validation was measured on new masks each time
    dataset = MaskedLanguageModelingDataset(small_data, "valid")
    batch = dataset.collate_fn([dataset[0], dataset[1]])
    again = MaskedLanguageModelingDataset(small_data, "valid")
    assert torch.equal(batch["targets"], again.collate_fn([again[0], again[1]])["targets"])
    assert torch.equal(batch["input_ids"], dataset.collate_fn([dataset[0], dataset[1]])["input_ids"])


def test_special_tokens_are_neither_masked_nor_substituted(small_data: Path) -> None:
    # bug 8 in docs/compatibility.md
    dataset = MaskedLanguageModelingDataset(small_data, "train")
    tokenizer = TAPETokenizer()
    for epoch in range(20):
        dataset.set_epoch(0, epoch)
        for index in range(len(dataset)):
            ids, _, labels = dataset[index]
            assert (ids[0], ids[-1], labels[0], labels[-1]) == (tokenizer.cls_id, tokenizer.sep_id, -1, -1)
            assert set(ids[1:-1]) <= {tokenizer.mask_id, *tokenizer.residue_ids}
            assert (labels != -1).sum() >= 1


def test_language_modeling_predicts_every_token(small_data: Path) -> None:
    ids, _, labels = LanguageModelingDataset(small_data, "train")[0]
    assert np.array_equal(ids, labels)


def test_embedding_reads_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">x\nACD\n>y\nAC\n")
    dataset = EmbedDataset(tmp_path / "a.fasta")
    batch = dataset.collate_fn([dataset[0], dataset[1]])
    assert batch["ids"] == ["x", "y"]
    assert batch["input_ids"].shape == (2, 5)


def test_a_missing_split_is_refused_with_a_list_of_those_that_exist(small_data: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'ts115'; splits there: cb513, train, valid"):
        SecondaryStructureDataset(small_data, "ts115")
    with pytest.raises(DataError, match="no such directory; this task reads stability_test.lmdb"):
        StabilityDataset(small_data / "gone", "test")


@pytest.mark.parametrize("suffix", [".txt", ".a3m", ".xlsx"])
def test_a_split_in_a_format_without_labels_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "stability").mkdir()
    (tmp_path / "stability" / f"stability_train{suffix}").write_text(">a stability_score=1\nMKV\n")
    with pytest.raises(DataError, match=rf"stability_train\{suffix}: labels can't be read from this format; .*\.csv"):
        StabilityDataset(tmp_path, "train")


def test_any_split_on_disk_can_be_read(write_split: Writer) -> None:
    data = write_split("stability", "my_own", [{"primary": "AC", "stability_score": [1.0]}])
    assert len(StabilityDataset(data, "my_own")) == 1


def test_lower_case_and_J_are_normalized_and_gaps_are_refused(write_split: Writer) -> None:
    # bug 39 in docs/compatibility.md: lower case and J were a bare KeyError
    records = [{"primary": sequence, "stability_score": [1.0], "id": "odd"} for sequence in ("acJ", "AC-D", "AC*", "")]
    dataset = StabilityDataset(write_split("stability", "train", records), "train")
    assert np.array_equal(dataset[0][0], TAPETokenizer().encode("ACX"))
    for index, message in ((1, "'-' at position 3"), (2, r"'\*' at position 3")):
        with pytest.raises(UnknownResidueError, match=rf"record {index} \(odd\): unknown residue {message}"):
            dataset[index]
    with pytest.raises(DataError, match="record 3 .*'primary' is empty"):
        dataset[3]


def test_a_tokenizer_is_given_by_name_or_as_an_object(small_data: Path) -> None:
    by_name = StabilityDataset(small_data, "train", "unirep")
    as_object = StabilityDataset(small_data, "train", TAPETokenizer("unirep"), in_memory=True)
    assert np.array_equal(by_name[0][0], as_object[0][0])
    assert by_name[0][0][0] == 24


def test_provenance_is_read_from_the_folder_of_the_data_set(small_data: Path, write_split: Writer) -> None:
    stated = dataset_provenance(StabilityDataset(small_data, "train"))
    assert (stated["name"], stated["simulated"]) == ("toy stability", True)
    data = write_split("stability", "train", [{"primary": "AC", "stability_score": [1.0]}])
    assert dataset_provenance(StabilityDataset(data, "train")) == {"name": "stability", "simulated": None}
    (data / "stability" / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json: not valid JSON"):
        dataset_provenance(StabilityDataset(data, "train"))
    assert dataset_provenance(object())["name"] == "object"


@pytest.mark.parametrize("fields", [{"name": 3}, {"simulated": "no"}, {"simulated": 0}])
def test_provenance_of_another_type_is_refused(fields: dict[str, object], write_split: Writer) -> None:
    data = write_split("stability", "train", [{"primary": "AC", "stability_score": [1.0]}])
    (data / "stability" / "dataset.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match=r"dataset\.json: name must be text, and simulated true or false"):
        dataset_provenance(StabilityDataset(data, "train"))


def test_the_number_of_unlabeled_residues_is_logged(write_split: Writer, caplog: pytest.LogCaptureFixture) -> None:
    data = write_split("secondary_structure", "train", [{"primary": "MKVL", "ss3": [0, -1, 2, 1]}] * 2)
    with caplog.at_level("INFO"):
        dataset = load_split(SecondaryStructureDataset, data, "train", "iupac")
    assert dataset.build_index().unlabeled == 2
    assert "train: 2 of 8 residues have no label" in caplog.messages

"""prepare_data.py: content of the LMDB folders and the corpus, repeated runs, errors, and the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from pretrain.data.indexed_dataset import IndexedDataset
from proteinlm.data.prepare_data import Options, main, prepare
from tape.errors import ConfigError, DataError
from tape.io.lmdb_store import LMDBReader
from tape.io.records import RecordOptions
from tape.io.structures.dssp import find_dssp
from tape.tokenizers import TAPETokenizer
from tests.support.structure_files import new_structure, write_structure


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "corpus_train.fasta").write_text(">a\nMKV-l\n>b\nACDEF*\n")
    (folder / "corpus_valid.txt").write_text("G C T V\n")
    (folder / "fluorescence_train.csv").write_text("id,primary,log_fluorescence\nx,MKV,3.5\ny,MKA,1.25\n")
    (folder / "fluorescence_test.fasta").write_text(">z log_fluorescence=2\nMKG\n")
    row = {"primary": "MKV", "ss3": "CHE", "valid_mask": "011"}
    (folder / "secondary_structure_train.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def counts(done) -> dict[tuple[str, str], int]:
    return {(split.folder, split.split): split.records for split in done}


def test_records_are_written_per_folder_and_split(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    assert counts(prepare(source, target)) == {
        ("corpus", "train"): 2,
        ("corpus", "valid"): 1,
        ("secondary_structure", "train"): 1,
        ("fluorescence", "train"): 2,
        ("fluorescence", "test"): 1,
    }
    reader = LMDBReader(target / "fluorescence" / "fluorescence_train.lmdb")
    assert reader[1] == {"id": "y", "primary": "MKA", "protein_length": 3, "log_fluorescence": [1.25]}
    assert LMDBReader(target / "fluorescence" / "fluorescence_test.lmdb")[0]["id"] == "z"
    record = LMDBReader(target / "secondary_structure" / "secondary_structure_train.lmdb")[0]
    np.testing.assert_array_equal(record["valid_mask"], [False, True, True])
    described = json.loads((target / "fluorescence" / "dataset.json").read_text())
    assert described["name"] == "mine: fluorescence"
    assert described["simulated"] is False
    assert described["splits"] == {"train": 2, "test": 1}
    corpus = IndexedDataset(target / "corpus" / "train_text_document")
    assert [TAPETokenizer().decode(corpus[i]) for i in range(2)] == ["MKVL", "ACDEF"]


def test_a_second_run_prepares_only_changed_splits(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    prepare(source, target)
    stamp = (target / "fluorescence" / "fluorescence_train.lmdb" / "data.mdb").stat().st_mtime_ns
    time.sleep(0.01)
    assert all(split.unchanged for split in prepare(source, target))
    (source / "fluorescence_test.fasta").write_text(">z log_fluorescence=2\nMKG\n>w log_fluorescence=3\nMKL\n")
    (source / "corpus_valid.txt").write_text("GCTV\nMK\n")
    again = {(split.folder, split.split): split.unchanged for split in prepare(source, target)}
    assert [key for key, unchanged in again.items() if not unchanged] == [("corpus", "valid"), ("fluorescence", "test")]
    assert (target / "fluorescence" / "fluorescence_train.lmdb" / "data.mdb").stat().st_mtime_ns == stamp
    assert json.loads((target / "fluorescence" / "dataset.json").read_text())["splits"] == {"train": 2, "test": 2}
    assert not any(split.unchanged for split in prepare(source, target, Options(overwrite=True)))


def _damage(file: Path, keep: int) -> None:
    """Shorten a file to ``keep`` bytes, or change its last byte if it has no more."""
    content = file.read_bytes()
    file.write_bytes(content[:keep] if keep < len(content) else content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("keep", [0, 4096, 1 << 30], ids=["empty", "half", "one_byte"])
@pytest.mark.parametrize(
    "file",
    ["fluorescence/fluorescence_train.lmdb/data.mdb", *(f"corpus/train_text_document.{e}" for e in ("bin", "idx"))],
)
def test_outputs_that_are_not_as_they_were_written_are_prepared_again(
    source: Path, tmp_path: Path, file: str, keep: int
) -> None:
    target = tmp_path / "data"
    prepare(source, target)
    written = (target / file).read_bytes()
    _damage(target / file, keep)
    again = [(split.folder, split.split) for split in prepare(source, target) if not split.unchanged]
    assert again == [(file.partition("/")[0], "train")]
    assert (target / file).read_bytes() == written
    assert all(split.unchanged for split in prepare(source, target))


def test_a_split_replaced_by_a_run_that_was_killed_before_its_record_is_prepared_again(
    source: Path, tmp_path: Path
) -> None:
    target, options = tmp_path / "data", Options(tasks=("fluorescence",))
    prepare(source, target, options)
    state, table = target / "fluorescence" / "prepared.json", source / "fluorescence_train.csv"
    recorded, content = state.read_text(), table.read_text()
    table.write_text(content.replace("3.5", "4.5"))
    prepare(source, target, options)
    state.write_text(recorded)  # killed after the LMDB directory was renamed
    table.write_text(content)
    prepare(source, target, options)
    record = LMDBReader(target / "fluorescence" / "fluorescence_train.lmdb")[0]
    assert record["log_fluorescence"] == [3.5]


def test_a_state_of_an_earlier_version_without_output_sums_is_prepared_again(source: Path, tmp_path: Path) -> None:
    target, options = tmp_path / "data", Options(tasks=("fluorescence",))
    prepare(source, target, options)
    state = target / "fluorescence" / "prepared.json"
    content = json.loads(state.read_text())
    for entry in content["splits"].values():
        del entry["written"]
    state.write_text(json.dumps(content))
    assert not any(split.unchanged for split in prepare(source, target, options))


def test_a_log_file_has_the_throughput_of_the_corpus(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(source, tmp_path / "data", Options(tasks=("corpus",)))
    assert "100% | 2 sequences, 9 residues | " in capsys.readouterr().err


def test_another_option_of_the_corpus_prepares_it_again(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    (source / "corpus_train.fasta").write_text(">a\nMKVL\n>b\n\n")
    prepare(source, target, Options(tasks=("corpus", "fluorescence"), skip_empty=True))
    again = prepare(source, target, Options(tasks=("fluorescence",)))
    assert all(split.unchanged for split in again)  # labeled records don't depend on it
    with pytest.raises(DataError, match="empty"):
        prepare(source, target, Options(tasks=("corpus",)))


def test_named_columns_are_read_and_another_name_prepares_again(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    table = "name,accession,text,sequence,stability_score\nx,P1,MK,MKV,1\n"
    (tmp_path / "source" / "stability_train.csv").write_text(table)
    with pytest.raises(DataError, match="'text' and 'sequence' may both be the sequence"):
        prepare(tmp_path / "source", tmp_path / "data")
    for options, expected in (
        (RecordOptions(None, "sequence"), ("x", "MKV")),
        (RecordOptions(None, "text"), ("x", "MK")),
        (RecordOptions(None, "text", "accession"), ("P1", "MK")),
    ):
        prepare(tmp_path / "source", tmp_path / "data", Options(records=options))
        record = LMDBReader(tmp_path / "data" / "stability" / "stability_train.lmdb")[0]
        assert (record["id"], record["primary"]) == expected


def test_limit_and_tasks_restrict_what_is_prepared(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    options = Options(tasks=("corpus", "fluorescence", "masked_language_modeling"), limit=1)
    done = counts(prepare(source, target, options))
    assert json.loads((target / "fluorescence" / "dataset.json").read_text())["limit"] == 1
    assert set(done.values()) == {1}
    assert {folder for folder, _ in done} == {"corpus", "fluorescence", "pfam"}
    assert LMDBReader(target / "pfam" / "pfam_train.lmdb")[0] == {
        "id": "a",
        "primary": "MKVL",
        "protein_length": 4,
        "clan": -1,
        "family": -1,
    }
    assert not any(split.unchanged for split in prepare(source, target, Options(tasks=("fluorescence",))))
    with pytest.raises(DataError, match="nothing found for stability"):
        prepare(source, target, Options(tasks=("stability",)))
    with pytest.raises(ConfigError, match="--limit"):
        Options(limit=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": []},
        {"splits": None},
        {"splits": {"train": {"made_from": {}, "records": 2}}},
        {"splits": {"train": {"made_from": {}, "records": "2", "substitutions": {}}}},
        {"splits": {"train": {"made_from": {}, "records": 2, "substitutions": {"J": "2"}}}},
    ],
)
def test_a_damaged_state_is_named_and_replaced_on_request(
    source: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    target, options = tmp_path / "data", Options(tasks=("fluorescence",))
    prepare(source, target, options)
    state = target / "fluorescence" / "prepared.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | changes))
    with pytest.raises(ConfigError, match=r"prepared\.json: damaged, .*--overwrite"):
        prepare(source, target, options)
    prepare(source, target, Options(tasks=("fluorescence",), overwrite=True))
    assert json.loads(state.read_text())["splits"]["train"]["records"] == 2


def test_a_difference_in_the_license_alone_is_named(source: Path, tmp_path: Path) -> None:
    stated = {"datasets": {"fluorescence": {"name": "x", "licence": "CC0"}}}
    (source / "provenance.json").write_text(json.dumps(stated))
    prepare(source, tmp_path / "data", Options(tasks=("fluorescence",)))
    (source / "provenance.json").write_text(json.dumps(stated).replace("CC0", "MIT"))
    with pytest.raises(ConfigError, match="contains licence 'CC0', not 'MIT'"):
        prepare(source, tmp_path / "data", Options(tasks=("fluorescence",)))


def test_data_sets_of_different_sources_are_not_mixed(source: Path, tmp_path: Path) -> None:
    target, other = tmp_path / "data", tmp_path / "other"
    prepare(source, target, Options(tasks=("fluorescence",)))
    other.mkdir()
    (other / "fluorescence_train.csv").write_text("primary,log_fluorescence\nMKV,3.5\n")
    with pytest.raises(ConfigError, match=r"contains 'mine: fluorescence', not 'other: fluorescence'"):
        prepare(other, target)
    (other / "fluorescence_valid.csv").write_text("primary,log_fluorescence\nMKV,bright\n")
    with pytest.raises(DataError, match="bright"):
        prepare(other, target, Options(overwrite=True))
    assert len(LMDBReader(target / "fluorescence" / "fluorescence_train.lmdb")) == 2  # the old one is unchanged
    (other / "fluorescence_valid.csv").unlink()
    prepare(other, target, Options(overwrite=True))
    assert sorted(path.name for path in (target / "fluorescence").glob("*.lmdb")) == ["fluorescence_train.lmdb"]
    (target / "stability").mkdir()
    (target / "stability" / "theirs").touch()
    (other / "stability_train.csv").write_text("primary,stability_score\nMKV,3.5\n")
    with pytest.raises(ConfigError, match="was not made by this command"):
        prepare(other, target)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "stability_train.csv",
            "primary,stability_score\nMK,1\nM?,2\n",
            r"stability_train\.csv, record 2: unknown residue",
        ),
        ("stability_train.csv", "primary,stability_score\n", r"stability_train\.csv: no records"),
        ("corpus_test.fasta", ">a\nMK\n>b\n", r"corpus_test\.fasta, record 2 \(b\): empty record"),
    ],
)
def test_a_bad_record_leaves_no_partial_files(source: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    (source / name).write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(source, tmp_path / "data")
    folder = tmp_path / "data" / name.split("_")[0]
    assert not [path for path in folder.iterdir() if path.suffix in (".lmdb", ".tmp", ".bin") and "test" in path.name]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_an_empty_source_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set found"):
        prepare(tmp_path, tmp_path / "data")


def test_the_embedded_sample_is_prepared_completely(
    repository_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "data"
    main([str(repository_root / "tape" / "sample"), str(target)])
    shown = capsys.readouterr().out
    assert "simulated fluorescence  SIMULATED" in shown
    assert "PDB chains (not ProteinNet; embedded sample)\n" in shown
    for folder in ("secondary_structure", "proteinnet"):
        records = LMDBReader(target / folder / f"{folder}_test.lmdb")
        assert len(records) == 116
        assert len(records[0]["ss3"]) == records[0]["protein_length"]
    contacts = LMDBReader(target / "proteinnet" / "proteinnet_train.lmdb")[0]
    assert contacts["tertiary"].shape == (contacts["protein_length"], 3)
    described = json.loads((target / "stability" / "dataset.json").read_text())
    assert described["simulated"] is True
    assert (target / "corpus" / "train_text_document.idx").exists()


def test_the_command_prints_help_and_one_line_errors(
    source: Path, tmp_path: Path, run_script, assert_clean_error
) -> None:
    shown = run_script("scripts/prepare_data.py", "--help", cwd=tmp_path, check=True).stdout
    assert "log_fluorescence: a number" in shown
    run_script("scripts/prepare_data.py", source, tmp_path / "data", cwd=tmp_path, check=True)
    (source / "fluorescence_train.csv").write_text("primary,log_fluorescence\nMKV,bright\n")
    result = run_script("scripts/prepare_data.py", source, tmp_path / "data", cwd=tmp_path)
    assert_clean_error(result, "fluorescence_train.csv", "record 1", "bright")


def test_the_real_data_are_prepared(shared_data: Path, tmp_path: Path) -> None:
    tasks = ("secondary_structure", "contact_prediction", "remote_homology", "fluorescence", "stability")
    done = prepare(shared_data, tmp_path / "data", Options(tasks=tasks, limit=20))
    assert len(done) == 15
    folder = tmp_path / "data" / "secondary_structure"
    masked = next(record for record in LMDBReader(folder / "secondary_structure_train.lmdb"))
    assert not masked["valid_mask"][0]
    assert masked["valid_mask"].sum() == 95
    assert "ss8" in LMDBReader(folder / "secondary_structure_cb513.lmdb")[0]


def structures(folder: Path, *sequences: str, suffix: str = "pdb") -> Path:
    folder.mkdir(parents=True)
    for number, sequence in enumerate(sequences):
        write_structure(folder / f"{folder.name}{number}.{suffix}", new_structure({"A": sequence}))
    return folder


@pytest.fixture
def no_dssp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_dssp")
def test_structure_files_in_folders_of_splits_become_contacts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "mine", tmp_path / "data"
    for split, sequence in (("train", "MKVLAGIW"), ("test", "ACDEFGHI")):
        structures(source / "structures" / split, sequence, suffix="cif")
    assert counts(prepare(source, target)) == {("proteinnet", "train"): 1, ("proteinnet", "test"): 1}
    record = LMDBReader(target / "proteinnet" / "proteinnet_test.lmdb")[0]
    assert (record["id"], record["primary"], "ss3" in record) == ("test0-A", "ACDEFGHI", False)
    assert (record["tertiary"].shape, record["valid_mask"].all()) == ((8, 3), True)
    assert "secondary structure of structure files needs DSSP 4 on the PATH" in capfd.readouterr().err
    with pytest.raises(DataError, match="mine: secondary structure of structure files needs DSSP 4"):
        prepare(source, target, Options(tasks=("secondary_structure",)))


@pytest.mark.usefixtures("no_dssp")
def test_a_folder_of_structure_files_is_divided_by_sequence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sequences = [f"MK{a}{b}LAGIWYTR" for a in "ACDE" for b in "FGHIK"]
    source = structures(tmp_path / "mine", *sequences, *sequences[:3])
    done = prepare(source, tmp_path / "data")
    assert "drew the splits of 20 different sequences: train 16, valid 2, test 2" in capfd.readouterr().err
    assert [(split.split, split.unchanged) for split in done] == [("train", False), ("valid", False), ("test", False)]
    parts = [set(), set(), set()]
    for part, split in zip(parts, done, strict=True):
        reader = LMDBReader(tmp_path / "data" / "proteinnet" / f"proteinnet_{split.split}.lmdb")
        part |= {reader[i]["primary"] for i in range(len(reader))}
    assert [len(part) for part in parts] == [16, 2, 2]
    assert set.union(*parts) == set(sequences)
    assert sum(split.records for split in done) == 23
    assert all(split.unchanged for split in prepare(source, tmp_path / "data"))


@pytest.mark.usefixtures("no_dssp")
def test_options_of_structure_files_change_what_is_prepared(tmp_path: Path) -> None:
    folder = structures(tmp_path / "mine" / "structures" / "train", "MKVLAGIW")
    write_structure(folder / "two.pdb", new_structure({"A": "MKV", "B": "ACD"}))
    words = [str(tmp_path / "mine"), str(tmp_path / "data")]
    main(words)
    reader = LMDBReader(tmp_path / "data" / "proteinnet" / "proteinnet_train.lmdb")
    before = reader[0]["tertiary"]
    main([*words, "--chain", "A", "--atom", "CB"])
    reader = LMDBReader(tmp_path / "data" / "proteinnet" / "proteinnet_train.lmdb")
    assert [reader[i]["id"] for i in range(len(reader))] == ["train0-A", "two-A"]
    distances = np.linalg.norm(reader[0]["tertiary"] - before, axis=1)
    np.testing.assert_allclose(distances, [0 if letter == "G" else 1.53 for letter in "MKVLAGIW"], atol=2e-3)


@pytest.mark.skipif(find_dssp() is None, reason="needs DSSP: apt install dssp")
def test_secondary_structure_is_that_of_dssp(tmp_path: Path) -> None:
    folder = structures(tmp_path / "mine" / "structures" / "train", "MKVLAGIWYT")
    source, target = folder.parents[1], tmp_path / "data"
    assert counts(prepare(source, target)) == {("secondary_structure", "train"): 1, ("proteinnet", "train"): 1}
    record = LMDBReader(target / "secondary_structure" / "secondary_structure_train.lmdb")[0]
    np.testing.assert_array_equal(record["ss3"], [2, *[0] * 8, 2])


@pytest.mark.usefixtures("no_dssp")
def test_layouts_of_structure_files_that_leave_a_doubt_are_refused(tmp_path: Path) -> None:
    few = structures(tmp_path / "few", "MKV", "ACD", "MKV")
    with pytest.raises(DataError, match=r"few: 3 splits \(train, valid, test\) can't be drawn from 2"):
        prepare(few, tmp_path / "data")
    mixed = structures(tmp_path / "mixed", "MKV")
    structures(mixed / "structures" / "train", "MKV")
    with pytest.raises(DataError, match=r"mixed0\.pdb: is in no split, while .*train is one"):
        prepare(mixed, tmp_path / "data")
    (mixed / "mixed0.pdb").unlink()
    (mixed / "structures" / "pdb_train.tsv.xz").touch()
    with pytest.raises(DataError, match="mixed: has chains both as tables .* and as structure files"):
        prepare(mixed, tmp_path / "data")


@pytest.mark.skipif(find_dssp() is None, reason="needs DSSP: apt install dssp")
def test_structures_without_a_backbone_have_no_secondary_structure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine" / "structures" / "train"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        trace = new_structure({"A": "MKVLAGIW"})
        for residue in trace[0]["A"]:
            for atom in ("N", "C", "O", "CB"):
                if atom in residue:
                    residue.remove_atom(atom, "\0", residue[atom][0].element)
        write_structure(folder / f"{name}.pdb", trace)
    with pytest.raises(DataError, match=r"a\.pdb and 1 other files: no records for .*; --tasks leaves data sets out"):
        prepare(tmp_path / "mine", tmp_path / "data")
    assert "secondary_structure: 2 chains to which DSSP assigned no state are left out" in capfd.readouterr().err
    only = Options(tasks=("contact_prediction",))
    assert counts(prepare(tmp_path / "mine", tmp_path / "data", only)) == {("proteinnet", "train"): 2}

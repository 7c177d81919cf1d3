"""A folder of structure files from training to evaluation, contact maps and Python, by the commands."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

import tape
from tape.cli.contacts import run_contacts
from tape.cli.train import finetune_config
from tape.errors import ConfigError, DataError
from tape.main import run_eval, run_train
from tape.tables.table import table_for_training
from tests.support.fake_dssp import install_fake_dssp
from tests.support.structure_files import THREE_LETTERS, set_sequence, write_structure

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
UNRESOLVED = 2  # residues without coordinates at the start of each chain
ONE_EPOCH = ("--time_or_name", "t", "--num_train_epochs", "1", "--no_cuda", "--log_level", "40")
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def hairpin(length: int) -> np.ndarray:
    """(length, 3) C-alpha atoms of two antiparallel strands, 5.5 Angstrom apart."""
    turn = length // 2
    steps = [number if number < turn else length - 1 - number for number in range(length)]
    return np.array([[3.8 * step, 5.5 * (number >= turn), 0.0] for number, step in enumerate(steps)])


def contacts_of(points: np.ndarray, unresolved: int = UNRESOLVED) -> np.ndarray:
    """(L, L): 1 below 8 Angstrom, 0 elsewhere, -1 at unresolved residues and separations below 6."""
    size = len(points) + unresolved
    labels = np.full((size, size), -1)
    for i in range(unresolved, size):
        for j in range(unresolved, size):
            if abs(i - j) >= 6:
                labels[i, j] = np.linalg.norm(points[i - unresolved] - points[j - unresolved]) < 8.0
    return labels


def write_chain(path: Path, sequence: str, beta_shift: float = 0.0) -> None:
    """A file with chain A, whose first residues are in the sequence only."""
    structure = gemmi.Structure()
    structure.cell = gemmi.UnitCell(1, 1, 1, 90, 90, 90)
    chain = structure.add_model(gemmi.Model(1)).add_chain(gemmi.Chain("A"))
    points = hairpin(len(sequence) - UNRESOLVED)
    for number, (letter, point) in enumerate(zip(sequence[UNRESOLVED:], points, strict=True), start=UNRESOLVED + 1):
        residue = gemmi.Residue()
        residue.name, residue.seqid, residue.het_flag = THREE_LETTERS[letter], gemmi.SeqId(str(number)), "A"
        for name, shift in (("CA", 0.0), ("CB", beta_shift)):
            atom = gemmi.Atom()
            atom.name, atom.element, atom.occ = name, gemmi.Element("C"), 1.0
            atom.pos = gemmi.Position(point[0], point[1], point[2] + shift * number)
            residue.add_atom(atom)
        chain.add_residue(residue)
    set_sequence(structure, "A", [THREE_LETTERS[letter] for letter in sequence])
    write_structure(path, structure)


def write_folder(folder: Path, count: int = 12, seed: int = 0, suffixes: Sequence[str] = (".pdb", ".cif")) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        sequence = "".join(rng.choice(list(RESIDUES.replace("G", "")), 20 + number % 3))
        write_chain(folder / f"c{seed}{number:02}{suffixes[number % len(suffixes)]}", sequence)
    return folder


@pytest.fixture
def structures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    return write_folder(tmp_path / "structures")


def words(data: Path, *options: object) -> list[str]:
    fixed = ["transformer", "--data", data, "--task-type", "contact", "--model_config_file", "tiny.json", "--no_cuda"]
    return [*map(str, fixed), "--time_or_name", "t", "--log_level", "40", *map(str, options)]


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def results_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pickle.loads((folder / "results.pkl").read_bytes())[1]
    return found


def test_from_structure_files_to_a_contact_map(structures: Path, tmp_path: Path) -> None:
    run = run_train(words(structures, "--num_train_epochs", 1))
    assert run.name == "structures_contact_transformer_t"
    splits = rows_of(run / "splits.tsv", "\t")
    assert sorted(row["id"] for row in splits) == [f"c0{number:02}-A" for number in range(12)]
    assert {row["split"] for row in splits} == {"train", "valid", "test"}
    arguments = json.loads((run / "args.json").read_text(encoding="utf-8"))
    assert (arguments["contact_head"], arguments["batch_size"], arguments["eval_splits"]) == ("linear", 8, ["test"])
    config = json.loads((run / "0" / "config.json").read_text(encoding="utf-8"))
    assert config["target"] == {
        "task": "structures_contact",
        "type": "contact",
        "column": "tertiary",
        "atom": "CA",
    }

    other = write_folder(tmp_path / "other", count=3, seed=1, suffixes=(".bcif", ".pdb"))
    options = ["--split", "new", "--no_cuda", "--output_dir", "out", "--log_level", "40", "--bootstrap", "10"]
    metrics = run_eval(["transformer", str(run), "--data", str(other), *options])
    assert np.isfinite(metrics["precision_at_l5"])
    results = results_of(Path("out"))
    assert [result["id"] for result in results] == ["c100-A", "c101-A", "c102-A"]
    for result in results:
        expected = contacts_of(hairpin(len(result["target"]) - UNRESOLVED))
        assert (expected == 1).any()
        np.testing.assert_array_equal(result["target"], expected)

    Path("new.fasta").write_text(">new\nMKTAYIAKQRQISFVKSHFS\n", encoding="utf-8")
    table = run_contacts(
        ["transformer", str(run), "--predict", "new.fasta", "--predict_out", "maps.csv", "--plot", "--no_cuda"]
    )
    (row,) = rows_of(table)
    assert row["id"] == "new"
    with np.load(row["map"]) as arrays:
        found = arrays["probabilities"]
    assert found.shape == (20, 20)
    assert ((found >= 0) & (found <= 1)).all()
    assert Path(row["map"]).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    loaded = tape.load(run, device="cpu")
    np.testing.assert_allclose(loaded.contacts("MKTAYIAKQRQISFVKSHFS"), found, atol=1e-6)
    assert loaded.predict("MKTAYIAKQRQISFVKSHFS")["probabilities"][0].shape == (20, 20)


def test_python_trains_on_a_folder_and_resumes_by_the_command(structures: Path) -> None:
    model = tape.finetune(
        structures,
        task_type="contact",
        model="onehot",
        time_or_name="p",
        num_train_epochs=1,
        no_cuda=True,
        log_level=40,
    )
    assert model.contacts("MKTAYIAKQR").shape == (10, 10)
    run = Path("results/structures_contact_onehot_p")
    resumed = run_train(
        ["onehot", "--from_pretrained", str(run), "--resume_from_checkpoint", "--num_train_epochs", "2", "--no_cuda"]
    )
    assert resumed.resolve() == run.resolve()
    assert (run / "1").is_dir()


def test_the_atom_is_kept_for_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "structures"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for number in range(12):
        write_chain(folder / f"c{number}.cif", "".join(rng.choice(list("ACDEFHIK"), 20)), beta_shift=3.0)
    run = run_train(["onehot", "--data", str(folder), "--task-type", "contact", "--atom", "CB", *ONE_EPOCH])
    beta = hairpin(18) + [[0.0, 0.0, 3.0 * number] for number in range(UNRESOLVED + 1, 21)]
    run_eval(["onehot", str(run), "--split", "test", "--no_cuda", "--output_dir", "out"])
    expected = contacts_of(beta)
    assert (expected != contacts_of(hairpin(18))).any()
    for result in results_of(Path("out")):
        np.testing.assert_array_equal(result["target"], expected)


def test_folders_of_splits_are_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pdbs"
    for seed, split in enumerate(("train", "validation", "casp")):
        write_folder(folder / split, count=8 - 2 * seed, seed=seed)
    run = run_train(["onehot", "--data", str(folder), "--task-type", "contact", *ONE_EPOCH])
    splits = rows_of(run / "splits.tsv", "\t")
    assert [row["split"] for row in splits] == ["casp"] * 4 + ["train"] * 8 + ["valid"] * 6
    (folder / "validation").rename(folder / "holdout")
    config = finetune_config(["onehot", "--data", str(folder), "--task-type", "contact"])
    table = table_for_training(config.data.table)
    assert (
        f"the folders in {folder}: no split valid, so a tenth of train was drawn with seed 42; add one to choose it"
        in (table.notices)
    )
    (folder / "train" / "c000.pdb").rename(folder / "c000.pdb")
    with pytest.raises(DataError, match=r"c000\.pdb: not in the folder of a split"):
        finetune_config(["onehot", "--data", str(folder), "--task-type", "contact"])


def test_what_the_reader_announces_is_in_the_log_file(structures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in structures.glob("*.pdb"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("SEQRES")]
        file.write_text("\n".join(lines) + "\n")
    notice = "chains without a sequence (SEQRES), which consist of their residues with coordinates: 6 (c000-A, "
    run = run_train([*words(structures, "--num_train_epochs", 1), "--log_level", "30"])
    assert capsys.readouterr().err.count(notice) == 2  # of the training, and of the evaluation on ``test``
    assert (run / "log").read_text().count(notice) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "contacts .--task-type contact. and secondary structure .--target ss3 or ss8.; give one"),
        (("--target", "Tm"), "not Tm; give one of them"),
        (("--task-type", "contact", "--target", "Tm"), "leave out --target"),
        (("--task-type", "regression", "--target", "tertiary"), "is a target of the type contact"),
        (("--task-type", "contact", "--sequence_column", "s"), "have no columns"),
        (("--task-type", "contact", "--labels", "l.csv"), "labels of structure files are read from these"),
        (("--target", "ss3"), "needs DSSP 4 on the PATH"),
    ],
)
def test_other_targets_of_structures_are_refused(
    structures: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=message):
        finetune_config(["onehot", "--data", str(structures), *options])


def test_coordinates_of_a_table_are_contacts_too(structures: Path, tmp_path: Path) -> None:
    lines = []
    for number in range(12):
        points = hairpin(14).tolist()
        points[3] = None
        record = {"id": f"p{number}", "sequence": "MKTAYIAKQRQI" + RESIDUES[number] + "F", "tertiary": points}
        lines.append(json.dumps(record))
    table = tmp_path / "points.jsonl"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = run_train(["onehot", "--data", str(table), "--target", "tertiary", *ONE_EPOCH])
    run_eval(["onehot", str(run), "--split", "test", "--no_cuda", "--output_dir", "out"])
    expected = contacts_of(hairpin(14), 0)
    expected[3] = expected[:, 3] = -1
    np.testing.assert_array_equal(results_of(Path("out"))[0]["target"], expected)
    with pytest.raises(ConfigError, match="no structure file or folder of such files"):
        finetune_config(["onehot", "--data", str(table), "--target", "tertiary", "--atom", "CB"])


@pytest.mark.parametrize(
    ("column", "states", "classes"), [("ss8", "HECTGC", "GHIBESTC"), ("ss3", "HECCHC", "HEC")], ids=["ss8", "ss3"]
)
def test_secondary_structure_is_that_of_dssp(
    structures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, states: str, classes: str
) -> None:
    program = install_fake_dssp(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(program.parent))
    run = run_train(["onehot", "--data", str(structures), "--target", column, *ONE_EPOCH])
    assert run.name == f"structures_{column}_onehot_t"
    run_eval(["onehot", str(run), "--split", "test", "--no_cuda", "--output_dir", "out"])
    for result in results_of(Path("out")):
        # between <cls> and <sep>; the residues without coordinates have no state, and those with them are numbered
        # from 1 for the program
        labels = result["target"][1:-1].tolist()
        expected = [classes.index(states[number % len(states)]) for number in range(1, len(labels) - UNRESOLVED + 1)]
        assert labels == [-1] * UNRESOLVED + expected

"""Structure files in the wwPDB's form from training to evaluation and contact maps, by the commands."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tape.cli.contacts import run_contacts
from tape.main import run_eval, run_train
from tests.support.archive_files import Chain, Residue, archive_mmcif
from tests.support.structure_files import THREE_LETTERS

LENGTH = 22
UNRESOLVED = frozenset({0, 1, 9, 10, 21})
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def hairpin(distance: float) -> np.ndarray:
    """(LENGTH, 3) C-alpha atoms of two strands in Angstrom."""
    steps = [min(number, LENGTH - 1 - number) for number in range(LENGTH)]
    return np.array([[3.8 * step, distance * (number >= LENGTH // 2), 0.0] for number, step in enumerate(steps)])


def contacts_of(points: np.ndarray) -> list[list[int]]:
    """1 below 8 Angstrom, 0 elsewhere, -1 at unresolved residues and separations below 6."""

    def label(i: int, j: int) -> int:
        if abs(i - j) < 6 or UNRESOLVED & {i, j}:
            return -1
        return int(float(np.linalg.norm(points[i] - points[j])) < 8.0)

    return [[label(i, j) for j in range(LENGTH)] for i in range(LENGTH)]


def chain_of(rng: np.random.Generator, label: str, author: str, distance: float) -> Chain:
    """A hairpin with the numbers of residues from -5, without 0, and a selenomethionine."""
    names = [THREE_LETTERS[letter] for letter in rng.choice(list("ACDEFHIKLNPQRSTVWY"), LENGTH)]
    names[4] = "MSE"
    numbers = [number for number in range(-5, LENGTH) if number][:LENGTH]
    points = hairpin(distance).tolist()
    residues = [
        Residue((name,), number, None if place in UNRESOLVED else tuple(points[place]))
        for place, (name, number) in enumerate(zip(names, numbers, strict=True))
    ]
    return Chain(label, author, residues)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files with chains that the authors call B and A: the strands of B are 5 and those of A are 7.5 Angstrom apart."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.json").write_text(json.dumps(TINY | {"max_position_embeddings": 64}), encoding="utf-8")
    folder = tmp_path / "archive"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        chains = [chain_of(rng, "A", "B", 5.0), chain_of(rng, "B", "A", 7.5)]
        (folder / f"{number}abc.cif").write_text(archive_mmcif(chains), encoding="ascii")
    return folder


def test_contacts_of_archive_files_by_training_evaluation_and_prediction(archive: Path) -> None:
    words = ["transformer", "--data", str(archive), "--task-type", "contact", "--model_config_file", "tiny.json"]
    once = ["--num_train_epochs", "1", "--time_or_name", "t", "--no_cuda", "--log_level", "40"]
    run = run_train([*words, *once])
    shared = ["--no_cuda", "--log_level", "40"]
    metrics = run_eval(
        ["transformer", str(run), "--data", str(archive), "--split", "all", "--output_dir", "out", *shared]
    )
    assert np.isfinite(metrics["precision_at_l5"])
    results = pickle.loads(Path("out", "results.pkl").read_bytes())[1]
    assert sorted(result["id"] for result in results) == [f"{n}abc-{name}" for n in range(6) for name in "AB"]
    for result in results:
        points = hairpin(5.0 if result["id"].endswith("B") else 7.5)
        np.testing.assert_array_equal(result["target"], contacts_of(points))
    assert contacts_of(hairpin(5.0)) != contacts_of(hairpin(7.5))
    Path("new.fasta").write_text(">new\nMKTAYIAKQRQISFVKSHFS\n", encoding="utf-8")
    table = run_contacts(["transformer", str(run), "--predict", "new.fasta", "--predict_out", "maps.csv", "--no_cuda"])
    with table.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    with np.load(row["map"]) as maps:
        assert maps["probabilities"].shape == (20, 20)

"""Tables of a user's size against linear models, with a stand-in for the training."""

from __future__ import annotations

import csv
import json
import lzma
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import own_tables
from benchmarks.own_tables import KINDS, SPLITS, draw_table, linear_score, read_proteins
from tape.cli.train import create_train_parser
from tape.errors import ConfigError
from tape.io.writing import write_json

STABILITY, FOLD = KINDS
SCORE = 0.25


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """100 proteins of each kind, whose composition determines value and fold; test splits of 20."""
    monkeypatch.setattr(own_tables, "TEST_PROTEINS", 20)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(100)]
    rows: dict[str, list[Any]] = {
        STABILITY.source: [{"primary": one, "stability_score": [one.count("W") / 30]} for one in sequences],
        FOLD.source: [{"primary": one, "fold_label": int(one.count("W") > 1)} for one in sequences],
    }
    for source, records in rows.items():
        path = tmp_path / "data" / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress("".join(json.dumps(one) + "\n" for one in records).encode()))
    return tmp_path / "data"


def test_splits_have_their_sizes_and_no_common_protein(data: Path) -> None:
    splits = draw_table(read_proteins(data, STABILITY), STABILITY, 50, seed=1)
    assert {split: len(proteins) for split, proteins in splits.items()} == {"valid": 10, "train": 40, "test": 20}
    counted = Counter(one.sequence for proteins in splits.values() for one in proteins)
    assert len(counted) == 70


def test_a_table_larger_than_the_source_is_an_error(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"tape/stability_train.jsonl.xz: 100 proteins to draw 320 from"):
        draw_table(read_proteins(data, STABILITY), STABILITY, 300, seed=1)


def test_folds_are_the_most_frequent_ones(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_tables, "CLASSES", {50: 1})
    proteins = read_proteins(data, FOLD)
    (frequent, count), (rare, _) = Counter(one.label for one in proteins).most_common()
    assert count >= 50
    monkeypatch.setattr(own_tables, "TEST_PROTEINS", count - 50)
    splits = draw_table(proteins, FOLD, 50, seed=1)
    assert {one.label for split in SPLITS for one in splits[split]} == {frequent}
    assert rare == "fold_1"


def test_a_linear_model_learns_what_the_composition_determines(data: Path) -> None:
    for kind, least in ((STABILITY, 0.95), (FOLD, 0.85)):
        assert linear_score(draw_table(read_proteins(data, kind), kind, 50, seed=1), kind) > least


def test_each_table_is_trained_on_and_its_scores_are_reported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[dict[str, Any]] = []

    def train(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given = vars(create_train_parser().parse_args(command[2:]))
        trained.append(given)
        metric = STABILITY.metric if given["exp_name"].startswith("stability") else FOLD.metric
        run = Path(given["output_dir"]) / given["exp_name"]
        folder = run / "3"
        folder.mkdir(parents=True)
        write_json(run / "best.json", {"directory": folder.name})
        write_json(
            folder / "eval_test.json", {"metrics": [{"name": "loss", "value": 1}, {"name": metric, "value": SCORE}]}
        )
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", train)
    result, runs = tmp_path / "result.json", tmp_path / "runs"
    words = [str(data), "--output-dir", str(runs), "--sizes", "50", "--seeds", "2", "--json", str(result)]
    own_tables.main([*words, "--config", "hidden_size=64"])
    names = ["stability_50_seed_42", "stability_50_seed_43", "fold_50_seed_42", "fold_50_seed_43"]
    assert [given["exp_name"] for given in trained] == names
    assert [given["seed"] for given in trained] == [42, 43, 42, 43]
    with Path(trained[0]["data"]).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["sequence", "stability", "split"]
    assert Counter(row["split"] for row in rows) == {"train": 40, "valid": 10, "test": 20}
    found = json.loads(result.read_text(encoding="utf-8"))
    assert [one["transformer"] for one in found["results"]] == [[SCORE, SCORE]] * 2
    assert "| stability | 50 | spearmanr | 0.250 (0.250 - 0.250) |" in capsys.readouterr().out


def test_a_failed_training_is_an_error(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1))
    with pytest.raises(ConfigError, match="failed; its error is above"):
        own_tables.main([str(data), "--output-dir", str(tmp_path / "runs"), "--sizes", "50", "--seeds", "1"])


def test_the_score_is_that_of_the_best_epoch_of_a_real_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = [word for name, value in small.items() for word in ("--config", f"{name}={value}")]
    result, runs = tmp_path / "result.json", tmp_path / "runs"
    words = [str(data), "--output-dir", str(runs), "--sizes", "50", "--seeds", "1", "--no-cuda", "--precision", "fp32"]
    words += ["--targets", "stability"]
    own_tables.main([*words, *config, "--json", str(result)])
    run = runs / "stability_50_seed_42"
    best = json.loads((run / "best.json").read_text())["directory"]
    metrics = json.loads((run / best / "eval_test.json").read_text())["metrics"]
    expected = next(one["value"] for one in metrics if one["name"] == "spearmanr")
    (score,) = json.loads(result.read_text())["results"]
    assert (score["kind"], score["transformer"]) == ("stability", [expected])

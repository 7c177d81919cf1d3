"""The comparison of finetuning in fp32 and bf16, at a toy size."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks import finetuning_precision
from benchmarks.finetuning_precision import Comparison, draw
from benchmarks.peers.labeled_proteins import write_split

PROTEINS = ["ACDEFGHIKL", "MNPQRSTVWY", "ACDEFGHIK", "MKVLAAGI", "GGSSGGSS", "LLKKEELLKK"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "valid"):
        write_split(folder, "stability", split, PROTEINS)
    return folder


@pytest.mark.slow
def test_every_seed_is_finetuned_in_both_precisions(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, str]] = []
    run = subprocess.run

    def record(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        values = dict(pairwise(command))
        if "--precision" in values:
            runs.append((values["--precision"], values["--seed"]))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", record)
    result = tmp_path / "result.json"
    words = [
        str(data_dir),
        "--tasks",
        "stability",
        "--size",
        "32x1",
        "--seeds",
        "0",
        "1",
        "--train",
        "4",
        "--epochs",
        "2",
    ]
    status = finetuning_precision.main([*words, "--epochs", "2", "--threads", "1", "--json", str(result)])
    (written,) = json.loads(result.read_text())["results"]
    assert [len(written[precision]) for precision in ("fp32", "bf16")] == [2, 2]
    assert runs == [("fp32", "0"), ("bf16", "0"), ("fp32", "1"), ("bf16", "1")]
    assert written["proteins"] == {"train": 4, "valid": 6}
    shown = capsys.readouterr().out
    assert "| stability | spearmanr | " in shown
    assert shown.rstrip().endswith("| no |" if status else "| yes |")


def test_drawn_proteins_are_the_same_each_time_and_keep_their_labels(data_dir: Path, tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        assert draw(data_dir, "stability", {"train": 3, "valid": 9}, tmp_path / name) == {"train": 3, "valid": 6}
        written.append((tmp_path / name / "stability" / "stability_train.jsonl").read_text())
    assert written[0] == written[1]
    records = [json.loads(line) for line in written[0].splitlines()]
    assert len(records) == 3
    assert all(record["primary"] in PROTEINS and record["stability_score"] for record in records)


def test_a_difference_is_compared_with_the_range_of_fp32() -> None:
    near = Comparison("stability", "spearmanr", (0.50, 0.54, 0.52), (0.51, 0.53, 0.55))
    assert near.difference == pytest.approx(0.01)
    assert near.noise == pytest.approx(0.04)
    assert near.is_within_noise
    assert not Comparison("stability", "spearmanr", (0.50, 0.54, 0.52), (0.40, 0.45, 0.42)).is_within_noise

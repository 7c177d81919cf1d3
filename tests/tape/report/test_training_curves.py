"""The picture of a run's training curves."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tape.errors import CheckpointError
from tape.report.training_curves import draw_finetuning, draw_pretraining

SVG = "{http://www.w3.org/2000/svg}"


def titles(picture: Path) -> list[str | None]:
    """The titles of the charts of a picture."""
    return [title.text for title in ElementTree.parse(picture).getroot().findall(f"{SVG}svg/{SVG}title")]


def texts(picture: Path) -> list[str | None]:
    return [text.text for text in ElementTree.parse(picture).getroot().iter(f"{SVG}text")]


def write_metrics(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def step(iteration: int, loss: float | None = 2.0) -> dict[str, Any]:
    values = {"lm_loss": loss, "learning_rate": 1e-4, "tokens_per_second": 1000.0}
    return {"kind": "train", "iteration": iteration, **values}


def test_pretraining_has_loss_learning_rate_and_throughput(tmp_path: Path) -> None:
    evaluation = {"kind": "evaluation", "iteration": 3, "split": "valid", "validation_loss": 1.5}
    metrics = write_metrics(tmp_path / "m", [{"kind": "start", "iteration": 0}, step(1), step(2), step(3), evaluation])
    assert draw_pretraining(metrics, 3, tmp_path / "curves.svg")
    assert titles(tmp_path / "curves.svg") == [
        "masked-residue loss (nats) by iteration",
        "learning rate by iteration",
        "tokens per second by iteration",
    ]
    assert {"training", "training, smoothed", "validation"} <= set(texts(tmp_path / "curves.svg"))


def test_losses_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    """Of a skipped step, metrics.jsonl has null."""
    metrics = write_metrics(tmp_path / "m", [step(1, 3.0), step(2, None), step(3, 1.0)])
    assert draw_pretraining(metrics, 3, tmp_path / "curves.svg")
    charts = ElementTree.parse(tmp_path / "curves.svg").getroot().findall(f"{SVG}svg")
    lines = [path.get("d") for path in charts[0].iter(f"{SVG}path") if path.get("class") == "line c2 faint"]
    assert [str(line).count("L") for line in lines] == [1]  # from the first to the third


def test_a_long_run_is_drawn_with_a_limited_number_of_points(tmp_path: Path) -> None:
    metrics = write_metrics(tmp_path / "m", (step(number) for number in range(1, 10_001)))
    assert draw_pretraining(metrics, 10_000, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").stat().st_size < 60_000


def test_a_run_without_records_has_no_picture(tmp_path: Path) -> None:
    assert not draw_pretraining(write_metrics(tmp_path / "m", []), 10, tmp_path / "curves.svg")
    assert not draw_finetuning([], tmp_path / "curves.svg")
    assert not (tmp_path / "curves.svg").exists()


def test_damaged_records_are_an_error_that_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "m").write_text('{"iteration": 1}\nx\n', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"m, line 2: not valid JSON"):
        draw_pretraining(tmp_path / "m", 2, tmp_path / "curves.svg")


def test_finetuning_has_a_chart_per_metric(tmp_path: Path) -> None:
    train, valid = {"loss": 1.0, "accuracy": 0.5}, {"loss": 1.2, "accuracy": 0.4}
    history = [{"epoch": 0, "train": train, "valid": None}, {"epoch": 1, "train": train, "valid": valid}]
    assert draw_finetuning(history, tmp_path / "curves.svg")
    assert titles(tmp_path / "curves.svg") == ["loss by epoch", "accuracy by epoch"]
    assert {"training", "validation"} <= set(texts(tmp_path / "curves.svg"))
    dots = list(ElementTree.parse(tmp_path / "curves.svg").iter(f"{SVG}circle"))
    assert len(dots) == 2 * (2 + 1)  # training of two epochs and validation of one, of two metrics


def test_names_are_escaped(tmp_path: Path) -> None:
    assert draw_finetuning([{"epoch": 0, "train": {"<a> & b": 1.0}}], tmp_path / "curves.svg")
    assert titles(tmp_path / "curves.svg") == ["<a> & b by epoch"]

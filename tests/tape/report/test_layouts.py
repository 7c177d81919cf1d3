"""Losses of pretraining runs in different layouts, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proteinlm.workflow import compare_losses
from tape.errors import ConfigError, DataError
from tape.report.layouts import read_layout_losses


def write_run(folder: Path, losses: list[object]) -> Path:
    folder.mkdir()
    records = [{"kind": "start", "iteration": 0}]
    records += [{"kind": "train", "iteration": number, "lm_loss": loss} for number, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_losses_are_printed_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / "tp1", [3.5, 3.25]), write_run(tmp_path / "tp2", [3.5, 3.375])]
    compare_losses.main([str(run) for run in runs])
    head, first, second, summary = capsys.readouterr().out.splitlines()
    assert head.split() == ["iteration", "tp1", "tp2", "difference"]
    assert first.split() == ["1", "3.500000", "3.500000", "0.0e+00"]
    assert second.split() == ["2", "3.250000", "3.375000", "1.2e-01"]
    assert summary == "Largest difference of the losses of tp1 and tp2: 1.2e-01"


def test_the_page_has_every_loss_and_the_largest_difference(tmp_path: Path) -> None:
    html = read_layout_losses([write_run(tmp_path / "a&b", [3.5]), write_run(tmp_path / "c", [3.0])]).html()
    assert "<td>1</td><td>3.500000</td><td>3.000000</td>" in html
    assert "a&amp;b and c: 5.0e-01" in html


@pytest.mark.parametrize(("other", "number"), [([3.5], 1), ([], 0)])
def test_runs_of_different_lengths_are_refused(tmp_path: Path, other: list[object], number: int) -> None:
    runs = [write_run(tmp_path / "one", [3.5, 3.25]), write_run(tmp_path / "two", other)]
    with pytest.raises(DataError, match=rf"two/metrics.jsonl: has losses of {number} iterations, .*one/.* of 2;"):
        read_layout_losses(runs)


def test_a_single_run_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two runs, not 1"):
        read_layout_losses([write_run(tmp_path / "one", [3.5])])


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two/metrics.jsonl: lm_loss of iteration 1 must be a number, not 'x'"):
        read_layout_losses([write_run(tmp_path / "one", [3.5]), write_run(tmp_path / "two", ["x"])])

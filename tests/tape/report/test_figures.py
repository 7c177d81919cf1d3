"""Figures of predictions: confusion matrices, and the types of tasks of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tape.evaluation.records import read_record, write_record
from tape.metrics.confusion import ConfusedPair, Confusion, confusion_of
from tape.report import command as report
from tape.report.predictions import task_type_of
from tape.tasks import TaskType
from tests.support.evaluated_runs import Page, add_results, add_run, record_of


def test_confusion_matrices_are_drawn_from_the_record_or_from_predictions(tmp_path: Path) -> None:
    directory = add_run(tmp_path, "my_task", "transformer", "x", "test", False, accuracy=0.5, balanced_accuracy=0.5)
    file = directory / "eval_test.json"
    write_record(file, replace(read_record(file), confusion=confusion_of(np.array([[3, 1], [2, 4]]), ["in", "out"])))
    structure = {"id": "x", "prediction": np.eye(3)[[0, 1, 1, 2]], "target": np.array([-1, 1, 0, 2])}
    add_results(add_run(tmp_path, "secondary_structure", "onehot", "y", "test", False, accuracy=0.5), "test", structure)
    pairs = (ConfusedPair("fold <7>", "fold 2", 9, 109),)
    directory = add_run(tmp_path, "remote_homology", "transformer", "z", "test", False, accuracy=0.5)
    file = directory / "eval_test.json"
    write_record(file, replace(read_record(file), confusion=Confusion(1195, pairs=pairs)))
    report.main([str(tmp_path), "--out", str(tmp_path / "report")])
    words = Page((tmp_path / "report" / "report.html").read_text()).words
    assert "in predicted as out: 1 of 4" in words
    assert "H predicted as E: 1 of 1" in words
    assert "fold <7>fold 29 of 109" in words  # a row of a table


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"accuracy": 0.5, "accuracy_per_protein": 0.5, "balanced_accuracy": 0.5}, TaskType.RESIDUE_CLASS),
        ({"accuracy": 0.5, "balanced_accuracy": 0.5}, TaskType.SEQUENCE_CLASS),
        ({"spearmanr": 0.5}, TaskType.VALUE),
        ({"my_score": 0.5}, None),
    ],
)
def test_the_metrics_show_the_type_of_a_task_of_ones_own(measured: dict[str, float], expected: TaskType | None) -> None:
    assert task_type_of(record_of("my_task", "transformer", "test", {"name": "mine"}, **measured)) == expected

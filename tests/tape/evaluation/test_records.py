"""eval_SPLIT.json is read as it was written; other files are refused with an error that names them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tape.errors import CheckpointError
from tape.evaluation.leakage_scores import BinScores, Leakage, ReferenceScores
from tape.evaluation.records import EvaluationRecord, ResampledGroups, TrainingSize, read_record, write_record
from tape.leakage.bins import IdentityBin
from tape.leakage.table import ProteinFile
from tape.metrics import Metric
from tape.metrics.confusion import ConfusedPair, Confusion

LEAKAGE = {"file_sha256": "", "search": {}, "references": []}
CONFUSION = {"classes": 2, "names": ["a", "b"], "counts": [[1, 0], [2, 3]], "pairs": []}
REFERENCE = {"name": "", "path": "", "sha256": "", "proteins": 1}


def leakage() -> Leakage:
    """Two bins, of which the second is empty."""
    metrics = (Metric("mse", 0.5, 7, "an error", (0.25, 0.75)), Metric("spearmanr", 0.1, 7, "a correlation"))
    bins = (BinScores(IdentityBin(0.0, 20.0), 7, 3, metrics), BinScores(IdentityBin(20.0, 100.0), 0, 0))
    reference = ReferenceScores(ProteinFile("train.lmdb", "data/train.lmdb", "cd", 10), bins)
    return Leakage("ef", {"tool": "MMseqs2"}, (reference,))


@pytest.fixture
def record() -> EvaluationRecord:
    return EvaluationRecord(
        task="stability",
        model="onehot",
        split="test",
        data={"name": "toy", "simulated": True},
        proteins=7,
        metrics=(Metric("mse", 0.5, 7, "an error", (0.25, 0.75)), Metric("spearmanr", 0.1, 7, "a correlation")),
        precision="fp32",
        bootstrap={"resamples": 10, "seed": 1, "level": 0.95},
        groups=ResampledGroups("families.tsv", "ef", 17),
        config={"hidden_size": 16},
        model_sha256="ab",
        training=TrainingSize(863, 8633),
        leakage=leakage(),
        confusion=Confusion(2, ("soluble", "not"), ((3, 1), (0, 3))),
    )


def test_records_are_read_as_written(tmp_path: Path, record: EvaluationRecord) -> None:
    write_record(tmp_path / "eval_test.json", record)
    again = read_record(tmp_path / "eval_test.json")
    assert again == record
    assert (again.data_name, again.is_simulated) == ("toy", True)
    assert again.metric("mse") == record.metrics[0]
    assert again.metric("none") is None


LATER = ("leakage", "confusion", "training", "groups")  # of versions 3, 4, 5 and 6


@pytest.mark.parametrize(("version", "later"), [(2 + position, LATER[position:]) for position in range(len(LATER))])
def test_an_earlier_version_lacks_what_later_ones_have(
    tmp_path: Path, record: EvaluationRecord, version: int, later: Sequence[str]
) -> None:
    file = tmp_path / "eval_test.json"
    write_record(file, record)
    content = json.loads(file.read_text())
    assert all(content[name] is not None for name in later)
    earlier = {name: value for name, value in content.items() if name not in later}
    file.write_text(json.dumps({**earlier, "version": version}))
    changes: dict[str, Any] = dict.fromkeys(later)
    assert read_record(file) == replace(record, **changes)
    without = {name: value for name, value in content.items() if name != later[0]}
    file.write_text(json.dumps(without))
    with pytest.raises(CheckpointError, match=rf"eval_test\.json: not an evaluation: {later[0]} is missing"):
        read_record(file)


def test_the_most_confused_of_many_classes_are_read_as_written(tmp_path: Path, record: EvaluationRecord) -> None:
    pairs = (ConfusedPair("1", "7", 3, 9), ConfusedPair("0", "7", 1, 2))
    many = replace(record, confusion=Confusion(1195, pairs=pairs))
    write_record(tmp_path / "eval_test.json", many)
    assert read_record(tmp_path / "eval_test.json") == many


def test_undefined_numbers_are_null(tmp_path: Path, record: EvaluationRecord) -> None:
    file = tmp_path / "eval_test.json"
    write_record(file, EvaluationRecord("t", "m", "s", {"name": "d"}, 1, (Metric("mse", math.nan, 0, ""),), "fp32"))
    content = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    why = "there is nothing to measure: n is 0"
    assert content["metrics"] == [
        {"name": "mse", "value": None, "n": 0, "definition": "", "interval": None, "undefined": why}
    ]
    (again,) = read_record(file).metrics
    assert math.isnan(again.value)
    assert again.undefined == why


def test_version_1_has_no_confidence_intervals(tmp_path: Path, record: EvaluationRecord) -> None:
    file = tmp_path / "eval_test.json"
    write_record(file, record)
    content = json.loads(file.read_text())
    content["version"] = 1
    del content["bootstrap"], content["config"]
    for metric in content["metrics"]:
        del metric["interval"]
    file.write_text(json.dumps(content))
    again = read_record(file)
    assert (again.metrics[0].interval, again.bootstrap, again.config) == (None, None, {})
    content["version"] = 2  # which has confidence intervals
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"eval_test\.json: not an evaluation: bootstrap is missing"):
        read_record(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other"}, "its schema is 'other', not 'proteinlm-eval'"),
        ({"version": 7}, "version 7 of proteinlm-eval; this program reads 1, 2, 3, 4, 5 and 6"),
        ({"groups": {"path": "a", "sha256": "b"}}, "groups.groups is missing"),
        ({"groups": {"path": "a", "sha256": "b", "groups": "3"}}, "groups.groups is a str, not int"),
        ({"training": {"proteins": 5}}, "training.available is missing"),
        ({"training": {"proteins": "5", "available": 9}}, "training.proteins is a str, not int"),
        ({"proteins": "7"}, "proteins is a str, not int"),
        ({"data": {}}, "data has no name"),
        ({"leakage": {"search": {}, "references": []}}, "leakage.file_sha256 is missing"),
        ({"leakage": {**LEAKAGE, "references": [1]}}, r"leakage\.references\[0\] is a int, not an object"),
        ({"leakage": {**LEAKAGE, "references": [{**REFERENCE, "bins": [{}]}]}}, r"\[0\]\.bins\[0\]\.low is missing"),
        ({"confusion": {**CONFUSION, "classes": 3}}, "names and counts don't match the number of classes, 3"),
        ({"confusion": {**CONFUSION, "counts": [[1], [2, 3]]}}, "names and counts don't match"),
        ({"confusion": {**CONFUSION, "counts": [[1, -1], [2, 3]]}}, "every count must be a number of items"),
        ({"confusion": {**CONFUSION, "pairs": [{"true": 1}]}}, r"confusion\.pairs\[0\]\.true is a int, not str"),
        ({"metrics": [1]}, r"metrics\[0\] is a int, not an object"),
        ({"metrics": [{"name": "mse"}]}, r"metrics\[0\]\.value is missing"),
        (
            {"metrics": [{"name": "m", "value": 1, "n": 1, "definition": "", "interval": [1]}]},
            r"metrics\[0\]\.interval is \[1\], not \[low, high\]",
        ),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, record: EvaluationRecord, change: dict[str, Any], message: str
) -> None:
    file = tmp_path / "eval_test.json"
    write_record(file, record)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=rf"eval_test\.json: .*{message}"):
        read_record(file)


def test_files_without_a_json_object_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "eval_test.json"
    with pytest.raises(CheckpointError, match="No such file"):
        read_record(file)
    for text, message in (("{", "not valid JSON"), ("[]", "holds a list, not a JSON object")):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_record(file)

"""The metrics of an evaluation in bins of the proteins' identity to training data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.evaluation.leakage import SplitIdentities, find_identities, scores_in_bins
from tape.evaluation.leakage_scores import BinScores
from tape.evaluation.records import read_record
from tape.leakage.table import read_table
from tape.main import run_eval, run_train
from tape.metrics import TASK_TYPE_METRICS, Bootstrap
from tape.registry import registry
from tape.tasks import TaskType
from tests.support.leakage_tables import write_leakage

IDENTITIES = (None, 100.0, 25.0, 50.0, None)  # of the five proteins of a split


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A data directory of one task, to which a table can be added."""
    shutil.copytree(small_data / "stability", tmp_path / "data" / "stability")
    return tmp_path / "data"


@pytest.fixture
def split_file(data: Path) -> Path:
    return data / "stability" / "stability_test.lmdb"


def load(data: Path) -> object:
    return registry.get_task_spec("stability").dataset_class(data, "test")


@pytest.mark.parametrize("bootstrap", [None, Bootstrap(20, 1)])
def test_the_metrics_of_a_bin_are_those_of_its_proteins_alone(
    split_file: Path, tmp_path: Path, bootstrap: Bootstrap | None
) -> None:
    table = read_table(write_leakage(split_file, tmp_path / "leakage.tsv", IDENTITIES))
    split = SplitIdentities(table, {"train.lmdb": np.asarray([np.nan, 100, 25, 50, np.nan])})
    metrics = TASK_TYPE_METRICS[TaskType.VALUE]
    rows = [metrics.measure(np.asarray([value]), np.asarray([1.0])) for value in (1.0, 2.0, 4.0, 8.0, 16.0)]
    (scores,) = scores_in_bins(split, rows, metrics.summarize, bootstrap).references
    assert scores.reference.name == "train.lmdb"
    assert [(one.proteins, one.no_hit) for one in scores.bins] == [(2, 2), (1, 0), (0, 0), (2, 0)]
    assert scores.bins[2] == BinScores(scores.bins[2].identity, 0, 0)
    for one, members in zip(scores.bins, ([0, 4], [2], [], [1, 3]), strict=True):
        alone = metrics.summarize([rows[member] for member in members], bootstrap) if members else []
        assert repr(list(one.metrics)) == repr(alone)  # nan equals nan
    mean_squared_error = scores.bins[3].metric("mse")
    assert mean_squared_error is not None
    assert mean_squared_error.value == (1 + 49) / 2
    assert (mean_squared_error.interval is None) == (bootstrap is None)


def test_the_table_beside_a_split_is_found(data: Path, split_file: Path) -> None:
    assert find_identities(load(data), "test", None) is None
    write_leakage(split_file, data / "stability" / "leakage_test.tsv", IDENTITIES)
    found = find_identities(load(data), "test", None)
    assert found is not None
    np.testing.assert_array_equal(found.identities["train.lmdb"], [np.nan, 100, 25, 50, np.nan])
    assert find_identities(load(data), "valid", None) is None


def test_a_table_for_other_proteins_is_refused_or_announced(
    data: Path, split_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_leakage(split_file, data / "stability" / "leakage_test.tsv", IDENTITIES[:3])
    message = "lacks 2 of 5 proteins, so it was made for other data: run tape-leakage again"
    with pytest.raises(DataError, match=message):
        find_identities(load(data), "test", path)
    assert caplog.text == ""
    assert find_identities(load(data), "test", None) is None
    assert "no metrics in bins of identity" in caplog.text
    assert message in caplog.text


def test_a_data_set_that_does_not_describe_its_proteins_is_refused(split_file: Path, tmp_path: Path) -> None:
    path = write_leakage(split_file, tmp_path / "leakage.tsv", IDENTITIES)
    with pytest.raises(ConfigError, match="--leakage: SimpleNamespace does not describe the proteins"):
        find_identities(SimpleNamespace(), "test", path)
    assert find_identities(SimpleNamespace(), "test", None) is None


def test_an_evaluation_has_the_bins_in_its_record(data: Path, split_file: Path, tmp_path: Path) -> None:
    words = ["onehot", "stability", "--data_dir", str(data), "--log_level", "40", "--no_cuda"]
    model = run_train([*words, "--output_dir", str(tmp_path), "--force_save", str(tmp_path / "model")])
    evaluate = ["onehot", "stability", str(model), *words[2:]]
    run_eval(evaluate)
    record = read_record(model / "eval_test.json")
    assert record.leakage is None
    table = write_leakage(split_file, tmp_path / "leakage.tsv", (60.0, 100.0, 50.0, 70.0, 80.0))
    run_eval([*evaluate, "--leakage", str(table)])
    found = read_record(model / "eval_test.json")
    assert found.metrics == record.metrics
    assert found.leakage is not None
    assert found.leakage.file_sha256 == read_table(table).sha256
    (scores,) = found.leakage.references
    assert [one.proteins for one in scores.bins] == [0, 0, 0, 5]
    assert scores.bins[3].metrics == tuple(metric for metric in record.metrics if metric.name != "loss")
    content = json.loads((model / "eval_test.json").read_text())
    assert "definition" not in content["leakage"]["references"][0]["bins"][3]["metrics"][0]

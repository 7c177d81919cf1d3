"""Evaluation: a single pass over all proteins, results that do not depend on the batch size, and written files."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape.datasets.labels import count_targets, infer_task_type
from tape.errors import ConfigError, DataError
from tape.evaluation.config import InferenceConfig
from tape.evaluation.evaluate import Evaluation, chosen_metrics, evaluate
from tape.evaluation.records import read_record
from tape.evaluation.results import data_hash, model_hash, write_report, write_results
from tape.metrics import Bootstrap, Metric, measure_contacts
from tape.metrics.confusion import confusion_of
from tape.metrics.contacts import NAMES
from tape.registry import registry
from tape.tasks import TaskType
from tests.support.small_models import SMALL_CONFIGS

TASKS = ("fluorescence", "remote_homology", "secondary_structure", "contact_prediction", "masked_language_modeling")


def task_of(name: str, small_config: Path, data: Path, model_type: str = "transformer") -> tuple[Any, Any, TaskType]:
    """Return (model with random weights, validation set, task type)."""
    torch.manual_seed(1)
    spec = registry.get_task_spec(name)
    if model_type == "transformer":
        model = registry.get_task_model(model_type, name, small_config)
    else:
        # weights large enough that predictions differ by more than rounding, or a correlation would be of noise; 30
        # tokens also for UniRep, since the data are read with the iupac vocabulary
        values = {**SMALL_CONFIGS[model_type], "vocab_size": 30, "initializer_range": 0.3}
        model = registry.get_task_model(model_type, name, **values)
    assert spec.task_type is not None
    return model, spec.dataset_class(data, "valid"), spec.task_type


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        (name, kind)
        for name in TASKS
        for kind in ("transformer", "lstm", "resnet", "unirep", "onehot")
        if kind in registry.get_task_spec(name).models
    ],
)
def test_results_do_not_depend_on_the_batch_size(
    name: str, model_type: str, small_config: Path, small_data: Path
) -> None:
    # bugs 13b, 17, 18 in docs/compatibility.md: metrics, confidence intervals, loss and all predictions
    model, dataset, shape = task_of(name, small_config, small_data, model_type)
    alone, together = (
        evaluate(model, dataset, shape, InferenceConfig(size), bootstrap=Bootstrap(50), keep_results=True)
        for size in (1, 5)
    )
    for one, other in zip(alone.metrics, together.metrics, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4, abs=1e-6, nan_ok=True), one.name
        assert (one.interval or ()) == pytest.approx(other.interval or (), rel=1e-4, abs=1e-6), one.name
        assert (one.name, one.n) == (other.name, other.n)
    for first, second in zip(alone.results, together.results, strict=True):
        assert first["id"] == second["id"]
        np.testing.assert_allclose(first["prediction"], second["prediction"], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(first["target"], second["target"])


def test_results_are_ordered_and_have_ids_and_no_padding(small_config: Path, small_data: Path) -> None:
    # bugs 16 and 19 in docs/compatibility.md: every protein, in the order of the data set, with its id, without padding
    shapes = {
        "fluorescence": lambda n: ((1,), (1,)),
        "remote_homology": lambda n: ((1195,), ()),
        "secondary_structure": lambda n: ((n + 2, 3), (n + 2,)),
        "contact_prediction": lambda n: ((n, n, 2), (n, n)),
        "masked_language_modeling": lambda n: ((n + 2,), (n + 2,)),
    }
    for name, expected in shapes.items():
        model, dataset, shape = task_of(name, small_config, small_data)
        evaluation = evaluate(model, dataset, shape, InferenceConfig(2), keep_results=True)
        assert evaluation.proteins == len(dataset) == len(evaluation.results)
        for index, result in enumerate(evaluation.results):
            record = dataset.data[index]
            found = (np.shape(result["prediction"]), np.shape(result["target"]))
            assert result["id"] == record["id"]
            assert found == expected(len(record["primary"])), name


def test_residues_outside_valid_mask_are_counted_separately(small_config: Path, write_split: Any) -> None:
    record = {"primary": "ACDEF", "ss3": [0, 1, 2, 0, 7], "ss8": [0, 1, 7, 3, 8], "valid_mask": [1, 1, 0, 0, 0]}
    data = write_split("secondary_structure", "valid", [record] * 2)
    for name in ("secondary_structure", "secondary_structure_8"):
        model, dataset, shape = task_of(name, small_config, data)
        assert dataset[0][2].tolist() == [-1, 0, 1, -1, -1, -1, -1]
        evaluation = evaluate(model, dataset, shape, InferenceConfig(2), keep_results=True)
        counted = {metric.name: metric.n for metric in evaluation.metrics}
        assert (counted["accuracy"], counted["accuracy_all_residues"]) == (4, 8)  # 7 and 8 are not classes
        predicted = evaluation.results[0]["prediction"][1:-1].argmax(-1)
        right = np.mean(predicted[:4] == np.array(record[dataset.field])[:4])
        assert evaluation.value("accuracy_all_residues") == pytest.approx(right)


def test_unmasked_labels_of_a_third_party_are_asked_for(small_config: Path, small_data: Path) -> None:
    model, dataset, shape = task_of("secondary_structure", small_config, small_data)

    class Wrapped(torch.utils.data.Dataset[Any]):
        collate_fn = staticmethod(dataset.collate_fn)

        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, index: int) -> Any:
            return dataset[index]

    class Labeled(Wrapped):
        def unmasked_labels(self, index: int) -> np.ndarray:
            return np.where(np.arange(len(dataset[index][0])) < 2, 0, -1)

    def counted(examples: Any) -> dict[str, int]:
        return {metric.name: metric.n for metric in evaluate(model, examples, shape, InferenceConfig(2)).metrics}

    assert counted(Labeled())["accuracy_all_residues"] == 2 * len(dataset)
    assert "accuracy_all_residues" not in counted(Wrapped())


def test_the_model_is_in_evaluation_mode_only_during_evaluation(small_config: Path, small_data: Path) -> None:
    model, dataset, shape = task_of("secondary_structure", small_config, small_data)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    evaluate(model, dataset, shape, InferenceConfig(2))
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_each_protein_is_read_once(small_config: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # bug 13c in docs/compatibility.md: P@L/5 was printed from a second pass
    model, dataset, shape = task_of("contact_prediction", small_config, small_data)
    reads: list[int] = []
    build = type(dataset).__getitem__
    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, index: reads.append(index) or build(self, index))
    evaluation = evaluate(model, dataset, shape, InferenceConfig(2), keep_results=True)
    assert sorted(reads) == list(range(len(dataset)))
    rows = [measure_contacts(result["prediction"], result["target"]) for result in evaluation.results]
    first = np.array([row.precisions[NAMES.index("precision_at_l5")] for row in rows])
    assert evaluation.value("precision_at_l5") == pytest.approx(np.nanmean(first))


def test_perplexity_and_loss_of_a_language_model(small_config: Path, small_data: Path) -> None:
    # bug 18 in docs/compatibility.md
    model, dataset, shape = task_of("masked_language_modeling", small_config, small_data)
    evaluation = evaluate(model, dataset, shape, InferenceConfig(2))
    assert evaluation.value("perplexity") == pytest.approx(math.exp(evaluation.value("loss")))
    labels = sum(int((dataset[index][2] != -1).sum()) for index in range(len(dataset)))
    assert evaluation.metrics[0].n == labels


def test_regression_reports_the_rank_correlation_over_the_split(small_config: Path, small_data: Path) -> None:
    # bug 20 in docs/compatibility.md
    model, dataset, shape = task_of("stability", small_config, small_data)
    evaluation = evaluate(model, dataset, shape, InferenceConfig(1), keep_results=True)
    spearman = registry.get_metric("spearmanr")(
        [result["target"] for result in evaluation.results], [result["prediction"] for result in evaluation.results]
    )
    assert evaluation.value("spearmanr") == pytest.approx(spearman)


def test_evaluation_in_bf16_is_close_to_fp32(small_config: Path, small_data: Path) -> None:
    model, dataset, shape = task_of("secondary_structure", small_config, small_data)
    exact, rounded = (
        evaluate(model, dataset, shape, InferenceConfig(3, precision=precision)) for precision in ("fp32", "bf16")
    )
    assert rounded.value("loss") == pytest.approx(exact.value("loss"), rel=0.05)
    assert rounded.value("loss") != exact.value("loss")  # otherwise bf16 was not used


def test_task_types_are_inferred_from_a_batch() -> None:
    ids = torch.zeros(2, 5, dtype=torch.int64)
    cases = {
        TaskType.VALUE: torch.zeros(2, 1),
        TaskType.SEQUENCE_CLASS: torch.zeros(2, dtype=torch.int64),
        TaskType.RESIDUE_CLASS: torch.zeros(2, 5, dtype=torch.int64),
        TaskType.RESIDUE_PAIR: torch.zeros(2, 3, 3, dtype=torch.int64),
    }
    for shape, targets in cases.items():
        assert infer_task_type({"input_ids": ids, "targets": targets}) is shape
    with pytest.raises(ConfigError, match=r"shape \(2, 7\) match no task type"):
        infer_task_type({"input_ids": ids, "targets": torch.zeros(2, 7)})


def test_labels_are_counted_without_ignored_ones() -> None:
    assert count_targets(torch.tensor([[-1, 0, 2], [1, -1, -1]])) == 3
    assert count_targets(torch.zeros(4, 1)) == 4


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluation() -> Evaluation:
    """An evaluation of two proteins with one value each."""
    results = [
        {"id": name, "prediction": np.array([p], np.float32), "target": np.array([t], np.float32)}
        for name, p, t in (("a", 1.0, 2.0), ("b", 4.0, 2.0))
    ]
    metrics = [Metric("loss", 2.5, 2, "a loss"), Metric("spearmanr", math.nan, 0, "a correlation")]
    return Evaluation(metrics, 2, results)


def test_chosen_metrics_are_those_of_the_evaluation_or_computed_from_predictions(evaluation: Evaluation) -> None:
    assert list(chosen_metrics(evaluation, [])) == ["loss", "spearmanr"]
    assert chosen_metrics(evaluation, ["mse"]) == {
        "mse": 2.5
    }  # not a default metric of the task; computed from the predictions
    contact = Evaluation([Metric("precision_at_l5", 0.25, 1, "")], 1)
    assert chosen_metrics(contact, ["L5"]) == {"precision_at_l5": 0.25}  # bug 14 in docs/compatibility.md
    with pytest.raises(ConfigError, match="unknown metric 'nope'"):
        chosen_metrics(evaluation, ["nope"])
    with pytest.raises(ConfigError, match="metric accuracy can't be computed from these predictions"):
        chosen_metrics(Evaluation([], 1, [{"target": [0, 1], "prediction": [1.0]}]), ["accuracy"])


def test_each_split_has_its_own_result_files(tmp_path: Path, evaluation: Evaluation) -> None:
    # bug 19 in docs/compatibility.md: the next split overwrote results.pkl, the only file
    for split in ("one", "two"):
        write_results(tmp_path, split, {"split": float(len(split)), "of": float(split == "two")}, evaluation)
    metrics, results = pickle.loads((tmp_path / "results.pkl").read_bytes())
    assert metrics["of"] == 1.0
    assert [result["id"] for result in results] == ["a", "b"]
    assert pickle.loads((tmp_path / "results_one.pkl").read_bytes())[0]["of"] == 0.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.pkl", "results_one.pkl", "results_two.pkl"]


def test_the_report_has_the_documented_schema(tmp_path: Path, evaluation: Evaluation, small_data: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    dataset = registry.get_task_spec("stability").dataset_class(small_data, "test")
    digest = data_hash(dataset)
    path = write_report(
        tmp_path,
        evaluation,
        task="stability",
        model="onehot",
        split="test",
        data={"name": "toy", "simulated": True},
        data_sha256=digest,
        precision="fp32",
        bootstrap=Bootstrap(20, seed=3),
        config={"hidden_size": 16},
    )
    report = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert path.name == "eval_test.json"
    assert (report["schema"], report["version"], report["task"], report["proteins"]) == (
        "proteinlm-eval",
        6,
        "stability",
        2,
    )
    assert report["data"] == {"name": "toy", "simulated": True}
    assert report["metrics"][0] == {"name": "loss", "value": 2.5, "n": 2, "definition": "a loss", "interval": None}
    assert report["metrics"][1]["value"] is None
    assert report["bootstrap"] == {"resamples": 20, "seed": 3, "level": 0.95}
    assert report["config"] == {"hidden_size": 16}
    assert report["model_sha256"] == model_hash(tmp_path)
    assert len(report["data_sha256"]) == len(report["model_sha256"]) == 64
    assert {"model_dir", "code_version", "date", "precision", "split", "model"} <= set(report)


def test_the_confusion_matrix_has_the_names_of_the_model_or_of_the_task(tmp_path: Path) -> None:
    counts = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 4]])
    measured = Evaluation([Metric("loss", 2.5, 2, "a loss")], 2, confusions=counts)
    for config, names in (
        ({"target": {"classes": ["in", "out", "both"]}}, ("in", "out", "both")),
        ({}, ("H", "E", "C")),
    ):
        path = write_report(
            tmp_path,
            measured,
            task="secondary_structure",
            model="onehot",
            split="test",
            data={"name": "toy"},
            data_sha256=None,
            precision="fp32",
            config=config,
        )
        assert read_record(path).confusion == confusion_of(counts, names)


def test_a_damaged_record_ends_the_evaluation(small_config: Path, write_split: Any) -> None:
    data = write_split("stability", "valid", [{"primary": "ACD", "stability_score": "high"}])
    model, dataset, shape = task_of("stability", small_config, data)
    with pytest.raises(
        DataError, match=r"stability_valid\.lmdb, record 0: field 'stability_score' does not contain a number"
    ):
        evaluate(model, dataset, shape, InferenceConfig(2))

"""Contacts from attention maps: correction and regression by hand, features against the maps, the complete command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tape.cli.contacts import run_contacts
from tape.commands import contacts_command
from tape.errors import CheckpointError, ConfigError, DataError
from tape.evaluation.records import read_record
from tape.inference.attention_contacts import (
    attention_features,
    average_product_correction,
    choose_proteins,
    evaluate_contacts,
    fit_contacts,
    fit_logistic_regression,
)
from tape.metrics import Bootstrap
from tape.registry import registry
from tests.support.leakage_tables import write_leakage

CPU = torch.device("cpu")


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_average_product_correction_equals_a_calculation_by_hand() -> None:
    # rows 3 and 7, columns 4 and 6, in all 10
    corrected = average_product_correction(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(corrected, [[1 - 1.2, 2 - 1.8], [3 - 2.8, 4 - 4.2]])
    np.testing.assert_array_equal(average_product_correction(np.zeros((2, 2))), np.zeros((2, 2)))
    both = average_product_correction(np.array([[[1.0, 2.0], [3.0, 4.0]], [[2.0, 4.0], [6.0, 8.0]]]))
    np.testing.assert_allclose(both[1], 2 * both[0])  # each map separately


def binary_data(inside: tuple[int, int], outside: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One feature that is 1 for ``inside`` (pairs, contacts among them) and 0 for ``outside``."""
    labels = np.concatenate([np.arange(pairs) < contacts for pairs, contacts in (inside, outside)])
    features = np.repeat([1.0, 0.0], [inside[0], outside[0]])
    return features[:, None], labels.astype(np.int64)


def test_the_regression_equals_a_calculation_by_hand() -> None:
    # At the minimum the residuals of all pairs add up to 0, those where the feature is 1 to 1/C: with C = 0.5,
    # p1 = (8 - 2) / 10 and p0 = (2 + 2) / 20.
    weights, intercept = fit_logistic_regression(*binary_data((10, 8), (20, 2)), c=0.5)
    assert intercept == pytest.approx(logit(0.2), abs=1e-5)
    assert weights == pytest.approx([logit(0.6) - logit(0.2)], abs=1e-5)


def test_the_penalty_removes_an_uninformative_feature() -> None:
    # p1 = (3 - 2) / 10 would fall below p0 = (2 + 2) / 20: the weight is exactly 0, and the share of contacts remains
    weights, intercept = fit_logistic_regression(*binary_data((10, 3), (20, 2)), c=0.5)
    assert weights.tolist() == [0.0]
    assert intercept == pytest.approx(logit(5 / 30), abs=1e-5)


@pytest.mark.parametrize("c", [0.15, 5.0])
def test_the_regression_meets_the_conditions_of_a_minimum(c: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 12)) * 0.3
    truth = np.where(np.arange(12) < 3, 2.0, 0.0)
    labels = (rng.random(600) < 1 / (1 + np.exp(1.5 - features @ truth * 3))).astype(int)
    weights, intercept = fit_logistic_regression(features, labels, c)
    residuals = labels - 1 / (1 + np.exp(-(features @ weights + intercept)))
    pull = c * residuals @ features  # minus the loss's gradient
    assert residuals.sum() == pytest.approx(0, abs=1e-3)
    active = weights != 0
    assert 0 < active.sum() <= 12
    np.testing.assert_allclose(pull[active], np.sign(weights[active]), atol=2e-3)
    assert (abs(pull[~active]) <= 1 + 2e-3).all()
    assert (~active).any() == (c < 1)


def test_constant_labels_and_invalid_penalties_are_refused() -> None:
    with pytest.raises(DataError, match="all pairs have the same label"):
        fit_logistic_regression(np.ones((3, 1)), np.zeros(3), 0.15)
    with pytest.raises(ConfigError, match="must be above 0"):
        fit_logistic_regression(*binary_data((10, 3), (20, 2)), c=0.0)


def encoder(small_config: Path, **overrides: Any) -> Any:
    torch.manual_seed(1)
    return registry.get_task_model("transformer", "embed", small_config, output_attentions=True, **overrides).eval()


def test_features_are_the_maps_of_all_heads(small_config: Path) -> None:
    model = encoder(small_config)
    ids = np.array([2, 5, 9, 12, 7, 3])
    with torch.no_grad():
        features = attention_features(model, ids, CPU)
        maps = model(torch.from_numpy(ids)[None])[-1]
    assert features.shape == (4, 4, 4)  # 2 layers x 2 heads
    for layer, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
        own = maps[layer][0, head, 1:-1, 1:-1].numpy()
        expected = average_product_correction(own + own.T)
        np.testing.assert_allclose(features[..., 2 * layer + head], expected, atol=1e-6)
    with pytest.raises(CheckpointError, match="does not return attention maps"):
        attention_features(registry.get_task_model("transformer", "embed", small_config).eval(), ids, CPU)


class Oracle(nn.Module):
    """The first head attends to the contacts of the protein with this first token, the second to random pairs."""

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.maps = {}
        for index in range(len(dataset)):
            ids, _, labels, _ = dataset[index]
            self.maps[tuple(ids)] = np.pad((labels == 1).astype(np.float32), 1)

    def forward(self, ids: torch.Tensor) -> tuple[Any, ...]:
        contacts = torch.from_numpy(self.maps[tuple(ids[0].tolist())])
        noise = torch.rand(contacts.shape, generator=torch.Generator().manual_seed(ids.shape[1]))
        return ids, ids, (torch.stack([contacts, noise])[None],)


def test_a_head_that_encodes_the_contacts_gets_the_largest_weight(small_data: Path) -> None:
    dataset = registry.get_task_spec("contact_prediction").dataset_class(small_data, "train")
    model = Oracle(dataset)
    regression = fit_contacts(model, dataset, range(len(dataset)), 0.15, CPU)
    assert regression.weights[0] > 1
    assert abs(regression.weights[1]) < regression.weights[0] / 10
    assert regression.proteins == tuple(f"proteinnet-{number}" for number in range(10))
    evaluation = evaluate_contacts(model, dataset, regression, CPU, Bootstrap(20))
    # the maximum: every selected pair is a contact, as long as there are any
    best = [result["target"] for result in evaluation.results]
    limits = []
    for target in best:
        valid = target[np.triu_indices(len(target), 6)]
        k = min(max(1, len(target) // 5), int((valid != -1).sum()))
        limits += [min(1.0, (valid == 1).sum() / k)] if k else []
    assert evaluation.value("precision_at_l5") == pytest.approx(np.mean(limits))
    assert evaluation.proteins == 10
    assert all(np.allclose(r["prediction"], r["prediction"].T) for r in evaluation.results)


def test_proteins_without_a_pair_to_score_are_refused(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = registry.get_task_spec("contact_prediction").dataset_class(small_data, "train")
    model = Oracle(dataset)
    regression = fit_contacts(model, dataset, range(len(dataset)), 0.15, CPU)
    whole = type(dataset).__getitem__

    def unlabeled(self: Any, index: int) -> tuple[Any, ...]:
        ids, mask, target, length = whole(self, index)
        return ids, mask, np.full_like(target, -1), length

    monkeypatch.setattr(type(dataset), "__getitem__", unlabeled)
    with pytest.raises(DataError, match=r"proteinnet_train\.lmdb: nothing to evaluate on"):
        evaluate_contacts(model, dataset, regression, CPU)


def test_running_out_of_memory_is_explained() -> None:
    class Hungry(nn.Module):
        def forward(self, ids: torch.Tensor) -> Any:
            raise MemoryError

    with pytest.raises(ConfigError, match="out of memory with 1 protein of 6 tokens in the attention maps; a smaller"):
        attention_features(Hungry(), np.array([2, 5, 9, 12, 7, 3]), CPU)


def test_uninformative_heads_give_a_warning(small_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = registry.get_task_spec("contact_prediction").dataset_class(small_data, "train")
    model = Oracle(dataset)
    model.maps = {ids: np.zeros_like(contacts) for ids, contacts in model.maps.items()}
    regression = fit_contacts(model, dataset, [0, 1], 0.15, CPU)
    assert not regression.weights.any()
    assert "all weights of the regression are 0, so all scores are equal: at C = 0.15" in caplog.text


def test_proteins_are_sampled_by_seed_among_those_short_enough(small_data: Path) -> None:
    dataset = registry.get_task_spec("contact_prediction").dataset_class(small_data, "train")
    lengths = dataset.build_index().lengths
    limit = int(np.sort(lengths)[6])
    chosen = choose_proteins(dataset, 4, 0, limit)
    assert len(set(chosen)) == 4
    assert (lengths[chosen] <= limit).all()
    assert chosen == choose_proteins(dataset, 4, 0, limit)
    assert len({tuple(choose_proteins(dataset, 4, seed, limit)) for seed in range(5)}) > 1
    with pytest.raises(
        DataError, match=r"proteinnet_train\.lmdb: 10 proteins are short enough for the model, fewer than 20"
    ):
        choose_proteins(dataset, 20, 0, None)
    with pytest.raises(ConfigError, match="at least 1 protein"):
        choose_proteins(dataset, 0, 0, None)


def test_the_attention_maps_have_the_precision_of_the_command(
    small_config: Path, small_data: Path, tmp_path: Path
) -> None:
    registry.get_task_model("transformer", "masked_language_modeling", small_config).save_pretrained(tmp_path / "model")
    words = ["transformer", tmp_path / "model", "--data_dir", small_data, "--output_dir", tmp_path / "results"]
    words += ["--fit_proteins", 8, "--split", "valid", "--bootstrap", 0, "--no_cuda"]
    words += ["--inverse_penalty", 1000]  # no weight is 0
    weights = []
    for precision in ("fp32", "bf16"):
        path = run_contacts([*map(str, words), "--time_or_name", precision, "--precision", precision])
        assert read_record(path / "eval_valid.json").precision == precision
        weights.append(json.loads((path / "regression.json").read_text())["weights"])
    assert weights[0] != weights[1]


def test_the_command_fits_evaluates_and_writes_a_record(
    small_config: Path, small_data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    registry.get_task_model("transformer", "masked_language_modeling", small_config).save_pretrained(tmp_path / "model")
    words = ["transformer", tmp_path / "model", "--data_dir", small_data, "--output_dir", tmp_path / "results"]
    words += ["--fit_proteins", 8, "--split", "valid", "--time_or_name", "t", "--bootstrap", 20, "--no_cuda"]
    path = run_contacts([*map(str, words)])
    assert path == tmp_path / "results" / "unsupervised_contact_prediction_transformer_t"
    record = read_record(path / "eval_valid.json")
    assert (record.task, record.proteins, record.model_dir) == (path.name[:-14], 5, str(tmp_path / "model"))
    assert record.metric("precision_at_l5_long") is not None
    assert record.bootstrap == {"resamples": 20, "seed": 42, "level": 0.95}
    assert record.model_sha256 is not None
    saved = json.loads((path / "regression.json").read_text())
    assert (len(saved["weights"]), len(saved["proteins"]), saved["c"]) == (4, 8, 0.15)
    assert (path / "results.pkl").is_file()
    assert "exists already" in fails(contacts_command, *words, "--data_dir", tmp_path)  # before any data are read
    assert record.leakage is None
    write_leakage(small_data / "proteinnet" / "proteinnet_valid.lmdb", tmp_path / "leakage.tsv", [100.0] * 5)
    assert run_contacts([*map(str, words), "--overwrite", "--leakage", str(tmp_path / "leakage.tsv")]) == path
    found = read_record(path / "eval_valid.json").leakage
    assert found is not None
    (scores,) = found.references
    assert repr(scores.bins[3].metrics) == repr(record.metrics)
    words[0] = "onehot"
    assert "'onehot' has no attention maps" in fails(contacts_command, *words)

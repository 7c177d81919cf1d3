"""``tape-contacts --predict``: contacts of unlabeled proteins by a regression on attention maps or a finetuned head."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tape import TAPETokenizer
from tape.cli.contacts import run_contacts
from tape.commands import contacts_command
from tape.errors import CheckpointError
from tape.evaluation.config import ModelSource
from tape.evaluation.windows import WindowedModel
from tape.inference.attention_contacts import attention_features
from tape.inference.contact_models import AttentionContactModel, load_contact_model
from tape.inference.contact_regression import ContactRegression
from tape.models.model_directory import verify_model_directory
from tape.registry import registry
from tape.tasks import TaskType
from tests.support.bundled_models import install_model

PROTEINS = {"sp|P1|a": "ACDEFGHIKLMNPQRS", "b": "MNPQWYACDEFGH"}


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "new.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in PROTEINS.items()))
    return path


@pytest.fixture
def pretrained(small_config: Path, tmp_path: Path) -> Path:
    torch.manual_seed(3)
    registry.get_task_model("transformer", "masked_language_modeling", small_config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def fitted(pretrained: Path, small_data: Path, tmp_path: Path) -> Path:
    """A model with the regression that the command has kept with it."""
    words = ["transformer", pretrained, "--data_dir", small_data, "--output_dir", tmp_path / "results", "--no_cuda"]
    words += ["--fit_proteins", 8, "--split", "valid", "--time_or_name", "t", "--bootstrap", 0]
    run_contacts([*map(str, words), "--inverse_penalty", "1000"])  # no weight is 0
    return pretrained


def words_of(model: Path, fasta: Path, tmp_path: Path, *options: object) -> list[str]:
    words = ["transformer", model, "--predict", fasta, "--output_dir", tmp_path / "out", "--no_cuda", *options]
    return [*map(str, words)]


def expected(model: Path, sequence: str) -> np.ndarray:
    """Probabilities from the maps of one protein and the numbers in the file."""
    stored = json.loads((model / "contact_regression.json").read_text())
    encoder = registry.get_task_model("transformer", "embed", load_dir=model, output_attentions=True).eval()
    with torch.no_grad():
        features = attention_features(encoder, TAPETokenizer().encode(sequence), torch.device("cpu"))
    scores = features.astype(np.float64) @ np.array(stored["weights"]) + stored["intercept"]
    return np.asarray(1 / (1 + np.exp(-scores)))


def test_probabilities_are_those_of_the_regression_kept_with_the_model(
    fitted: Path, fasta: Path, tmp_path: Path
) -> None:
    assert "contact_regression.json" in verify_model_directory(fitted, ["contact_regression.json"])
    table = run_contacts(words_of(fitted, fasta, tmp_path, "--batch_size", 2))
    assert table == tmp_path / "out" / "contacts_new.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["id"], row["length"]) for row in rows] == [("sp|P1|a", "16"), ("b", "13")]
    for row, sequence in zip(rows, PROTEINS.values(), strict=True):
        path = table.parent / row["map"]
        np.testing.assert_allclose(np.load(path)["probabilities"], expected(fitted, sequence), atol=1e-5)
        assert len(path.with_suffix(".csv").read_text().splitlines()) == 1 + sum(range(1, len(sequence) - 5))
    assert {path.suffix for path in (table.parent / "contacts_new_maps").iterdir()} == {".npz", ".csv"}


def test_a_regression_without_weights_does_not_replace_the_one_kept_with_the_model(
    fitted: Path, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = (fitted / "contact_regression.json").read_text()
    words = ["transformer", fitted, "--data_dir", small_data, "--output_dir", tmp_path / "again", "--no_cuda"]
    words += ["--fit_proteins", 8, "--split", "valid", "--bootstrap", 0, "--inverse_penalty", 1e-9]  # all weights are 0
    run_contacts([*map(str, words)])
    assert "not kept with the model, since all of its scores are equal" in caplog.text
    assert (fitted / "contact_regression.json").read_text() == kept


def test_the_head_of_a_finetuned_model_predicts(
    small_config: Path, fasta: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(5)
    model = registry.get_task_model(
        "transformer", "contact_prediction", small_config, finetuning_task="contact_prediction"
    ).eval()
    model.save_pretrained(tmp_path / "finetuned")
    with caplog.at_level(logging.INFO):
        table = run_contacts(words_of(tmp_path / "finetuned", fasta, tmp_path))
    assert f"the contact maps are in {table.parent / 'contacts_new_maps'}" in caplog.messages
    found = np.load(table.parent / "contacts_new_maps" / "000001_b.npz")["probabilities"]
    with torch.no_grad():
        logits = model(torch.from_numpy(TAPETokenizer().encode(PROTEINS["b"]))[None])[0][0]
    np.testing.assert_allclose(found, logits.softmax(-1)[..., 1], atol=1e-5)


def test_a_model_without_a_regression_names_the_command_that_fits_one(
    pretrained: Path, fasta: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    error = fails(contacts_command, *words_of(pretrained, fasta, tmp_path))
    assert (
        f"fit one on proteins with known structure, `tape-contacts transformer {pretrained} --data_dir DATA`" in error
    )
    assert not (tmp_path / "out").exists()


def test_the_regression_of_a_result_is_used_if_it_is_of_the_model(
    fitted: Path, fasta: Path, tmp_path: Path, small_config: Path
) -> None:
    (fitted / "contact_regression.json").rename(tmp_path / "moved.json")
    result = tmp_path / "results" / "unsupervised_contact_prediction_transformer_t" / "regression.json"
    assert json.loads(result.read_text()) == json.loads((tmp_path / "moved.json").read_text())
    assert run_contacts(words_of(fitted, fasta, tmp_path, "--regression", result)).is_file()
    other = registry.get_task_model("transformer", "masked_language_modeling", small_config)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="regression.json: was fitted to a model with other weights"):
        run_contacts(words_of(tmp_path / "other", fasta, tmp_path, "--regression", result))


def test_the_directory_of_a_bundled_model_is_not_changed(
    small_data: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_model(tmp_path / "bundled", monkeypatch, "small")
    before = sorted(path.name for path in (tmp_path / "bundled" / "small").iterdir())
    words = ["transformer", "small", "--data_dir", small_data, "--output_dir", tmp_path / "results", "--no_cuda"]
    path = run_contacts([*map(str, [*words, "--fit_proteins", 8, "--split", "valid", "--bootstrap", 0])])
    assert sorted(path.name for path in (tmp_path / "bundled" / "small").iterdir()) == before
    given = ["--regression", path / "regression.json"]
    assert run_contacts(words_of(Path("small"), fasta, tmp_path, *given)).is_file()


def test_pictures_are_drawn_if_asked_for(
    fitted: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    pytest.importorskip("matplotlib")
    table = run_contacts(words_of(fitted, fasta, tmp_path, "--plot"))
    assert (table.parent / "contacts_new_maps" / "000001_b.png").is_file()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "--plot needs matplotlib" in fails(contacts_command, *words_of(fitted, fasta, tmp_path, "--plot"))


def test_long_proteins_are_refused_or_read_in_windows(fitted: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    long = tmp_path / "long.fasta"
    long.write_text(">long\n" + "ACDEFGHIKLMNPQRSTVWY" * 4 + "\n")
    error = fails(contacts_command, *words_of(fitted, long, tmp_path))
    assert "80 residues, but the model has positions for 62" in error
    table = run_contacts(words_of(fitted, long, tmp_path, "--length", "window"))
    chances = np.load(table.parent / "contacts_long_maps" / "000000_long.npz")["probabilities"]
    assert (chances.shape, np.isfinite(chances).all()) == ((80, 80), True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--predict", "x.fasta", "--split", "test"], "--split belongs to the fit of a regression"),
        (["--predict", "x.fasta", "--fit_proteins", "20"], "--fit_proteins belongs to the fit"),
        (["--plot"], "--plot belongs to --predict FILE"),
        (["--length", "error"], "--length belongs to --predict FILE"),
    ],
)
def test_options_of_the_other_use_are_refused(options: list[str], message: str, fails: Callable[..., str]) -> None:
    assert message in fails(contacts_command, "transformer", "model", *options)


def test_predictions_do_not_depend_on_the_batch_or_its_padding(small_config: Path) -> None:
    torch.manual_seed(1)
    encoder = registry.get_task_model("transformer", "embed", small_config, output_attentions=True).eval()
    regression = ContactRegression(np.array([1.0, -2.0, 3.0, 0.5]), -1.0, (), 1, 1.0)
    model = AttentionContactModel(encoder, regression)
    ids = [torch.from_numpy(TAPETokenizer().encode(sequence)) for sequence in PROTEINS.values()]
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    with torch.no_grad():
        (logits,) = model(batch, (batch != 0).long())
        (alone,) = model(ids[1][None])
    np.testing.assert_array_equal(logits[1, :13, :13], alone[0])
    assert not logits[1, 13:].any()
    windowed = WindowedModel(model, TaskType.RESIDUE_PAIR, 64)
    with torch.no_grad():
        np.testing.assert_array_equal(windowed(ids[1][None])[0], alone)


def test_a_regression_for_another_number_of_heads_is_refused(small_config: Path) -> None:
    encoder = registry.get_task_model("transformer", "embed", small_config, output_attentions=True).eval()
    model = AttentionContactModel(encoder, ContactRegression(np.ones(3), 0.0, (), 1, 1.0))
    with torch.no_grad(), pytest.raises(CheckpointError, match="has 3 weights, but the model has 4 attention heads"):
        model(torch.tensor([[2, 5, 9, 12, 7, 3]]))


def test_a_model_loads_as_a_contact_model(fitted: Path) -> None:
    model = load_contact_model(ModelSource("transformer", str(fitted)), fitted)
    assert isinstance(model, AttentionContactModel)

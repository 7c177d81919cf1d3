"""All commands with an encoder of ``transformers``, from its directory."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tape.cli.contacts import run_contacts
from tape.cli.score import run_score
from tape.commands import embed_command, train_command
from tape.evaluation.records import read_record
from tape.main import run_embed, run_eval, run_train
from tests.support.huggingface_models import logits_of_transformers, save_model

transformers = pytest.importorskip("transformers")


@pytest.fixture(params=["esm", "bert"])
def model_dir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's directory; the current one is elsewhere and empty."""
    transformers.logging.set_verbosity_error()
    save_model(tmp_path / "hf", request.param)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "hf"


def words(*options: object) -> list[str]:
    return [*map(str, options), "--no_cuda", "--log_level", "40"]


@pytest.mark.parametrize("options", [(), ("--freeze",), ("--lora", 2), ("--pooling", "mean")], ids=str)
def test_training_and_evaluation(options: tuple[object, ...], model_dir: Path, small_data: Path) -> None:
    if "--lora" in options:
        pytest.importorskip("peft")
    settings = ("--data_dir", small_data, "--batch_size", 4, "--learning_rate", 1e-3, "--num_train_epochs", 1)
    before = ("--from_pretrained", model_dir, "--time_or_name", "t")
    run = run_train(words("huggingface", "stability", *settings, *before, *options))
    shutil.rmtree(model_dir)
    metrics = run_eval(words("huggingface", "stability", run, "--data_dir", small_data))
    record = read_record(run / "0" / "eval_test.json")
    assert (record.model, record.proteins) == ("huggingface", 5)
    assert np.isfinite(metrics["mse"])


def test_predictions(model_dir: Path, small_data: Path, tmp_path: Path) -> None:
    before = ("--from_pretrained", model_dir, "--force_save", tmp_path / "saved")
    saved = run_train(words("huggingface", "secondary_structure", "--data_dir", small_data, *before))
    (tmp_path / "p.fasta").write_text(">a\nMKVL\n")
    out = tmp_path / "out.json"
    run_eval(
        words("huggingface", "secondary_structure", saved, "--predict", tmp_path / "p.fasta", "--predict_out", out)
    )
    (found,) = json.loads(out.read_text())["predictions"]
    assert found["id"] == "a"
    assert len(found["prediction"]) == 4
    np.testing.assert_allclose(np.sum(found["probabilities"], axis=1), 1.0, atol=1e-3)


def test_embeddings_are_the_states_of_transformers(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_text(">a\nMKVLAX\n>b\nACDEFGHIKL\n")
    path = run_embed(words("huggingface", tmp_path / "p.fasta", tmp_path / "out.npz", model_dir))
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(model_dir)
    expected = logits_of_transformers(model_dir, theirs, "MKVLAX")[1].hidden_states[-1][0]
    with np.load(path, allow_pickle=True) as arrays:
        np.testing.assert_allclose(arrays["a"].item()["avg"], expected[1:-1].mean(0), atol=1e-5)
        np.testing.assert_allclose(arrays["a"].item()["pooled"], expected[0], atol=1e-5)


def test_contacts_from_attention_maps(model_dir: Path, small_data: Path, tmp_path: Path) -> None:
    options = (
        "--data_dir",
        small_data,
        "--fit_proteins",
        8,
        "--split",
        "valid",
        "--time_or_name",
        "t",
        "--bootstrap",
        0,
    )
    path = run_contacts(words("huggingface", model_dir, *options, "--inverse_penalty", 1000))
    assert len(json.loads((path / "regression.json").read_text())["weights"]) == 2 * 2  # layers and heads
    assert read_record(path / "eval_valid.json").metric("precision_at_l5_long") is not None


def test_masked_marginals_are_those_of_transformers(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("mutant\nK2A\n")
    (tmp_path / "w.fasta").write_text(">w\nMKVLA\n")
    arguments = (tmp_path / "v.csv", tmp_path / "out.csv", model_dir, "--wild_type", tmp_path / "w.fasta")
    path = run_score(words("huggingface", *arguments, "--methods", "masked_marginal"))
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    inputs = tokenizer("M K V L A", return_tensors="pt")
    inputs["input_ids"][0, 2] = tokenizer.mask_token_id
    with torch.no_grad():
        row = theirs(**inputs).logits[0, 2]
    vocabulary = tokenizer.get_vocab()
    with path.open() as stream:
        (found,) = csv.DictReader(stream)
    assert float(found["masked_marginal"]) == pytest.approx(
        float(row[vocabulary["A"]] - row[vocabulary["K"]]), rel=1e-4
    )


def test_a_missing_directory_is_one_sentence(fails: Callable[..., str], small_data: Path) -> None:
    error = fails(train_command, "huggingface", "stability", "--data_dir", small_data)
    assert "give --from_pretrained a directory" in error


def test_proteins_beyond_the_position_table_are_named(fails: Callable[..., str], tmp_path: Path) -> None:
    save_model(tmp_path / "hf", "bert")
    (tmp_path / "p.fasta").write_text(f">long\n{'A' * 39}\n")
    error = fails(embed_command, "huggingface", tmp_path / "p.fasta", tmp_path / "out.npz", tmp_path / "hf")
    assert "39 residues, but the model has positions for 38" in error

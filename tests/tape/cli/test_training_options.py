"""``--freeze``, ``--lora``, ``--pooling``, ``--seeds``, ``--eval_splits`` and ``--length`` from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.errors import ConfigError, DataError
from tape.finetuning.run_directory import read_history
from tape.main import run_embed, run_eval

Train = Callable[..., Path]

OPTIONS = ("--num_train_epochs", 3, "--batch_size", 4, "--learning_rate", 1e-2, "--warmup_steps", 0)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(directory / "pytorch_model.bin", weights_only=True)
    return state


def assert_resumes_exactly(train: Train, task: str, *options: object) -> Path:
    """Three epochs in one go, then again after the first: the same weights and numbers."""
    run = train("transformer", task, *OPTIONS, *options)
    whole, history = weights(run / "2"), read_history(run)
    train("transformer", task, "--resume_from_checkpoint", "--from_pretrained", run / "0", "--overwrite")
    again = weights(run / "2")
    assert again.keys() == whole.keys()
    for name, value in again.items():
        assert torch.equal(value, whole[name]), name
    assert [{**r, "seconds": 0} for r in read_history(run)] == [{**r, "seconds": 0} for r in history]
    return run


def test_a_frozen_encoder_is_unchanged_and_resumes_exactly(train: Train) -> None:
    run = assert_resumes_exactly(train, "secondary_structure", "--freeze", "--config", "hidden_dropout_prob=0.5")
    assert json.loads((run / "args.json").read_text())["freeze"] is True
    first, last = weights(run / "0"), weights(run / "2")
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved
    assert not any(name.startswith("bert.") for name in moved)
    state = torch.load(run / "2" / "checkpoint.bin", weights_only=True)
    assert len(state["optimizer"]["state"]) == len([name for name in moved if "running" not in name]) - 1  # counter


def test_a_head_with_its_own_learning_rate_resumes_exactly(train: Train) -> None:
    # an encoder that stays where it is shows which parameters have which rate
    options = ("--learning_rate", 0, "--head_learning_rate", 0.05, "--config", "contact_separations=8")
    run = assert_resumes_exactly(train, "contact_prediction", *options)
    first, last = weights(run / "0"), weights(run / "2")
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert "predict.separation.weight" in moved
    assert not any(name.startswith("bert.") for name in moved)


def test_lora_resumes_exactly_and_saves_merged_weights(train: Train, small_data: Path) -> None:
    run = assert_resumes_exactly(train, "stability", "--lora", 2)
    assert not any("lora" in name or "base_layer" in name for name in weights(run / "2"))
    state = torch.load(run / "2" / "checkpoint.bin", weights_only=True)
    assert {name.split(".")[-3] for name in state["adapter"] if "lora" in name} == {"lora_A", "lora_B"}
    best = json.loads((run / "best.json").read_text())
    metrics = run_eval(
        ["transformer", "stability", str(run), "--data_dir", str(small_data), "--split", "valid", "--log_level", "40"]
    )
    assert metrics["loss"] == pytest.approx(best["value"], rel=1e-4)
    with pytest.raises(ConfigError, match="was started with --lora 2, which can't be changed"):
        train("transformer", "stability", "--resume_from_checkpoint", "--from_pretrained", run, "--lora", 3)
    tuned = train("transformer", "stability", "--from_pretrained", run, *OPTIONS, "--time_or_name", "further")
    assert weights(tuned / "0").keys() == weights(run / "2").keys()


@pytest.mark.parametrize("kind", ["mean", "attention"])
def test_pooling_is_saved_with_the_model(kind: str, train: Train, small_data: Path) -> None:
    run = train("transformer", "remote_homology", *OPTIONS, "--pooling", kind, "--eval_splits", "test_fold_holdout")
    assert json.loads((run / "2" / "config.json").read_text())["pooling"] == kind
    assert ("pooling.query" in weights(run / "2")) == (kind == "attention")
    best = run / json.loads((run / "best.json").read_text())["directory"]
    report = json.loads((best / "eval_test_fold_holdout.json").read_text())
    assert report["proteins"] == 5


def test_batch_normalization_of_the_head_is_trained_on_a_frozen_encoder_and_saved(train: Train) -> None:
    run = train("transformer", "stability", *OPTIONS, "--pooled_norm", "batch", "--freeze")
    assert json.loads((run / "2" / "config.json").read_text())["pooled_norm"] == "batch"
    first, last = weights(run / "0"), weights(run / "2")
    names = {name for name in last if name.startswith("pooled_norm.")}
    assert names == {
        f"pooled_norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    changed = {name for name in names if not first[name].equal(last[name])}
    assert changed == {"pooled_norm.weight", "pooled_norm.bias", "pooled_norm.num_batches_tracked"}
    assert last["pooled_norm.running_var"].max() > 0  # of the frozen encoder, so it stays the same
    assert all(first[name].equal(last[name]) for name in last if name.startswith("bert."))


def test_runs_of_several_seeds_are_summarized_by_mean_and_standard_deviation(train: Train, tmp_path: Path) -> None:
    options = (*OPTIONS, "--seeds", 2, "--seed", 7, "--eval_splits", "test", "valid", "--save_freq", "improvement")
    directory = train("onehot", "stability", *options, "--config", "head_hidden_size=8")
    assert directory == Path("results") / "stability_onehot_t"
    assert sorted(path.name for path in directory.iterdir()) == ["seed_7", "seed_8", "summary.csv", "summary.json"]
    summary = json.loads((directory / "summary.json").read_text())
    own = [run["metrics"]["test"]["spearmanr"] for run in summary["runs"]]
    assert own[0] != own[1]
    assert summary["summary"]["test"]["spearmanr"]["mean"] == pytest.approx(sum(own) / 2)
    for run in summary["runs"]:  # `valid` of the history and of the evaluation are one
        best = json.loads((directory / run["directory"] / "best.json").read_text())
        assert run["metrics"]["valid"]["loss"] == pytest.approx(best["value"])
        assert json.loads((directory / run["directory"] / "args.json").read_text())["seed"] == run["seed"]
    assert {row["split"] for row in csv.DictReader((directory / "summary.csv").read_text().splitlines())} == {
        "test",
        "valid",
    }
    assert {path.name for path in (tmp_path / "logs" / directory.name).iterdir()} == {"seed_7", "seed_8"}


def test_a_token_budget_does_not_change_steps_and_losses(train: Train, small_data: Path) -> None:
    whole = read_history(train("transformer", "stability", *OPTIONS))
    run = train("transformer", "stability", *OPTIONS, "--max_tokens", 32, "--overwrite")
    for one, other in zip(whole, read_history(run), strict=True):
        assert one["step"] == other["step"]
        assert other["valid"]["loss"] == pytest.approx(one["valid"]["loss"], rel=1e-3)
    words = ["transformer", "stability", str(run), "--data_dir", str(small_data), "--log_level", "40"]
    assert run_eval([*words, "--max_tokens", "32"])["loss"] == pytest.approx(run_eval(words)["loss"], rel=1e-5)
    with pytest.raises(ConfigError, match="--max_tokens 8 is too small for the longest protein"):
        train("transformer", "stability", *OPTIONS, "--max_tokens", 8, "--overwrite")


def test_contradicting_training_options_are_refused(train: Train) -> None:
    message = "--pooling is for tasks with one value or class per protein, not for secondary_structure"
    with pytest.raises(ConfigError, match=message):
        train("transformer", "secondary_structure", "--pooling", "mean")
    with pytest.raises(ConfigError, match=message.replace("pooling", "pooled_norm")):
        train("transformer", "secondary_structure", "--pooled_norm", "batch")
    with pytest.raises(ConfigError, match="has no encoder with weights"):
        train("onehot", "stability", "--freeze")
    with pytest.raises(ConfigError, match="give it without --seeds"):
        train("transformer", "stability", "--resume_from_checkpoint", "--seeds", 2)
    with pytest.raises(ConfigError, match="saves one model and trains none"):
        train("transformer", "stability", "--force_save", "x", "--seeds", 2)
    with pytest.raises(DataError, match="no split 'casp12'"):
        train("transformer", "stability", *OPTIONS, "--eval_splits", "test", "casp12", "--time_or_name", "split")
    assert not Path("results/stability_transformer_split").exists()  # refused before training
    with pytest.raises(ConfigError, match="max_position_embeddings 2 leaves no residue"):
        train("transformer", "stability", "--config", "max_position_embeddings=2", "--length", "crop")
    for words in (("--freeze", "--lora", 2), ("--lora", 0), ("--seeds", "x"), ("--length", "drop")):
        with pytest.raises(SystemExit):
            train("transformer", "stability", *words)


def test_a_missing_eval_split_is_refused_before_the_model_is_loaded(train: Train) -> None:
    with pytest.raises(DataError, match="no split 'casp12'"):
        train("transformer", "stability", "--from_pretrained", "no_such_model", "--eval_splits", "casp12")


# --- proteins longer than the table of 64 positions -----------------------------------------------------------------


def long_records(folder: str, *lengths: int) -> list[dict[str, Any]]:
    fields = {
        "stability": lambda n: {"stability_score": [float(n)]},
        "secondary_structure": lambda n: {"ss3": [i % 3 for i in range(n)]},
    }
    text = "ACDEFGHIKLMNPQRSTVWY" * 10
    return [{"primary": text[:n], "id": f"p{n}", **fields[folder](n)} for n in lengths]


@pytest.fixture(params=["stability", "secondary_structure"])
def long_data(request: pytest.FixtureRequest, write_split: Callable[..., Path]) -> tuple[str, Path]:
    for split in ("train", "valid", "test"):
        data = write_split(request.param, split, long_records(request.param, 10, 62, 63, 150))
    return request.param, data


@pytest.mark.parametrize("policy", ["crop", "window"])
def test_long_proteins_are_cropped_or_read_in_windows_and_all_are_evaluated(
    policy: str, long_data: tuple[str, Path], train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    # bug 16 in docs/compatibility.md
    task, data = long_data
    run = train("transformer", task, *OPTIONS, "--length", policy, "--log_level", 30, data=data)
    assert f"--length {policy}: 2 of 4 proteins of valid are" in caplog.text
    assert "--length crop: 2 of 4 proteins of train are cropped to their first 62 residues" in caplog.text
    words = ["transformer", task, str(run / "2"), "--data_dir", str(data), "--split", "valid", "--log_level", "40"]
    values = run_eval([*words, "--length", policy, "--batch_size", "3"])
    assert values["loss"] == pytest.approx(read_history(run)[2]["valid"]["loss"], rel=1e-4)
    report = json.loads((run / "2" / "eval_valid.json").read_text())
    assert (report["proteins"], report["data"]["long_proteins"]) == (4, policy)
    if task == "secondary_structure":
        counted = next(metric["n"] for metric in report["metrics"] if metric["name"] == "loss")
        assert counted == (10 + 62 + 62 + 62 if policy == "crop" else 10 + 62 + 63 + 150)


def test_long_proteins_are_embedded_in_windows_or_cropped(
    train: Train, write_split: Callable[..., Path], tmp_path: Path
) -> None:
    import numpy as np

    run = train("transformer", "stability", "--num_train_epochs", 1)
    (tmp_path / "a.fasta").write_text(">a\n" + "ACDEFGHIKL" * 20 + "\n>b\nACD\n")
    words = ["transformer", str(tmp_path / "a.fasta"), str(tmp_path / "e.npz"), str(run), "--full_sequence_embed"]
    lengths = {}
    for policy in ("crop", "window"):
        with np.load(run_embed([*words, "--length", policy]), allow_pickle=True) as arrays:
            lengths[policy] = [len(arrays[name].item()["seq"]) for name in ("a", "b")]
    assert lengths == {"crop": [64, 5], "window": [202, 5]}

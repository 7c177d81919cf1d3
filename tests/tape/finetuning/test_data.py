"""The proteins that a run trains on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError
from tape.evaluation.records import TrainingSize, read_record
from tape.finetuning.config import FinetuneDataConfig
from tape.finetuning.data import data_digests, load_training_data
from tape.finetuning.run_directory import read_history
from tape.main import run_eval, run_train
from tape.models.model_directory import directory_provenance
from tape.registry import registry

Train = Callable[..., Path]
EPOCHS = ("--num_train_epochs", "2")


@pytest.fixture
def data(write_split: Callable[..., Path]) -> Path:
    """A data directory with 40 proteins of 10 to 49 residues in train, and two in valid."""

    def records(*lengths: int) -> list[dict[str, Any]]:
        return [{"primary": "A" * n, "stability_score": [float(n)], "id": f"p{n}"} for n in lengths]

    write_split("stability", "train", records(*range(10, 50)))
    return write_split("stability", "valid", records(10, 40))


def drawn(data: Path, number: int | None, seed: int = 1, longest: int | None = None) -> tuple[list[int], str | None]:
    """The proteins to train on, and their digest."""
    config = FinetuneDataConfig(str(data), max_length=longest, max_train_samples=number)
    loaded = load_training_data(config, registry.get_task_spec("stability").dataset_class, True, seed=seed)
    return loaded.indices.tolist(), data_digests(loaded).get("train_samples")


def test_proteins_are_drawn_by_the_seed_and_fewer_are_some_of_them(data: Path) -> None:
    few, of_few = drawn(data, 5)
    more, of_more = drawn(data, 20)
    assert len(set(few)) == 5
    assert len(set(more)) == 20
    assert set(few) < set(more) < set(range(40))
    assert few == sorted(few)
    assert drawn(data, 5) == (few, of_few)
    other, of_other = drawn(data, 5, seed=2)
    assert other != few
    assert len({of_few, of_more, of_other}) == 3
    assert max(drawn(data, 5, longest=20)[0]) <= 10  # 20 residues


def test_a_number_of_all_proteins_or_more_is_that_of_all(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    every, digest = drawn(data, None)
    assert every == list(range(40))
    assert drawn(data, 40) == (every, digest)
    assert caplog.text == ""
    assert drawn(data, 41) == (every, digest)
    assert "--max_train_samples 41: all 40 training proteins are used" in caplog.text


def test_drawn_proteins_are_a_third_of_all_on_average(data: Path) -> None:
    counts = np.bincount([index for seed in range(30) for index in drawn(data, 13, seed)[0]], minlength=40)
    assert counts.min() > 0
    assert counts.max() < 30


def test_a_run_trains_on_them_and_validates_on_all(train: Train, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ("--num_train_epochs", 1, "--batch_size", 2, "--log_level", 20, "--max_train_samples", 6)
    run = train("transformer", "stability", *options, data=data)
    (epoch,) = read_history(run)
    assert epoch["step"] == 3
    assert "--max_train_samples 6: drawn from 40 training proteins with seed 42" in caplog.text
    assert "6 of 40 proteins" in caplog.text
    run_eval(["transformer", "stability", str(run), "--data_dir", str(data), "--split", "valid", "--no_cuda"])
    assert read_record(run / "0" / "eval_valid.json").training == TrainingSize(6, 40)


def test_a_resumed_run_keeps_its_proteins(train: Train, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1, "--max_train_samples", 6, data=data)
    epochs = ["--num_train_epochs", "2", "--log_level", "20"]
    resume = ["transformer", "stability", "--from_pretrained", str(run), "--resume_from_checkpoint", *epochs]
    number = "--max_train_samples"
    for options in (("--seed", "7"), (number, "7"), (number, "41"), ("--max_length", "20")):
        with pytest.raises(ConfigError, match=r"other data: it had other proteins of train\. Resume with its --max_tr"):
            run_train([*resume, *options])
    run_train(resume)
    assert "--max_train_samples 6: drawn from 40 training proteins with seed 42" in caplog.text


def training_of(run: Path, epoch: int) -> dict[str, int] | None:
    found: dict[str, int] | None = directory_provenance(run / str(epoch))["training"]
    return found


def test_the_number_of_proteins_is_that_of_all_that_the_weights_were_trained_on(train: Train, data: Path) -> None:
    few = ("--num_train_epochs", 1, "--max_train_samples", 6)
    first = train("transformer", "stability", *few, "--exp_name", "first", data=data)
    assert training_of(first, 0) == {"proteins": 6, "available": 40}
    run_train(["transformer", "stability", "--from_pretrained", str(first), "--resume_from_checkpoint", *EPOCHS])
    assert training_of(first, 1) == {"proteins": 6, "available": 40}
    onward = ("--from_pretrained", first, "--num_train_epochs", 1)
    second = train("transformer", "stability", *onward, "--max_train_samples", 5, "--exp_name", "second", data=data)
    assert training_of(second, 0) is None
    third = train("transformer", "stability", *onward, "--exp_name", "third", data=data)
    assert training_of(third, 0) == {"proteins": 40, "available": 40}


def test_a_run_that_did_not_record_its_proteins_has_no_number(train: Train, data: Path) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1, data=data)
    file = run / "0" / "provenance.json"
    content = json.loads(file.read_text())
    del content["data_sha256"]["train_samples"], content["training"]  # as of earlier versions
    file.write_text(json.dumps(content))
    (run / "0" / "SHA256SUMS").unlink()
    resume = ["transformer", "stability", "--from_pretrained", str(run), "--resume_from_checkpoint", *EPOCHS]
    run_train([*resume, "--max_train_samples", "6"])
    assert training_of(run, 1) is None


def test_a_resume_that_trains_nothing_changes_no_options(train: Train, data: Path) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 2, "--max_train_samples", 6, data=data)
    before = (run / "args.json").read_bytes()
    resume = ["transformer", "stability", "--from_pretrained", str(run), "--resume_from_checkpoint", *EPOCHS]
    run_train([*resume, "--max_train_samples", "5", "--allow_other_samples"])
    assert (run / "args.json").read_bytes() == before
    run_train([*resume[:-1], "3"])
    assert training_of(run, 2) == {"proteins": 6, "available": 40}


@pytest.mark.parametrize(
    ("started", "resumed"),
    [
        ((), ("--max_train_samples", "6")),
        ((), ("--max_length", "20")),
        (("--max_length", "20"), ("--max_length", "100")),
    ],
)
def test_a_run_of_all_or_of_short_proteins_is_not_resumed_with_others(
    train: Train, data: Path, started: tuple[str, ...], resumed: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1, *started, data=data)
    resume = ["transformer", "stability", "--from_pretrained", str(run), "--resume_from_checkpoint"]
    resume += ["--num_train_epochs", "2", "--log_level", "20", *resumed]
    with pytest.raises(ConfigError, match="trained with other data: it had other proteins of train"):
        run_train(resume)
    assert training_of(run, 0) is not None
    run_train([*resume, "--allow_other_samples"])
    assert training_of(run, 1) is None  # the weights are those of both
    assert "from here on, the data differ from those before: it had other proteins of train" in caplog.text
    assert "from None" not in caplog.text


@pytest.mark.parametrize("number", ["0", "-1", "few"])
def test_a_number_below_one_is_refused(train: Train, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train("transformer", "stability", "--max_train_samples", number)
    assert "argument --max_train_samples: " in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--max_train_samples must be at least 1, not 0"):
        FinetuneDataConfig(max_train_samples=0)

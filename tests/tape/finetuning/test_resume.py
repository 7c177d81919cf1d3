"""The options of an interrupted run, read from its args.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tape.cli.train import create_train_parser
from tape.commands import train_command
from tape.errors import CheckpointError, ConfigError
from tape.finetuning.resume import (
    _FIXED_OPTIONS,
    _RESUMED_OPTIONS,
    SILENT_OPTIONS,
    check_data,
    complete_options,
)

Train = Callable[..., Path]
COMPARED_APART = {"help", "config", "model_type", "task", "precision", "fp16", "bf16", *_FIXED_OPTIONS}
OPTIONS = {action.dest for action in create_train_parser()._actions} - {"help", "version"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_log_iter", "20"),
        ("max_grad_norm", "1.0"),
        ("head_learning_rate", [[]]),
        ("eval_splits", 1.5),
        ("eval_splits", [3]),
        ("given_options", [[[]]]),
        ("given_options", ["seed", 10**30]),
        ("config", [1]),
        ("fp16", 1),
        ("seed", True),
        ("data_dir", {}),
        ("data_dir", None),
        ("seed", None),
        ("log_dir", "a\0b"),
        ("given_options", None),
        ("id_column", ["id"]),
        ("sequence_column", 1),
    ],
)
def test_an_option_of_another_type_is_named(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "args.json").write_text(json.dumps({name: value}))
    options = {"from_pretrained": str(tmp_path / "1"), "model_type": "transformer", "task": "stability"}
    with pytest.raises(CheckpointError, match=rf"args\.json: {name} must "):
        complete_options(options, [])


@pytest.mark.parametrize("name", ["task", "model_type"])
def test_a_long_value_of_args_json_is_shortened_in_the_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"args\.json: the run's {name} is 'xxx.*xxx', not") as error:
        changes(tmp_path, {name: "x" * 5000}, {})
    assert len(str(error.value)) < 500


def test_a_long_tokenizer_in_args_json_is_shortened_in_the_message(
    train: Train, fails: Callable[..., str], tmp_path: Path
) -> None:
    run = train("onehot", "stability", "--num_train_epochs", 1, "--output_dir", tmp_path)
    arguments = json.loads((run / "args.json").read_text())
    (run / "args.json").write_text(json.dumps({**arguments, "tokenizer": "x" * 5000}))
    line = fails(train_command, "onehot", "stability", "--resume_from_checkpoint", "--from_pretrained", run)
    assert "unknown tokenizer 'xxx" in line
    assert len(line) < 500


def changes(folder: Path, saved: dict[str, Any], now: dict[str, Any], given: tuple[str, ...] = ()) -> list[str]:
    (folder / "1").mkdir()
    (folder / "args.json").write_text(json.dumps(saved))
    own = {"from_pretrained": str(folder / "1"), "model_type": "onehot", "task": "stability"}
    return complete_options({"config": [], "given_options": [], **now, **own}, given)[1]


@pytest.mark.parametrize("option", sorted(OPTIONS - SILENT_OPTIONS - COMPARED_APART))
def test_every_option_that_is_not_listed_as_silent_is_announced(tmp_path: Path, option: str) -> None:
    values = {
        **dict.fromkeys(("eval_splits",), (["valid"], ["test"])),
        **dict.fromkeys(
            (
                *("data", "labels", "data_dir", "log_dir", "tokenizer", "model_config_file", "length", "id_column"),
                "sequence_column",
            ),
            ("one", "other"),
        ),
    }
    before, after = values.get(option, (1, 2))
    shown = [" ".join(value) if isinstance(value, list) else value for value in (before, after)]  # as it was typed
    assert changes(tmp_path, {option: before}, {option: after}, (option,)) == [
        f"--{option} changes from {shown[0]} to {shown[1]}"
    ]


def test_every_option_of_training_is_resumed_or_silent() -> None:
    assert SILENT_OPTIONS | _RESUMED_OPTIONS.keys() >= OPTIONS - COMPARED_APART


NO_PRECISION = {"precision": None, "fp16": False, "bf16": False}


@pytest.mark.parametrize(
    ("saved", "now", "expected"),
    [
        ({"fp16": False, "bf16": True}, {"precision": "bf16"}, []),
        ({"precision": "bf16"}, {"bf16": True}, []),
        ({"bf16": False}, {"bf16": True}, ["--precision changes from fp32 to bf16"]),
        ({"bf16": True}, {"fp16": True}, ["--precision changes from bf16 to fp16"]),
        ({"precision": "bf16"}, {"precision": "fp32"}, ["--precision changes from bf16 to fp32"]),
    ],
)
def test_a_change_of_the_precision_is_announced_whichever_option_states_it(
    tmp_path: Path, saved: dict[str, Any], now: dict[str, Any], expected: list[str]
) -> None:
    assert changes(tmp_path, {**NO_PRECISION, **saved}, {**NO_PRECISION, **now}, tuple(now)) == expected


@pytest.mark.parametrize("now", [{}, {"precision": "auto"}])
def test_a_resumed_run_keeps_its_precision(tmp_path: Path, now: dict[str, Any]) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "args.json").write_text(json.dumps({**NO_PRECISION, "precision": "bf16"}))
    own = {"from_pretrained": str(tmp_path / "1"), "model_type": "onehot", "task": "stability"}
    options = {"config": [], "given_options": [], **NO_PRECISION, **now, **own}
    completed, announced = complete_options(options, now)
    assert (completed["precision"], completed["bf16"], completed["fp16"], announced) == ("bf16", True, False, [])


def test_silent_options_are_options() -> None:
    assert OPTIONS >= SILENT_OPTIONS


def test_an_option_that_is_neither_resumed_nor_silent_is_announced_without_being_given(tmp_path: Path) -> None:
    assert changes(tmp_path, {"new": 1}, {"new": 2}) == ["--new changes from 1 to 2"]


def test_an_option_that_the_run_did_not_have_is_announced(tmp_path: Path) -> None:
    assert changes(tmp_path, {}, {"patience": 3}, ("patience",)) == [
        "--patience is 3, which the run was started without"
    ]


EPOCH = Path("run/1")


def test_data_are_compared_by_split() -> None:
    saved = {"data_sha256": {"train": "a" * 64, "valid": "b" * 64}}
    assert check_data(EPOCH, saved, {"train": "a" * 64, "valid": "b" * 64}, allow_other_samples=False) == []
    assert check_data(EPOCH, saved, {"train": None}, allow_other_samples=False) == []
    for split in ("train", "valid"):
        with pytest.raises(ConfigError, match=f"other data: SHA-256 .* of {split} .*--allow_other_samples"):
            check_data(EPOCH, saved, {split: "c" * 64}, allow_other_samples=False)
    (line,) = check_data(EPOCH, saved, {"train": "c" * 64, "valid": "b" * 64}, allow_other_samples=True)
    assert line.startswith("from here on, the data differ")


def test_an_epoch_without_digests_is_announced() -> None:
    (line,) = check_data(EPOCH, {}, {"train": "a"}, allow_other_samples=False)
    assert "without digests of its data" in line


def test_a_run_is_not_resumed_on_other_labels(train: Train, small_data: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(small_data, tmp_path / "data"))
    run = train("onehot", "stability", "--num_train_epochs", 1, data=data)
    resume = ("--resume_from_checkpoint", "--from_pretrained", run, "--num_train_epochs", 2)
    moved = Path(shutil.copytree(small_data, tmp_path / "moved"))
    labels = moved / "stability" / "stability_train.lmdb"
    shutil.rmtree(labels)
    shutil.copytree(moved / "stability" / "stability_valid.lmdb", labels)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(ConfigError, match=r"the run was trained with other data: SHA-256 .* of train"):
        train("onehot", "stability", *resume, data=moved)
    assert sorted(path.name for path in run.iterdir()) == before
    train("onehot", "stability", *resume, "--allow_other_samples", data=moved)
    saved = [json.loads((run / epoch / "provenance.json").read_text())["data_sha256"] for epoch in ("0", "1")]
    assert saved[0]["train"] != saved[1]["train"]
    assert saved[0]["valid"] == saved[1]["valid"]


def test_a_run_is_resumed_on_a_copy_of_its_data(train: Train, small_data: Path, tmp_path: Path) -> None:
    run = train("onehot", "stability", "--num_train_epochs", 1)
    copy = Path(shutil.copytree(small_data, tmp_path / "copy"))
    train(
        "onehot", "stability", "--resume_from_checkpoint", "--from_pretrained", run, "--num_train_epochs", 2, data=copy
    )
    assert (run / "1").is_dir()

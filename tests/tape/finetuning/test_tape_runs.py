"""Runs of tape-proteins 0.5 and ProteinLM go on here (bug 9 in docs/compatibility.md)."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tape.errors import CheckpointError, ConfigError
from tape.finetuning.checkpoint import load_training_state
from tape.finetuning.config import AdamWConfig
from tape.finetuning.optimizer import AdamW, make_optimizer
from tape.finetuning.resume import complete_options, epoch_to_resume
from tape.finetuning.run_directory import read_history
from tape.finetuning.tape_runs import TapeRun, find_tape_run
from tape.finetuning.tape_state import TapeState, load_tape_state
from tape.registry import registry
from tests.support.tape_runs import LAYOUTS, SavedRun, code_of, saved_run

Train = Callable[..., Path]


def load(run: SavedRun, directory: Path) -> tuple[nn.Module, TapeState]:
    """The model of a run with its state; the run is written to ``directory``."""
    run.write(directory)
    found = find_tape_run(directory)
    assert found is not None
    model = registry.get_task_model(run.layout.model_type, run.layout.task, None, found.model)
    return model, load_tape_state(found, model, AdamWConfig())


def moments_by_name(model: nn.Module, state: TapeState) -> dict[str, dict[str, Any]]:
    optimizer: AdamW = make_optimizer(model, AdamWConfig(), 10)[0]
    optimizer.load_state_dict(state.training_state["optimizer"])
    return {name: optimizer.state[value] for name, value in model.named_parameters() if value in optimizer.state}


@pytest.mark.parametrize("name", LAYOUTS)
def test_moments_are_those_of_the_parameter_of_the_same_name(name: str, small_data: Path, tmp_path: Path) -> None:
    run = saved_run(name, small_data)
    model, state = load(run, tmp_path)
    moments = moments_by_name(model, state)
    assert set(moments) == run.own_names
    shapes = {own_name: value.shape for own_name, value in model.named_parameters()}
    for own_name, values in moments.items():
        assert values["step"] == 6
        assert values["exp_avg"].shape == shapes[own_name]
        assert values["exp_avg"].eq(torch.tensor(code_of(own_name))).all(), own_name
        assert values["exp_avg_sq"].eq(torch.tensor(code_of(own_name)) + 1).all(), own_name
    assert (state.progress.epoch, state.progress.global_step, state.progress.best_loss) == (1, 6, None)


def test_the_keys_of_earlier_torch_are_ids(small_data: Path, tmp_path: Path) -> None:
    """torch before 1.5 numbered parameters by their addresses; the order is that of the groups."""
    run = saved_run("ProteinLM", small_data)
    optimizer = run.checkpoint["optimizer"]
    for group in optimizer["param_groups"]:
        group["params"] = [10**14 - 7 * key for key in group["params"]]
    optimizer["state"] = {10**14 - 7 * key: values for key, values in optimizer["state"].items()}
    moments = moments_by_name(*load(run, tmp_path))
    assert {name: float(values["exp_avg"].flatten()[0]) for name, values in moments.items()} == {
        name: pytest.approx(code_of(name)) for name in run.own_names
    }


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", ["tape transformer", "tape onehot", "ProteinLM"])
def test_the_training_goes_on_in_a_new_directory(
    name: str, train: Train, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = saved_run(name, small_data)
    theirs = tmp_path / "theirs"
    run.write(theirs)
    before = digests(theirs)
    words = [run.layout.model_type, run.layout.task, "--resume_from_checkpoint", "--from_pretrained"]
    ours = train(*words, theirs, "--log_level", "INFO")
    assert digests(theirs) == before
    history = read_history(ours)
    assert [(record["epoch"], record["step"]) for record in history] == [(2, 9), (3, 12)]
    # warm-up of 2 steps to 1e-3, then 10 steps to 0; the rate of an epoch's last step
    assert [record["learning_rate"] for record in history] == pytest.approx([4e-4, 1e-4])
    written = json.loads((ours / "args.json").read_text())
    assert (written["batch_size"], written["warmup_steps"], written["num_train_epochs"]) == (4, 2, 4)
    decay = 0.02 if name == "ProteinLM" else 0.01
    assert written["weight_decay"] == decay
    for line in (
        f"options that are not given are those of {theirs / 'args.json'}: .*--learning_rate 0.001.*--batch_size 4",
        "without digests of its data",
        "whose order of proteins and dropout masks can't be continued",
        r"never cleared \(bug 1",
        "has no validation loss",
    ):
        assert any(re.search(line, record.getMessage()) for record in caplog.records), line
    optimizer = load_training_state(ours / "3")[0]["optimizer"]
    assert {values["step"] for values in optimizer["state"].values()} == {12}
    assert {group["weight_decay"] for group in optimizer["param_groups"]} == {decay, 0.0}
    # resumed again, as any run of ours
    assert train(*words, ours, "--num_train_epochs", 5).resolve() == ours.resolve()
    again = json.loads((ours / "args.json").read_text())
    assert (again["batch_size"], again["warmup_steps"], again["learning_rate"]) == (4, 2, 1e-3)
    assert again["weight_decay"] == decay
    assert [record["epoch"] for record in read_history(ours)] == [2, 3, 4]


def test_options_that_are_given_replace_theirs(
    train: Train, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved_run("ProteinLM", small_data, steps=5).write(tmp_path / "theirs")
    words = ("--resume_from_checkpoint", "--from_pretrained", tmp_path / "theirs" / "1", "--log_level", "WARNING")
    ours = train("transformer", "stability", *words, "--batch_size", 2, "--weight_decay", 0.1, "--precision", "bf16")
    messages = [record.getMessage() for record in caplog.records]
    assert "--batch_size changes from 4 to 2" in messages
    assert "--weight_decay changes from 0.02 to 0.1" in messages
    assert "its 5 optimizer steps count as 10 of this batch size and data" in messages
    assert read_history(ours)[0]["step"] == 15


@pytest.mark.parametrize("unknown", [{}, {"dropout_schedule": 3}])
def test_options_of_a_fork_are_named(
    unknown: dict[str, Any], train: Train, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = saved_run("ProteinLM", small_data)
    run.arguments |= unknown
    run.write(tmp_path / "theirs")
    words = ("--resume_from_checkpoint", "--from_pretrained", tmp_path / "theirs", "--log_level", "INFO")
    train("transformer", "stability", *words)
    lines = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    named = f"{tmp_path / 'theirs' / 'args.json'}: has options without effect here: dropout_schedule"
    assert lines == ([named] if unknown else [])


def test_the_latest_epoch_of_a_run_is_resumed(small_data: Path, tmp_path: Path) -> None:
    run = saved_run("ProteinLM", small_data)
    for epoch in (2, 9, 10):
        run.write(tmp_path, epoch)
    assert find_tape_run(tmp_path) == TapeRun("ProteinLM", tmp_path / "10", tmp_path / "args.json")
    assert find_tape_run(tmp_path / "9") == TapeRun("ProteinLM", tmp_path / "9", tmp_path / "args.json")


def test_our_own_runs_are_not_taken_for_theirs(train: Train) -> None:
    run = train("onehot", "stability", "--num_train_epochs", 1)
    assert find_tape_run(run) is None
    assert find_tape_run(run / "0") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_master_weights_replace_their_rounded_copies(dtype: torch.dtype, small_data: Path, tmp_path: Path) -> None:
    """The weights file has rounded weights, in fp32 or fp16, by the version of apex."""
    run = saved_run("ProteinLM", small_data)
    masters = masters_of(run)
    run.checkpoint["master params"] = masters
    run.checkpoint["amp"] = OrderedDict(loss_scaler0={"loss_scale": 1024.0, "unskipped": 3})
    full = {name: value.clone() for name, value in run.weights.items()}
    run.weights = {name: value.half().to(dtype) for name, value in run.weights.items()}
    model, state = load(run, tmp_path)
    for name, value in model.named_parameters():
        assert torch.equal(value, full[name]), name
    assert any("master params in fp32" in line for line in state.notices)
    assert any("loss scale of apex (amp) is not used" in line for line in state.notices)


@pytest.mark.parametrize("name", ["tape lstm", "ProteinLM"])
@pytest.mark.parametrize(
    ("arguments", "summed"),
    [
        ({}, True),
        ({"fp16": True}, True),
        ({"local_rank": 0}, True),
        ({"fp16": True, "local_rank": 0}, False),
    ],
)
def test_only_distributed_fp16_training_cleared_gradients(
    name: str, arguments: dict[str, Any], summed: bool, small_data: Path, tmp_path: Path
) -> None:
    run = saved_run(name, small_data)
    run.arguments |= arguments
    notices = load(run, tmp_path)[1].notices
    assert any("never cleared (bug 1" in line for line in notices) is summed


def masters_of(run: SavedRun) -> list[Tensor]:
    """The weights in the order of the optimizer's groups, of which apex replaces those in fp16 by fp32 tensors.

    Its master weights are leaves that require gradients, but no parameters; those of batch norms stay parameters.
    """
    rows = [line.split() for line in run.layout.table.split("\n") if line]
    weights = [run.weights[row[0]].clone() for kind in ("decays", "-") for row in rows if row[2] == kind]
    return [nn.Parameter(weights[0]), *(weight.requires_grad_() for weight in weights[1:])]


def drop(*keys: Any) -> Callable[[SavedRun], None]:
    def change(run: SavedRun) -> None:
        values: Any = run.checkpoint
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return change


def put(value: Any, *keys: Any) -> Callable[[SavedRun], None]:
    def change(run: SavedRun) -> None:
        values: Any = run.checkpoint
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


def without_a_weight(run: SavedRun) -> None:
    del run.weights["predict.value_prediction.main.3.bias"]


def with_another_weight(run: SavedRun) -> None:
    run.weights["predict.other.weight"] = torch.ones(2, 2)


def masters_of_another_epoch(run: SavedRun) -> None:
    masters = masters_of(run)
    run.checkpoint["master params"] = [*masters[:-1], masters[-1].detach() + 1]


STATE, GROUPS = ("optimizer", "state"), ("optimizer", "param_groups")
REFUSED: dict[str, tuple[Callable[[SavedRun], None], str]] = {
    "no optimizer": (drop("optimizer"), "lacks optimizer"),
    "no schedule": (drop("scheduler"), "lacks scheduler"),
    "no position": (drop("scheduler", "last_epoch"), "last_epoch of its scheduler must be a number"),
    "a position that is no number": (put(True, "scheduler", "last_epoch"), "last_epoch .*, not True"),
    "another state": (put([1], "optimizer"), "its optimizer has groups of no parameters"),
    "no groups": (put(3, *GROUPS), "its optimizer has groups of no parameters"),
    "one group": (lambda run: run.checkpoint["optimizer"]["param_groups"].pop(), "groups of 17 parameters, but those"),
    "groups of another program": (
        lambda run: run.checkpoint["optimizer"]["param_groups"].reverse(),
        "groups of 12 and 17 parameters, but those of pytorch_model.bin are 17 with weight decay and 12 without",
    ),
    "keys of another kind": (put([[0]] * 17, *GROUPS, 0, "params"), "the parameters of its optimizer are not numbered"),
    "a parameter twice": (put([1] * 17, *GROUPS, 0, "params"), "the parameters of its optimizer are not numbered"),
    "a state of no parameter": (put({}, *STATE, 99), "state of other parameters than those of its groups"),
    "no step": (drop(*STATE, 0, "step"), "state of bert.embeddings.word_embeddings.weight has no number of steps"),
    "a step out of range": (put(10**400, *STATE, 0, "step"), "has no number of steps"),
    "no moment": (drop(*STATE, 0, "exp_avg_sq"), "exp_avg_sq of bert.embeddings.word_embeddings.weight is missing"),
    "a moment of another shape": (
        put(torch.ones(30, 4), *STATE, 0, "exp_avg"),
        r"exp_avg of bert.embeddings.word_embeddings.weight has the shape \(30, 4\), .* \(30, 8\)",
    ),
    "nan": (put(torch.full((30, 8), float("nan")), *STATE, 0, "exp_avg"), "is not finite"),
    "a negative moment": (put(-torch.ones(30, 8), *STATE, 0, "exp_avg_sq"), "is negative"),
    "a missing weight": (without_a_weight, "lacks predict.value_prediction.main.3.bias"),
    "another weight": (with_another_weight, "has weights that the model lacks: predict.other.weight"),
    "too few master weights": (put([], "master params"), "not one for each of the 29 parameters"),
    "master weights of another epoch": (masters_of_another_epoch, "not the weights in pytorch_model.bin before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_state_that_cannot_be_assigned_is_refused(name: str, small_data: Path, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    run = saved_run("ProteinLM", small_data)
    change(run)
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*{message}.*start a new run from this model without"):
        load(run, tmp_path)


def test_a_state_of_ours_without_its_other_files_is_named(small_data: Path, tmp_path: Path) -> None:
    run = saved_run("ProteinLM", small_data)
    run.checkpoint["progress"] = {}
    with pytest.raises(CheckpointError, match="of a run of this program, whose other files are missing"):
        load(run, tmp_path)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("fluorescence", (), r"theirs/args\.json: the run's task is 'stability', not fluorescence"),
        ("stability", ("--lora", 2), "started without --lora, which can't be changed on resume"),
        ("stability", ("--freeze",), "started without --freeze, which can't be changed on resume"),
        ("stability", ("--head_learning_rate", 1e-3), "started without --head_learning_rate"),
        ("stability", ("--num_train_epochs", 2), "theirs: all 2 epochs of the run are complete; give a larger"),
        ("stability", ("--exp_name", "theirs", "--overwrite"), "goes on in a new directory, so that nothing of"),
        ("stability", ("--exp_name", "theirs/new"), "goes on in a new directory, so that nothing of"),
        ("stability", ("--data_dir", "nowhere"), r"nowhere: no such directory; options .* are those of .*theirs"),
    ],
)
def test_what_a_resume_cannot_change_is_refused(
    train: Train, small_data: Path, tmp_path: Path, task: str, options: tuple[object, ...], message: str
) -> None:
    theirs = tmp_path / "theirs"
    saved_run("ProteinLM", small_data).write(theirs)
    before = digests(tmp_path)
    words = ("--resume_from_checkpoint", "--from_pretrained", theirs, "--output_dir", tmp_path)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        train("transformer", task, *words, *options)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", ["tape transformer", "ProteinLM"])
def test_a_second_file_of_weights_is_refused(name: str, train: Train, small_data: Path, tmp_path: Path) -> None:
    """Models are loaded from model.safetensors, whose tensors are sorted by name."""
    run = saved_run(name, small_data)
    model = run.write(tmp_path / "theirs")
    save_file({name: value.clone() for name, value in run.weights.items()}, model / "model.safetensors")
    before = digests(tmp_path)
    words = ("--resume_from_checkpoint", "--from_pretrained", tmp_path / "theirs")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: beside .*; move model\.safetensors to another"):
        train(run.layout.model_type, run.layout.task, *words)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", ["tape lstm", "ProteinLM"])
@pytest.mark.parametrize("missing", ["checkpoint.bin", "config.json", "pytorch_model.bin"])
def test_a_file_that_a_run_lacks_is_named(name: str, missing: str, small_data: Path, tmp_path: Path) -> None:
    file = saved_run(name, small_data).write(tmp_path, 10 if name == "ProteinLM" else 1) / missing
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{tmp_path}: a run of another program without {file}, so .*; restore"):
        epoch_to_resume(tmp_path)


def test_the_file_of_the_latest_epoch_is_named(small_data: Path, tmp_path: Path) -> None:
    run = saved_run("ProteinLM", small_data)
    for epoch in (9, 10):
        (run.write(tmp_path, epoch) / "checkpoint.bin").unlink()
    with pytest.raises(CheckpointError, match="another program without [^ ]*/10/checkpoint.bin, so"):
        epoch_to_resume(tmp_path)
    with pytest.raises(CheckpointError, match=r"9: no checkpoint\.bin there"):
        load_training_state(epoch_to_resume(tmp_path / "9"))


def test_a_switch_of_the_run_is_shown_without_a_value(small_data: Path, tmp_path: Path) -> None:
    run = saved_run("ProteinLM", small_data)
    run.arguments["fp16"] = True
    run.write(tmp_path)
    options = {"from_pretrained": str(tmp_path), "model_type": "transformer", "task": "stability", "config": []}
    (line, *_) = complete_options({**options, "given_options": []}, [])[1]
    assert re.search(r"--fp16(,|$)", line)
    assert "True" not in line


def test_the_new_directory_is_not_that_of_another_run_of_ours(train: Train, small_data: Path, tmp_path: Path) -> None:
    """On a resume, --overwrite drops the later epochs of the run that goes on, not another run."""
    theirs = tmp_path / "theirs"
    saved_run("ProteinLM", small_data).write(theirs)
    words = ("transformer", "stability", "--resume_from_checkpoint", "--from_pretrained", theirs)
    ours = train("onehot", "stability", "--num_train_epochs", 1, "--exp_name", "ours")
    before = digests(ours)
    for options in ((), ("--overwrite",)):
        with pytest.raises(ConfigError, match="ours holds saved epochs of another run, which a resume of .* choose"):
            train(*words, "--exp_name", "ours", *options)
        assert digests(ours) == before
    assert train(*words, "--exp_name", "new", "--overwrite", "--num_train_epochs", 3).name == "new"


def test_a_table_cannot_replace_their_data(small_data: Path, tmp_path: Path) -> None:
    saved_run("ProteinLM", small_data).write(tmp_path)
    options = {"from_pretrained": str(tmp_path), "model_type": "transformer", "task": None, "data": "table.csv"}
    with pytest.raises(ConfigError, match=r"args\.json: the run was started without --data"):
        complete_options(options, ["data"])


MODEL_FILES = ("config.json", "pytorch_model.bin", "checkpoint.bin")


@pytest.mark.parametrize(
    "left", [MODEL_FILES, *itertools.combinations(MODEL_FILES, 2), *zip(MODEL_FILES), ("model.safetensors",)]
)
def test_a_run_of_tape_proteins_is_not_replaced(
    left: tuple[str, ...], train: Train, small_data: Path, tmp_path: Path
) -> None:
    """Its model is in the directory of the run, which is no saved epoch that --overwrite may remove."""
    theirs = tmp_path / "theirs"
    saved_run("tape transformer", small_data).write(theirs)
    for name in {*MODEL_FILES, *left}:
        if name not in left:
            (theirs / name).unlink()
        elif name not in MODEL_FILES:
            (theirs / name).write_bytes(b"weights")
    for name in ("log", "results.pkl"):
        (theirs / name).write_text("of an evaluation")
    before = digests(tmp_path)
    for options in ((), ("--overwrite",)):
        with pytest.raises(
            ConfigError, match=rf"theirs is a run with its model \({', '.join(left)} beside args\.json\)"
        ):
            train("onehot", "stability", "--output_dir", tmp_path, "--exp_name", "theirs", *options)
        assert digests(tmp_path) == before

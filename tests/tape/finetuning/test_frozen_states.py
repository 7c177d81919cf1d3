"""``--freeze`` computes the states of each protein once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tape.datasets.index import lengths_of
from tape.datasets.labels import model_inputs
from tape.evaluation.config import InferenceConfig
from tape.finetuning import frozen_states
from tape.finetuning.data import TrainingData
from tape.finetuning.frozen_states import FrozenStates, kept_states
from tape.finetuning.run_directory import read_history
from tape.models.freezing import encoder_of, freeze_encoder
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertModel
from tape.registry import registry
from tape.runtime.distributed import DistributedContext
from tape.runtime.stop_signals import StopSignals
from tape.tasks import TaskType
from tests.support.huggingface_models import save_model
from tests.support.small_models import SMALL_CONFIGS

Train = Callable[..., Path]
FREEZE = ("--freeze", "--num_train_epochs", 3, "--batch_size", 4, "--config", "hidden_dropout_prob=0.5")
TYPES = {
    "stability": TaskType.VALUE,
    "remote_homology": TaskType.SEQUENCE_CLASS,
    "secondary_structure": TaskType.RESIDUE_CLASS,
    "contact_prediction": TaskType.RESIDUE_PAIR,
}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of proteins in each pass of a transformer's encoder."""
    counted: list[int] = []
    compute = ProteinBertModel.forward

    def forward(self: ProteinBertModel, input_ids: Tensor, *others: Any, **named: Any) -> Any:
        counted.append(len(input_ids))
        return compute(self, input_ids, *others, **named)

    monkeypatch.setattr(ProteinBertModel, "forward", forward)
    return counted


def frozen(model_type: str, task: str, folder: Path) -> nn.Module:
    values, source = {**SMALL_CONFIGS[model_type], "vocab_size": 30}, None
    if model_type == "huggingface":
        pytest.importorskip("transformers")
        values, source = {}, folder / "esm"
        save_model(source, "esm")
    model = registry.get_task_model(model_type, task, load_dir=source, **values)
    freeze_encoder(model)
    return model.eval()


def data_of(task: str, directory: Path) -> TrainingData:
    dataset_class = registry.get_task_spec(task).dataset_class
    train, valid = (dataset_class(directory, split) for split in ("train", "valid"))
    return TrainingData(train, lengths_of(train), np.arange(len(train)), valid)


def kept(model: nn.Module, data: TrainingData, task: str, **options: Any) -> Any:
    inference = InferenceConfig(batch_size=3, num_workers=0, **options)
    return kept_states(model, data, TYPES[task], inference, DistributedContext(), StopSignals())


@pytest.mark.parametrize("task", TYPES)
@pytest.mark.parametrize("model_type", sorted(SMALL_CONFIGS.keys() - {"onehot", "trrosetta"}))
def test_predictions_are_those_of_the_encoder(
    model_type: str, task: str, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, data = frozen(model_type, task, tmp_path), data_of(task, small_data)
    batches = [data.train.collate_fn([data.train[index] for index in chosen]) for chosen in ([0, 7, 3, 5], [9])]
    batches.append(data.valid.collate_fn([data.valid[index] for index in range(4)]))
    inputs = [model_inputs(batch, torch.device("cpu")) for batch in batches]
    expected = [model(**one) for one in inputs]
    encoder = encoder_of(model)
    assert encoder is not None
    compute = encoder.forward
    with kept(model, data, task):
        assert encoder.forward != compute
        monkeypatch.setattr(encoder.forward, "_compute", None)  # not called any more
        for one, outputs in zip(inputs, expected, strict=True):
            (loss, _), prediction = model(**one)[:2]
            torch.testing.assert_close(loss, outputs[0][0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(prediction, outputs[1], rtol=1e-4, atol=1e-5)
    assert encoder.forward == compute


def test_other_proteins_and_inputs_are_computed(small_data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = frozen("transformer", "stability", tmp_path), data_of("stability", small_data)
    batch = data.train.collate_fn([data.train[0], data.train[1]])
    ids, mask = batch["input_ids"], batch["input_mask"]
    other = ids.clone()
    other[1, 2] = 5 + (int(ids[1, 2]) - 4) % 20
    holes = mask.clone()
    holes[0, 2] = 0
    calls = [(other, mask), (ids, holes), (ids[:, :4], None)]
    expected = [model(*one)[0] for one in calls]
    encoder = encoder_of(model)
    assert encoder is not None
    position_ids = torch.arange(4).flip(0).expand(2, 4)
    moved = encoder(ids[:, :4], position_ids=position_ids)[0]
    with kept(model, data, "stability"):
        for one, prediction in zip(calls, expected, strict=True):
            assert torch.equal(model(*one)[0], prediction)
        assert torch.equal(encoder(ids[:, :4], position_ids=position_ids)[0], moved)


def test_an_epoch_does_not_compute_states(
    passes: list[int], train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = train("transformer", "stability", *FREEZE, "--log_level", 20, "--pooled_norm", "batch")
    assert "the frozen encoder has computed its states of 15 proteins for all epochs" in caplog.text
    assert sum(passes) == 15
    passes.clear()
    monkeypatch.setattr(frozen_states, "MOST_BYTES", 2000)
    options = (*FREEZE, "--log_level", 20, "--pooled_norm", "batch", "--exp_name", "again")
    again = train("transformer", "stability", *options)
    assert "the frozen encoder computes its states in each epoch: all would take 0.0 GiB, above 0" in caplog.text
    assert sum(passes) >= 3 * 15
    for one, other in zip(read_history(run), read_history(again), strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-5)
        assert one["valid"] == pytest.approx(other["valid"], rel=1e-4, nan_ok=True)


def check_equal(run: Path, straight: Path) -> None:
    own, expected = ([{**one, "seconds": 0} for one in read_history(path)] for path in (run, straight))
    assert own == expected
    one, other = load_state_dict(run / "2"), load_state_dict(straight / "2")
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_resumed_run_is_exact(passes: list[int], train: Train) -> None:
    options = ("secondary_structure", *FREEZE, "--log_level", 40)
    straight = train("transformer", *options, "--exp_name", "straight")
    run = train("transformer", *options, "--exp_name", "run")
    resumed = ("--from_pretrained", run / "0", "--resume_from_checkpoint", "--overwrite")
    train("transformer", "secondary_structure", *resumed)
    assert sum(passes) == 3 * 15
    check_equal(run, straight)


def test_a_run_that_is_stopped_before_its_first_step_resumes_exactly(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ("secondary_structure", *FREEZE, "--num_workers", 0)
    straight = train("transformer", *options, "--exp_name", "straight")
    keep = FrozenStates.keep

    def keep_and_stop(self: FrozenStates, *batch: Any) -> None:
        keep(self, *batch)
        os.kill(os.getpid(), signal.SIGTERM)

    run = tmp_path / "results" / "run"
    monkeypatch.setattr(FrozenStates, "keep", keep_and_stop)
    with pytest.raises(SystemExit, match="0"):
        train("transformer", *options, "--exp_name", run.name)
    monkeypatch.setattr(FrozenStates, "keep", keep)
    assert (run / "step_0").is_dir()
    train("transformer", "secondary_structure", "--from_pretrained", run, "--resume_from_checkpoint")
    check_equal(run, straight)


def test_a_run_without_epochs_left_computes_no_states(
    passes: list[int], train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    run = train("transformer", "stability", *FREEZE)
    passes.clear()
    train("transformer", "stability", "--from_pretrained", run, "--resume_from_checkpoint", "--log_level", 20)
    assert "all 3 epochs are complete; nothing to train" in caplog.text
    assert passes == []


@pytest.mark.parametrize(("eval_freq", "states"), [(0, 10), (2, 15), (4, 10)])
def test_only_data_that_are_used_have_states(eval_freq: int, states: int, passes: list[int], train: Train) -> None:
    train("transformer", "stability", *FREEZE, "--eval_freq", eval_freq)
    assert sum(passes) == states


@pytest.mark.parametrize("options", [(), ("--lora", 2)])
def test_a_trained_encoder_computes_its_states(options: tuple[object, ...], passes: list[int], train: Train) -> None:
    train("transformer", "stability", "--num_train_epochs", 2, *options)
    assert sum(passes) == 2 * 15


def test_masks_that_are_drawn_in_each_epoch_are_seen(passes: list[int], train: Train) -> None:
    train("transformer", "masked_language_modeling", "--freeze", "--num_train_epochs", 2)
    assert sum(passes) == 2 * 15


def test_windows_of_long_proteins_are_computed(passes: list[int], train: Train) -> None:
    """The training set is cropped, and its states are kept; windows of the validation set are not."""
    short = ("--config", "max_position_embeddings=12", "--length", "window")
    train("transformer", "stability", "--freeze", "--num_train_epochs", 3, *short)
    windows = sum(passes) - 10
    assert windows > 0
    assert windows % 3 == 0

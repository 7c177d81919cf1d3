"""Checkpoints written beside the training: of the moment they were begun, one at a time, errors reach the run."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pretrain.checkpointing import (
    AsyncCheckpointWriter,
    CheckpointConfig,
    RunDescription,
    RunState,
    find_checkpoint,
    load_full_checkpoint,
)
from pretrain.checkpointing import async_writer as background
from pretrain.checkpointing.async_writer import StagingBuffers
from pretrain.parallel import ControlGroup, ParallelContext, ParallelDims
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.tokenizers import TAPETokenizer

CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)
DESCRIPTION = RunDescription(CONFIG.to_dict(), {}, TAPETokenizer().tokens, TAPETokenizer().fingerprint)


class Held:
    """Stands in for the writing: waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.began: list[int] = []
        self._write = background.write_checkpoint
        monkeypatch.setattr(background, "write_checkpoint", self)

    def __call__(self, root: Path, tensors: dict[str, Tensor], state: RunState, *others: object) -> Path:
        self.began.append(state.iteration)
        assert self.go.wait(30)
        return self._write(root, tensors, state, *others)  # type: ignore[arg-type]


@pytest.fixture
def model() -> ProteinBertForMaskedLM:
    return build_model(CONFIG, InitConfig(seed=1), ParallelContext(ParallelDims(), 0, torch.device("cpu"), None))


def make_writer(folder: Path, model: ProteinBertForMaskedLM, **config: object) -> AsyncCheckpointWriter:
    options = CheckpointConfig(save=str(folder), **config)  # type: ignore[arg-type]
    return AsyncCheckpointWriter(options, model, dict, DESCRIPTION, ParallelDims(), ControlGroup())


def test_it_holds_the_weights_of_the_moment_it_was_begun(
    tmp_path: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, writer = Held(monkeypatch), make_writer(tmp_path, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    writer.save(RunState(10))
    with torch.no_grad():  # training goes on
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert writer.busy
    assert writer.written() == []
    assert find_checkpoint(tmp_path) is None
    held.go.set()
    writer.wait()
    assert writer.written() == [tmp_path / "iter_0000010"]
    stored = load_full_checkpoint(tmp_path).model
    assert all(torch.equal(stored[name], value) for name, value in before.items())


def test_one_is_in_flight_at_most(
    tmp_path: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, writer = Held(monkeypatch), make_writer(tmp_path, model)
    writer.save(RunState(10))
    second = threading.Thread(target=writer.save, args=(RunState(20),))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    assert held.began == [10]
    held.go.set()
    second.join(30)
    writer.wait()
    assert held.began == [10, 20]
    assert [path.name for path in writer.written()] == ["iter_0000010", "iter_0000020"]


@pytest.mark.parametrize("async_save", [True, False])
def test_an_error_of_the_writer_reaches_the_run(
    tmp_path: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch, async_save: bool
) -> None:
    def fails(*arguments: object) -> Path:
        raise CheckpointError("no room")

    monkeypatch.setattr(background, "write_checkpoint", fails)
    writer = make_writer(tmp_path, model, async_save=async_save)
    if async_save:
        writer.save(RunState(10))
        assert writer._thread is not None
        writer._thread.join()
        assert writer.failed
        with pytest.raises(CheckpointError, match="no room"):
            writer.wait()
    else:
        with pytest.raises(CheckpointError, match="no room"):
            writer.save(RunState(10))
    assert not writer.failed
    assert writer.written() == []


def test_without_a_directory_nothing_is_written(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    writer = AsyncCheckpointWriter(CheckpointConfig(), model, dict, DESCRIPTION, ParallelDims(), ControlGroup())
    writer.save(RunState(10))
    writer.wait()
    assert writer.written() == []


def test_copies_are_apart_and_use_their_memory_again() -> None:
    copies, values = StagingBuffers(), {"a": torch.arange(6.0).view(2, 3)[:, 1:], "b": torch.tensor(1.0)}
    first = copies.copy(values)
    values["a"].zero_()
    assert first["a"].tolist() == [[1.0, 2.0], [4.0, 5.0]]
    again = copies.copy(values)
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert copies.copy({"a": torch.zeros(3, dtype=torch.bfloat16)})["a"].dtype == torch.bfloat16


def test_only_the_newest_stay(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    writer = make_writer(tmp_path, model, keep_last=2)
    for iteration in (10, 20, 30):
        writer.save(replace(RunState(), iteration=iteration))
    writer.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iter_0000020",
        "iter_0000030",
        "latest_checkpointed_iteration.txt",
    ]


def test_a_run_begun_anew_keeps_its_own(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    """The directory holds iteration 10 of an earlier run; this one saves every fourth."""
    make_writer(tmp_path, model).save(RunState(10))
    options = CheckpointConfig(save=str(tmp_path), keep_last=2, async_save=False)
    writer = AsyncCheckpointWriter(options, model, dict, DESCRIPTION, ParallelDims(), ControlGroup(), start=0)
    for iteration in (4, 8, 12):
        writer.save(RunState(iteration))
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == ["iter_0000008", "iter_0000012"]

"""Asynchronous checkpoints: state at the time of the call, one at a time, errors are raised in the run."""

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
    async_writer,
    find_checkpoint,
    load_full_checkpoint,
)
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
    """Replaces write_checkpoint: waits for an event before it writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.began: list[int] = []
        self._write = async_writer.write_checkpoint
        monkeypatch.setattr(async_writer, "write_checkpoint", self)

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


def test_a_checkpoint_holds_the_weights_at_the_time_of_the_call(
    tmp_path: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, writer = Held(monkeypatch), make_writer(tmp_path, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    writer.save(RunState(10))
    with torch.no_grad():  # training continues
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


def test_at_most_one_checkpoint_is_being_written(
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
def test_an_error_of_the_writer_is_raised_in_the_run(
    tmp_path: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch, async_save: bool
) -> None:
    def fails(*arguments: object) -> Path:
        raise CheckpointError("disk full")

    monkeypatch.setattr(async_writer, "write_checkpoint", fails)
    writer = make_writer(tmp_path, model, async_save=async_save)
    if async_save:
        writer.save(RunState(10))
        assert writer._thread is not None
        writer._thread.join()
        assert writer.failed
        with pytest.raises(CheckpointError, match="disk full"):
            writer.wait()
    else:
        with pytest.raises(CheckpointError, match="disk full"):
            writer.save(RunState(10))
    assert not writer.failed
    assert writer.written() == []


def test_without_a_directory_nothing_is_written(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    writer = AsyncCheckpointWriter(CheckpointConfig(), model, dict, DESCRIPTION, ParallelDims(), ControlGroup())
    writer.save(RunState(10))
    writer.wait()
    assert writer.written() == []


def test_staging_buffers_are_reused() -> None:
    copies, values = StagingBuffers(), {"a": torch.arange(6.0).view(2, 3)[:, 1:], "b": torch.tensor(1.0)}
    first = copies.copy(values)
    values["a"].zero_()
    assert first["a"].tolist() == [[1.0, 2.0], [4.0, 5.0]]
    again = copies.copy(values)
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert copies.copy({"a": torch.zeros(3, dtype=torch.bfloat16)})["a"].dtype == torch.bfloat16


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    writer = make_writer(tmp_path, model, keep_last=2)
    for iteration in (10, 20, 30):
        writer.save(replace(RunState(), iteration=iteration))
    writer.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iter_0000020",
        "iter_0000030",
        "latest_checkpointed_iteration.txt",
    ]


def test_a_restarted_run_keeps_its_own_checkpoints(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    """The directory has iteration 10 of an earlier run; this run saves every fourth iteration."""
    make_writer(tmp_path, model, async_save=False).save(RunState(10))
    options = CheckpointConfig(save=str(tmp_path), keep_last=2, async_save=False)
    writer = AsyncCheckpointWriter(options, model, dict, DESCRIPTION, ParallelDims(), ControlGroup(), start=0)
    for iteration in (4, 8, 12):
        writer.save(RunState(iteration))
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == ["iter_0000008", "iter_0000012"]

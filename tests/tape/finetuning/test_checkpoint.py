"""The files of a saved epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tape import ProteinBertForValuePrediction
from tape.errors import CheckpointError
from tape.finetuning.checkpoint import CHECKPOINT_NAME, TrainerState, load_training_state, save_epoch
from tape.finetuning.config import AdamWConfig
from tape.finetuning.optimizer import make_optimizer
from tape.registry import registry
from tape.tokenizers import TAPETokenizer


@pytest.fixture
def saved(tmp_path: Path, small_config: Path) -> Path:
    """The directory of a saved epoch."""
    model = registry.get_task_model("transformer", "stability", small_config)
    optimizer, schedule = make_optimizer(model, AdamWConfig(), 10)
    state = {"optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
    progress = TrainerState(epoch=3, global_step=12, best_loss=0.5, best_epoch=2)
    save_epoch(tmp_path / "3", model, state, progress, tokenizer=TAPETokenizer(), provenance={"kind": "test"})
    return tmp_path / "3"


def test_the_files_of_tape_are_written_and_can_be_loaded(saved: Path) -> None:
    assert {"config.json", "pytorch_model.bin", "checkpoint.bin"} <= {path.name for path in saved.iterdir()}
    assert isinstance(ProteinBertForValuePrediction.from_pretrained(saved), ProteinBertForValuePrediction)
    plain = torch.load(saved / CHECKPOINT_NAME, weights_only=True)
    assert {"optimizer", "scheduler", "epoch"} <= set(plain)
    assert plain["epoch"] == 3
    state, progress = load_training_state(saved)
    assert set(state) == {"optimizer", "scheduler"}
    assert progress == TrainerState(epoch=3, global_step=12, best_loss=0.5, best_epoch=2)


def test_damaged_training_states_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint\.bin there, so training can't be resumed"):
        load_training_state(tmp_path)
    content = (saved / CHECKPOINT_NAME).read_bytes()
    (saved / CHECKPOINT_NAME).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint\.bin: truncated or damaged"):
        load_training_state(saved)
    torch.save({"optimizer": {}, "scheduler": {}, "epoch": 3}, saved / CHECKPOINT_NAME)
    with pytest.raises(CheckpointError, match="lacks the progress of the run"):
        load_training_state(saved)

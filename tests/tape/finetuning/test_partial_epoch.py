"""A run that a stop signal interrupts inside an epoch resumes exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tape.errors import CheckpointError, ConfigError
from tests.support.small_finetuner import Recorded, Rows, SignalAtLook, Tagger, make_trainer


@pytest.mark.parametrize("look", range(1, 16))
def test_a_run_that_a_signal_interrupted_resumes_exactly(look: int) -> None:
    """The beginning, three steps and the end of the epoch are looks 1 to 5, 6 to 10 and 11 to 15."""
    options: dict[str, Any] = {"num_train_epochs": 3, "num_log_iter": 2, "valid": Rows(6, seed=1), "patience": 9}
    straight, first, second = Recorded(), Recorded(), Recorded()
    uninterrupted = make_trainer(Tagger(dropout=0.3), recorder=straight, **options)
    uninterrupted.train()
    trainer = make_trainer(Tagger(dropout=0.3), recorder=first, signals=SignalAtLook(look), save_freq=9, **options)
    trainer.train()
    assert trainer.interrupted
    assert trainer.state.global_step == 3 * ((look - 1) // 5) + min((look - 1) % 5, 3)
    if look == 15:  # the last epoch is saved in any case
        assert 2 in first.saved
        return
    weights, training_state, progress = first.interrupted
    model = Tagger(dropout=0.3)
    model.load_state_dict(weights)
    resumed = make_trainer(model, recorder=second, **options)
    resumed.resume(training_state, progress)
    torch.manual_seed(99)
    resumed.train()
    assert not resumed.interrupted
    for key, value in uninterrupted.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])
    records = [
        [{**record, "seconds": 0} for record in epochs] for epochs in (straight.epochs, first.epochs + second.epochs)
    ]
    assert records[0] == records[1]
    assert straight.logged == first.logged + second.logged


def test_an_interrupted_epoch_needs_the_same_order_of_proteins() -> None:
    recorder = Recorded()
    make_trainer(recorder=recorder, signals=SignalAtLook(3)).train()
    _, training_state, progress = recorder.interrupted
    with pytest.raises(ConfigError, match="interrupted after 2 steps of an epoch, in which --batch_size was 5, not 4"):
        make_trainer(batch_size=4).resume(copy.deepcopy(training_state), copy.deepcopy(progress))
    with pytest.raises(ConfigError, match="the number of training proteins was 12, not 10"):
        make_trainer(rows=Rows(10)).resume(copy.deepcopy(training_state), copy.deepcopy(progress))
    make_trainer(num_train_epochs=7).resume(training_state, progress)


@pytest.mark.parametrize(
    "value", [None, 3, {}, {"steps": -1, "seconds": 0.0, "order": {}, "ranks": []}, {"steps": 1, "other": 2}]
)
def test_a_damaged_position_is_refused(value: Any) -> None:
    recorder = Recorded()
    make_trainer(recorder=recorder, signals=SignalAtLook(3)).train()
    _, training_state, progress = recorder.interrupted
    with pytest.raises(CheckpointError, match="damaged: 'partial_epoch' must be the position in an epoch"):
        make_trainer().resume({**training_state, "partial_epoch": value}, progress)

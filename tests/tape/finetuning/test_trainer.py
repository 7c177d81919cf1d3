"""The finetuner: steps, reported metrics, when epochs are saved, early stopping, and resuming."""

from __future__ import annotations

import copy
import logging
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tape.errors import CheckpointError, ConfigError, DataError, ProteinLMError
from tape.finetuning.checkpoint import TrainerState
from tape.finetuning.config import AdamWConfig, LoopConfig
from tape.finetuning.running_means import RunningMeans
from tape.finetuning.seeding import epoch_seed
from tape.finetuning.trainer import Finetuner
from tape.runtime.distributed import DistributedContext
from tape.tasks import TaskType
from tests.support.small_finetuner import Recorded, Rows, Tagger, make_trainer


def final_weights(**options: Any) -> Tensor:
    trainer = make_trainer(**options)
    trainer.train()
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def test_gradients_are_cleared_after_each_step() -> None:
    # bug 1 in docs/compatibility.md: with lr 0 the norm of the k-th identical step was k times the first
    recorder = Recorded()
    rate_0 = AdamWConfig(learning_rate=0.0, warmup_steps=0)
    trainer = make_trainer(recorder=recorder, optimizer=rate_0, batch_size=12, num_train_epochs=4, num_log_iter=1)
    trainer.train()
    norms = [values["gradient_norm"] for group, _, values in recorder.logged if group == "train"]
    assert norms == pytest.approx([norms[0]] * 4, rel=1e-5)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


@pytest.mark.parametrize("accumulation", [2, 3, 5])
def test_gradient_accumulation_gives_the_same_steps(accumulation: int) -> None:
    # bugs 1 and 10: micro-batches with unequal numbers of labels, and a step for the last, smaller batch of 2 proteins
    whole = final_weights()
    divided = final_weights(gradient_accumulation_steps=accumulation)
    torch.testing.assert_close(divided, whole, rtol=1e-4, atol=1e-5)


def test_the_schedule_has_the_actual_number_of_steps() -> None:
    # bug 10 in docs/compatibility.md: int(12 / 5 * 2) = 4 steps were planned instead of 6
    trainer = make_trainer(gradient_accumulation_steps=2)
    assert (trainer.steps_per_epoch, trainer.total_steps, trainer.schedule.t_total) == (3, 6, 6)
    assert trainer.train().global_step == 6
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0


def test_a_step_without_labels_changes_nothing() -> None:
    trainer = make_trainer(rows=Rows(3, unlabeled=[0, 1, 2]), num_train_epochs=1)
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(DataError, match="no record has a valid label"):  # instead of epochs without an update
        trainer.train()
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    # the nan loss of an unlabeled protein has no weight in a step with labels
    weights = final_weights(rows=Rows(6, unlabeled=[2]), batch_size=6, gradient_accumulation_steps=6)
    assert torch.isfinite(weights).all()


def test_reported_loss_and_accuracy_are_means_over_labels() -> None:
    # bug 18 in docs/compatibility.md: an unweighted mean of batch means depends on the batch size
    recorded = [Recorded() for _ in range(3)]
    rate_0 = AdamWConfig(learning_rate=0.0)
    for recorder, size in zip(recorded, (1, 5, 12), strict=True):
        make_trainer(recorder=recorder, valid=Rows(7, 1), optimizer=rate_0, batch_size=size, num_train_epochs=1).train()
    reference = recorded[0].epochs[0]
    # equal residues have equal scores except for the last digit, which depends on the batch and on the processor
    ranked = ("auroc", "auprc")
    for recorder in recorded[1:]:
        for group in ("train", "valid"):
            for name, value in reference[group].items():
                if name in ranked:
                    continue
                assert recorder.epochs[0][group][name] == pytest.approx(value, rel=1e-5), (group, name)


def test_perplexity_is_exp_of_the_mean_loss() -> None:
    # bug 18 in docs/compatibility.md: mean(exp(loss)) of losses 1 and 3 would be 11.4
    means = RunningMeans(TaskType.MASKED_LM)
    means.add(1.0, torch.tensor(1), 2)
    means.add(3.0, torch.tensor(0), 2)
    values = means.means(make_trainer().context)
    assert values == pytest.approx({"loss": 2.0, "accuracy": 0.25, "perplexity": math.exp(2.0)})
    assert means.means(make_trainer().context) == {}


def test_training_learns_and_logs() -> None:
    recorder = Recorded()
    trainer = make_trainer(recorder=recorder, valid=Rows(6, 1), num_train_epochs=8, num_log_iter=2)
    trainer.train()
    assert recorder.epochs[-1]["valid"]["accuracy"] > recorder.epochs[0]["valid"]["accuracy"]
    assert [record["epoch"] for record in recorder.epochs] == list(range(8))
    assert [step for group, step, _ in recorder.logged if group == "train"] == list(range(2, 25, 2))
    assert [step for group, step, _ in recorder.logged if group == "val"] == list(range(3, 25, 3))
    assert set(recorder.epochs[0]) == {"epoch", "step", "learning_rate", "seconds", "train", "valid"}
    assert trainer.data.train.epochs == [(42, epoch) for epoch in range(8)]  # bug 12: set_epoch is called


def test_log_lines_have_throughput_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    make_trainer(recorder=Recorded(), num_train_epochs=1, num_log_iter=1).train()
    lines = [record.getMessage() for record in caplog.records if "gradient norm" in record.getMessage()]
    assert lines
    assert [line for line in lines if not re.search(r"; [\d,.]+ proteins/s, \d\d:\d\d left$", line)] == []


def test_every_epoch_is_validated_once() -> None:
    # bug 21 in docs/compatibility.md: validation ran once more after training
    class Counted(Rows):
        reads = 0

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            self.reads += 1
            return super().__getitem__(index)

    valid = Counted(6, 1)
    make_trainer(valid=valid, num_train_epochs=3).train()
    assert valid.reads == 18


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"save_freq": 1}, [0, 1, 2, 3, 4]),
        ({"save_freq": 2}, [1, 3, 4]),
        ({"save_freq": 10}, [4]),
    ],
)
def test_epochs_are_saved_at_the_given_frequency(options: dict[str, Any], saved: list[int]) -> None:
    recorder = Recorded()
    make_trainer(recorder=recorder, num_train_epochs=5, **options).train()
    assert list(recorder.saved) == saved


def set_validation_losses(trainer: Finetuner, losses: list[float]) -> None:
    """Make validation return these losses in turn."""
    remaining = iter(losses)
    trainer.validate = lambda: {"loss": next(remaining)}  # type: ignore[method-assign]


def test_saving_on_improvement_and_the_best_saved_epoch() -> None:
    recorder = Recorded()
    trainer = make_trainer(recorder=recorder, valid=Rows(3), num_train_epochs=5, save_freq="improvement")
    set_validation_losses(trainer, [3.0, 4.0, 2.0, math.nan, 1.5])
    progress = trainer.train()
    assert list(recorder.saved) == [0, 2, 4]
    assert (progress.best_loss, progress.best_epoch, progress.best_saved_epoch) == (1.5, 4, 4)


def test_the_best_saved_epoch_may_differ_from_the_best_epoch() -> None:
    trainer = make_trainer(valid=Rows(3), num_train_epochs=4, save_freq=2)
    set_validation_losses(trainer, [1.0, 3.0, 4.0, 2.0])
    progress = trainer.train()
    assert (progress.best_epoch, progress.best_saved_epoch, progress.best_saved_loss) == (0, 3, 2.0)


def test_patience_counts_epochs_without_improvement() -> None:
    trainer = make_trainer(valid=Rows(3), num_train_epochs=10, patience=2)
    set_validation_losses(trainer, [3.0, 2.0, 2.5, 2.0, 1.0])
    assert trainer.train().epoch == 3
    trainer = make_trainer(valid=Rows(3), num_train_epochs=10, patience=2, eval_freq=2)
    set_validation_losses(trainer, [3.0, 2.0, 2.5, 1.0])
    assert trainer.train().epoch == 5


@pytest.mark.parametrize(
    ("save_freq", "losses", "saved", "best_saved"),
    [
        (10, [3.0, 2.0, 2.5, 2.0], [3], (3, 2.0)),  # epoch 1 had the lowest loss but was not saved
        (2, [3.0, 2.0, 2.5, 2.5], [1, 3], (1, 2.0)),
        (10, [math.nan, math.nan], [1], (-1, None)),
        ("improvement", [3.0, 2.0, 2.5, 2.0], [0, 1], (1, 2.0)),
        ("improvement", [math.nan, math.nan], [1], (-1, None)),
    ],
)
def test_early_stopping_saves_the_last_epoch(
    save_freq: int | str, losses: list[float], saved: list[int], best_saved: tuple[int, float | None]
) -> None:
    recorder = Recorded()
    trainer = make_trainer(recorder=recorder, valid=Rows(3), num_train_epochs=10, patience=2, save_freq=save_freq)
    set_validation_losses(trainer, losses)
    progress = trainer.train()
    assert list(recorder.saved) == saved
    assert (progress.best_saved_epoch, progress.best_saved_loss) == best_saved


def test_resuming_is_exact_with_dropout() -> None:
    # bug 9: optimizer, schedule, order, dropout and best loss are the same as in an uninterrupted run
    def trainer(recorder: Recorded) -> Finetuner:
        return make_trainer(Tagger(0.3), recorder=recorder, valid=Rows(6, 1), num_train_epochs=4)

    whole, rest = Recorded(), Recorded()
    trainer(whole).train()
    weights, state, progress = copy.deepcopy(whole.saved[1])
    resumed = trainer(rest)
    resumed.model.load_state_dict(weights)
    resumed.resume(state, progress)
    torch.manual_seed(999)  # a new process has another random state
    resumed.train()
    for name, value in whole.saved[3][0].items():
        assert torch.equal(rest.saved[3][0][name], value), name
    assert whole.saved[3][2] == rest.saved[3][2]
    without_time = [{k: v for k, v in record.items() if k != "seconds"} for record in whole.epochs[2:]]
    assert [{k: v for k, v in record.items() if k != "seconds"} for record in rest.epochs] == without_time


def test_a_finished_run_can_be_extended() -> None:
    # bug 9 in docs/compatibility.md: the saved t_total overrode the new one, so the rate stayed 0
    recorder = Recorded()
    make_trainer(recorder=recorder, num_train_epochs=2).train()
    weights, state, progress = recorder.saved[1]
    longer = make_trainer(num_train_epochs=4)
    longer.model.load_state_dict(weights)
    longer.resume(state, progress)
    assert longer.schedule.t_total == 12
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 6 / 12)
    before = copy.deepcopy(weights)
    assert longer.train().global_step == 12
    assert not torch.equal(before["out.weight"], longer.model.state_dict()["out.weight"])


def test_patience_survives_resuming() -> None:
    recorder = Recorded()
    trainer = make_trainer(recorder=recorder, valid=Rows(3), num_train_epochs=2, patience=3)
    set_validation_losses(trainer, [1.0, 2.0])
    trainer.train()
    _, state, progress = recorder.saved[1]
    again = make_trainer(valid=Rows(3), num_train_epochs=9, patience=3)
    again.resume(state, progress)
    set_validation_losses(again, [2.0, 2.0, 2.0])
    assert again.train().epoch == 3


def test_resuming_uses_the_new_learning_rate_and_weight_decay() -> None:
    recorder = Recorded()
    make_trainer(recorder=recorder).train()
    _, state, progress = recorder.saved[0]
    other = make_trainer(optimizer=AdamWConfig(learning_rate=0.2, weight_decay=0.5, warmup_steps=0))
    other.resume(state, progress)
    assert other.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * 3 / 6)
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.5, 0.0]


def test_the_training_state_of_another_model_is_refused() -> None:
    trainer = make_trainer()
    state = {"optimizer": {"state": {}, "param_groups": []}}
    with pytest.raises(CheckpointError, match="does not fit this model"):
        trainer.resume(state, TrainerState())


def test_resuming_after_the_last_epoch_does_nothing() -> None:
    recorder = Recorded()
    make_trainer(recorder=recorder).train()
    _, state, progress = recorder.saved[1]
    done = make_trainer()
    done.resume(state, copy.deepcopy(progress))
    assert done.train() == progress


def test_every_rank_and_epoch_has_its_own_random_seed() -> None:
    # bug 12 in docs/compatibility.md: all ranks dropped the same units
    seeds = {epoch_seed(seed, epoch, rank) for seed in (0, 1) for epoch in range(4) for rank in range(4)}
    assert len(seeds) == 32
    assert epoch_seed(42, 3, 1) == epoch_seed(42, 3, 1)


def test_ranks_draw_different_dropout_masks() -> None:
    # bug 12 in docs/compatibility.md
    class Noted(Tagger):
        drawn: Tensor | None = None

        def forward(self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None) -> Any:
            if self.drawn is None:
                self.drawn = self.dropout(torch.ones(64))
            return super().forward(input_ids, input_mask, targets)

    def drawn(rank: int) -> Tensor:
        trainer = make_trainer(Noted(0.5), num_train_epochs=1)
        plan = trainer._plan(0)
        trainer._plan = lambda epoch: plan  # type: ignore[method-assign]  # the same proteins on both ranks
        trainer.context = DistributedContext(rank=rank)
        trainer.train()
        noted: Any = trainer.model
        return noted.drawn

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_a_non_finite_loss_ends_the_run() -> None:
    model = Tagger()
    nn.init.constant_(model.out.bias, math.inf)
    with pytest.raises(ProteinLMError, match="training loss is nan at step 1; try a lower --learning_rate"):
        make_trainer(model).train()


def test_a_model_with_another_calling_convention_is_refused() -> None:
    class Bare(Tagger):
        def forward(self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None) -> Any:
            return torch.zeros(())

    with pytest.raises(ConfigError, match=r"Bare must return \(\(loss, metrics\), prediction"):
        make_trainer(Bare()).train()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes(precision: str) -> None:
    recorder = Recorded()
    trainer = make_trainer(recorder=recorder, precision=precision, num_train_epochs=6)
    trainer.train()
    assert recorder.epochs[-1]["train"]["loss"] < recorder.epochs[0]["train"]["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert ("scaler" in recorder.saved[0][1]) == (precision == "fp16")
    again = make_trainer(precision=precision, num_train_epochs=6)
    again.resume(*recorder.saved[0][1:])
    assert again.scaler.get_scale() == recorder.saved[0][1].get("scaler", {"scale": 1.0})["scale"]


def test_running_out_of_gpu_memory_is_explained() -> None:
    # bug 39 in docs/compatibility.md: the original's handler raised TypeError
    class Hungry(Tagger):
        def forward(self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ConfigError, match=r"out of GPU memory with 5 proteins .* --batch_size"):
        make_trainer(Hungry()).train()


class HungryBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")


@pytest.mark.parametrize("batch_size", [1, 5])
def test_running_out_of_memory_in_the_backward_pass_is_explained(batch_size: int) -> None:
    class Hungry(Tagger):
        def forward(self, *arguments: Any, **inputs: Any) -> Any:
            (loss, metrics), prediction = super().forward(*arguments, **inputs)
            return (HungryBackward.apply(loss), metrics), prediction

    with pytest.raises(ConfigError, match=r"out of memory with .* in the backward pass; give .*--bf16") as raised:
        make_trainer(Hungry(), batch_size=batch_size).train()
    assert ("--batch_size" in str(raised.value)) == (batch_size > 1)
    assert ("--gradient_accumulation_steps" in str(raised.value)) == (batch_size > 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 0}, "--gradient_accumulation_steps must be at least 1"),
        ({"batch_size": 0}, "--batch_size"),
        ({"save_freq": "sometimes"}, "'improvement', not 'sometimes'"),
        ({"save_freq": 0}, "--save_freq"),
        (
            {"save_freq": "improvement", "eval_freq": 0},
            "validation, --save_freq improvement can have no effect",
        ),
        ({"patience": 3, "eval_freq": -1}, "without validation, --patience can have no effect"),
        ({"metric_for_best_model": "accuracy", "eval_freq": 0}, "--metric_for_best_model accuracy can have no effect"),
        ({"patience": 1, "eval_freq": 3, "num_train_epochs": 2}, "at most the number of epochs, 2"),
        ({"seed": 2**63}, "--seed must not be negative or above 9223372036854775807"),
        ({"batch_size": 2, "gradient_accumulation_steps": 3}, "can't be divided"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoopConfig(**{"batch_size": 4, **options})

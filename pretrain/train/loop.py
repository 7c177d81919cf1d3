"""The training loop: steps, and what happens between them. All parts are made beforehand and handed in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from pretrain.checkpointing import AsyncCheckpointWriter, RunState
from pretrain.data.samples import MicroBatch, MicroBatches
from pretrain.optim.lr_schedule import SkippedCounts
from pretrain.trace import Allowance
from tape.errors import ProteinLMError

from .metrics_logger import MetricsLogger, StepRecord
from .nonfinite import NonFiniteSteps
from .stop_conditions import StopConditions
from .trainer import StepResult, Trainer

_FIRST_STEPS = 2  # of a process: they compile, allocate and fill caches, and not at the same speed everywhere


@dataclass(frozen=True)
class TrainingConfig:
    """Length of a run and what happens on the way.

    Attributes:
        train_iters: steps.
        eval_interval: steps between evaluations.
        exit_interval: leave, with a checkpoint, when the iteration is a multiple of it.
        exit_minutes: leave, with a checkpoint, after the step during which the run is so many minutes old.
        max_skipped_steps: in a row, after which the run ends; 0: never.
        save_interval: steps between checkpoints; None: only at the end.
        seed: of dropout.
        seq_length: tokens of a row, to tell how full rows are.
    """

    train_iters: int
    eval_interval: int = 1000
    exit_interval: int | None = None
    exit_minutes: float | None = None
    max_skipped_steps: int = 20
    save_interval: int | None = None
    seed: int = 1234
    seq_length: int = 2176

    def leaves_at(self, iteration: int) -> str | None:
        """Why to leave after this iteration, None to go on."""
        if self.exit_interval is not None and iteration % self.exit_interval == 0:
            return f"--exit-interval {self.exit_interval}"
        return None

    def saves_at(self, iteration: int) -> bool:
        return self.save_interval is not None and iteration % self.save_interval == 0


@dataclass(frozen=True)
class Evaluation:
    """Rows to evaluate on; iterating gives the same micro-batches every time."""

    split: str
    micro_batches: MicroBatches


@dataclass(frozen=True)
class Evaluations:
    """``valid`` is evaluated at every interval and after the last iteration, ``test`` only then; None for nothing."""

    valid: Evaluation | None = None
    test: Evaluation | None = None

    def due(self, iteration: int, config: TrainingConfig) -> list[Evaluation]:
        """Those that belong to an iteration."""
        last = iteration == config.train_iters
        wanted = (
            self.valid if last or iteration % config.eval_interval == 0 else None,
            self.test if last else None,
        )
        return [evaluation for evaluation in wanted if evaluation is not None]


class Loop:
    """Trains; all ranks do the same things in the same order.

    Args:
        trainer: computes steps and evaluations.
        evaluations: what to evaluate on.
        config: see :class:`TrainingConfig`.
        reporter: takes the records.
        writer: of checkpoints, begun at save intervals and when the loop ends.
        stopping: is asked after each step.
        skipped: counts steps without an update, and ends the run.
    """

    def __init__(
        self,
        trainer: Trainer,
        evaluations: Evaluations,
        config: TrainingConfig,
        reporter: MetricsLogger,
        writer: AsyncCheckpointWriter,
        stopping: StopConditions,
        skipped: NonFiniteSteps,
    ) -> None:
        self._trainer = trainer
        self._evaluations = evaluations
        self._config = config
        self._reporter = reporter
        self._writer = writer
        self._stopping = stopping
        self._skipped = skipped
        self._lenient_until = 0

    def run(self, state: RunState, micro_batches: Iterator[MicroBatch]) -> RunState:
        """Train from ``state`` to the last iteration, or until there is a reason to leave; the last checkpoint is
        complete on return.

        Args:
            state: where the run stands.
            micro_batches: this rank's, from the state's consumed samples on.

        Returns:
            Where the run stands afterwards.
        """
        try:
            return self._run(state, micro_batches)
        except ProteinLMError:
            self._trainer.operations.linger()
            with suppress(ProteinLMError):  # one reason is enough
                self._writer.wait()  # what is being written still gets whole
            raise

    def _run(self, state: RunState, micro_batches: Iterator[MicroBatch]) -> RunState:
        config, saved = self._config, state
        self._lenient_until = state.iteration + _FIRST_STEPS
        self._trainer.model.train()
        reason = self._stopping.reason(at_start=True)
        state = self._evaluate(state, reason)
        while state.iteration < config.train_iters and reason is None:
            state = self._step(state, micro_batches)
            self._trainer.operations.at("whether to go on")
            reason = self._stopping.reason()
            state = self._evaluate(state, reason)
            if config.saves_at(state.iteration):
                self._save(state)
                saved = state
            self._announce()
            reason = reason or config.leaves_at(state.iteration)
        if reason is not None and (state.iteration < config.train_iters or state.evaluation_due):
            self._reporter.note(f"{reason}: leaving after iteration {state.iteration}")
        if saved != state:  # also when nothing but the evaluation of the last iteration was still to be done
            self._save(state)
        self._writer.wait()
        self._announce()
        return state

    def _step(self, state: RunState, micro_batches: Iterator[MicroBatch]) -> RunState:
        trainer, began = self._trainer, time.perf_counter()
        number = trainer.batch.micro_batches(trainer.processes.dims.data, state.consumed_samples)
        trainer.operations.iteration(state.iteration + 1, lenient=state.iteration < self._lenient_until)
        trainer.operations.at("waiting for samples")
        left_out = SkippedCounts(state.skipped_steps, state.skipped_samples)
        result = trainer.step(state.iteration + 1, [next(micro_batches) for _ in range(number)], left_out)
        rate = trainer.optimizer.schedule.rate(state.iteration + 1, left_out)
        room = trainer.batch.batch_size(state.consumed_samples) * self._config.seq_length
        before, state = state, advance(state, result, trainer)
        self._at_records()
        self._reporter.train(_record(state, result, rate, room, time.perf_counter() - began))
        if warning := self._skipped.note(before, state, result):
            self._reporter.note(warning)
        return replace(state, evaluation_due=bool(self._evaluations.due(state.iteration, self._config)))

    def _evaluate(self, state: RunState, reason: str | None) -> RunState:
        """Do the evaluations that are due; a run that is asked to leave does them when it continues."""
        if not state.evaluation_due or reason is not None:
            return state
        for evaluation in self._evaluations.due(state.iteration, self._config):
            batches, split = evaluation.micro_batches, evaluation.split
            record = self._trainer.evaluate(batches, state.iteration, split)
            self._at_records()
            self._reporter.evaluation(record)
        return replace(state, evaluation_due=False)

    def _save(self, state: RunState) -> None:
        # It waits for the one before, which may take as long as the disk takes.
        self._trainer.operations.at("saving a checkpoint", Allowance.ANY)
        self._writer.save(state)

    def _at_records(self) -> None:
        # The main process alone writes files and prints, and either may be held up.
        self._trainer.operations.at("writing records", Allowance.ANY)

    def _announce(self) -> None:
        self._at_records()
        for path in self._writer.written():
            self._reporter.note(f"saved {path}")


def advance(state: RunState, result: StepResult, trainer: Trainer) -> RunState:
    """The state after one more step."""
    rows = trainer.batch.batch_size(state.consumed_samples)
    return replace(
        state,
        iteration=state.iteration + 1,
        consumed_samples=state.consumed_samples + rows,
        consumed_tokens=state.consumed_tokens + result.tokens,
        skipped_steps=state.skipped_steps + result.skipped,
        skipped_samples=state.skipped_samples + rows * result.skipped,
        skipped_in_a_row=_in_a_row(state.skipped_in_a_row, result),
        loss_scale=trainer.loss_scale.state(),
    )


def _in_a_row(before: int, result: StepResult) -> int:
    if not result.skipped:
        return 0
    return before if result.searching else before + 1


def _record(state: RunState, result: StepResult, rate: float, room: int, seconds: float) -> StepRecord:
    return StepRecord(
        iteration=state.iteration,
        lm_loss=result.loss,
        learning_rate=rate,
        grad_norm=result.grad_norm,
        tokens=result.tokens,
        predictions=result.predictions,
        tokens_per_second=result.tokens / seconds,
        positions_used=result.tokens / room,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
        loss_scale=result.loss_scale,
        skipped=result.skipped,
        skipped_steps=state.skipped_steps,
        seconds=seconds,
    )

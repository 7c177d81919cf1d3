"""The trainer: ``fit`` runs the training loop, ``train_step`` one optimizer step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain import trace
from pretrain.checkpointing import AsyncCheckpointWriter, RunDescription, RunState, load_checkpoint
from pretrain.data.samples import GlobalBatch, MicroBatch
from pretrain.optim.lr_schedule import NOTHING_SKIPPED, SkippedCounts
from pretrain.optim.optimizer import Optimizer
from pretrain.optim.precision import LossScale
from pretrain.parallel import ForwardBackward, ParallelContext, sum_of
from pretrain.trace import SpanTimeout
from tape.errors import ProteinLMError

from .evaluation import Evaluations, Evaluator
from .masked_lm import MaskedLMObjective
from .metrics_logger import MetricsLogger
from .nonfinite import NonFiniteSteps
from .profiling import IterationProfiler
from .step import StepResult, next_state, nonfinite_micro_batches, step_record
from .stop_conditions import StopConditions

_STREAM_DROPOUT = 4  # random stream; pretrain.data uses 1 to 3
_WARMUP_STEPS = 2  # steps of a process that compile, allocate and fill caches, at different speeds on different ranks


@dataclass(frozen=True)
class TrainingConfig:
    """Length of a run and its intervals.

    Attributes:
        train_iters: number of iterations.
        exit_interval: save a checkpoint and exit after iterations that are a multiple of this; None never does.
        exit_minutes: save a checkpoint and exit after this many minutes; None never does.
        max_skipped_steps: consecutive non-finite steps after which the run stops; 0 never stops.
        save_interval: iterations between checkpoints; None saves at the end only.
        seed: seed of dropout.
        seq_length: tokens per row.
    """

    train_iters: int
    exit_interval: int | None = None
    exit_minutes: float | None = None
    max_skipped_steps: int = 20
    save_interval: int | None = None
    seed: int = 1234
    seq_length: int = 2176

    def exit_reason(self, iteration: int) -> str | None:
        """The reason to exit after an iteration; None to continue."""
        if self.exit_interval is not None and iteration % self.exit_interval == 0:
            return f"--exit-interval {self.exit_interval}"
        return None

    def saves_at(self, iteration: int) -> bool:
        return self.save_interval is not None and iteration % self.save_interval == 0


@dataclass(frozen=True)
class RunServices:
    """What a run does besides computing.

    Attributes:
        evaluations: the splits to evaluate.
        logger: receives the records.
        writer: writes checkpoints.
        stop: decides after each step whether to stop.
        nonfinite: ends the run after too many non-finite steps.
        profiler: profiles some iterations.
    """

    evaluations: Evaluations
    logger: MetricsLogger
    writer: AsyncCheckpointWriter
    stop: StopConditions
    nonfinite: NonFiniteSteps
    profiler: IterationProfiler


class Trainer:
    """Trains a model on this rank's share of the global batches. All ranks call the same methods in the same order.

    Args:
        config: length of the run and its intervals.
        objective: this rank's part of the model, on its device.
        forward_backward: runs micro-batches through it.
        optimizer: the optimizer of its parameters, with the gradient buckets.
        context: the parallel layout.
        loss_scale: the loss scale.
    """

    def __init__(
        self,
        config: TrainingConfig,
        objective: MaskedLMObjective,
        forward_backward: ForwardBackward[MicroBatch],
        optimizer: Optimizer,
        context: ParallelContext,
        loss_scale: LossScale,
    ) -> None:
        self.config = config
        self.objective = objective
        self.model = objective.model
        self.forward_backward = forward_backward
        self.optimizer = optimizer
        self.context = context
        self.loss_scale = loss_scale
        self.evaluator = Evaluator(objective, forward_backward, context)
        self._steps = 0  # steps of this process

    def load_checkpoint(self, checkpoint: Path | None, description: RunDescription) -> RunState:
        """Load a checkpoint into model, optimizer and loss scale.

        Args:
            checkpoint: the checkpoint's directory, verified by :func:`pretrain.checkpointing.find_latest`; None keeps
                the initial values.
            description: description of the run.

        Returns:
            The state of the run: that of the checkpoint, or of a new run.

        Raises:
            CheckpointError: if the checkpoint is damaged or has another model.
        """
        if checkpoint is None:
            return RunState(loss_scale=self.loss_scale.state())
        tensors = self.optimizer.state()
        state = load_checkpoint(checkpoint, self.model, tensors, description, self.context, verify=False)
        self.loss_scale.restore(state.loss_scale)
        return state

    def fit(self, state: RunState, batches: Iterator[GlobalBatch], run: RunServices) -> RunState:
        """Train from ``state`` to the last iteration, or until there is a reason to stop.

        The last checkpoint is complete on return.

        Args:
            state: where the run starts or resumes.
            batches: the global batches after the state's consumed samples.
            run: evaluations, logging, checkpoints and conditions to stop.

        Returns:
            The final state.
        """
        try:
            return self._fit(state, batches, run)
        except ProteinLMError:
            trace.failed()
            with suppress(ProteinLMError):  # the first error is reported
                run.writer.wait()  # a checkpoint that is being written is completed
            raise
        finally:
            run.profiler.discard()

    def _fit(self, state: RunState, batches: Iterator[GlobalBatch], run: RunServices) -> RunState:
        saved = state
        self.model.train()
        reason = run.stop.reason(at_start=True)
        state = self._evaluate_due(state, reason, run)
        while state.iteration < self.config.train_iters and reason is None:
            timeout = SpanTimeout.BUSY if self._steps < _WARMUP_STEPS else SpanTimeout.HANG
            number = state.iteration + 1
            with run.profiler.iteration(number), trace.span(f"iteration {number}", timeout):
                state = self._train_iteration(state, batches, run)
                with trace.span("agree on stopping"):
                    reason = run.stop.reason()
                state = self._evaluate_due(state, reason, run)
                if self.config.saves_at(state.iteration):
                    self._save(state, run)
                    saved = state
                self._log_checkpoints(run)
                reason = reason or self.config.exit_reason(state.iteration)
            if reason is None and state.iteration < self.config.train_iters:
                run.profiler.write_after(state.iteration)
        if reason is not None and (state.iteration < self.config.train_iters or state.evaluation_due):
            run.logger.note(f"{reason}: exiting after iteration {state.iteration}")
        if saved != state:  # also if only the evaluation after the last iteration was still due
            self._save(state, run)
        run.writer.wait()
        self._log_checkpoints(run)
        run.profiler.write()
        return state

    def _train_iteration(self, state: RunState, batches: Iterator[GlobalBatch], run: RunServices) -> RunState:
        """One step, with its record."""
        began = time.perf_counter()
        with trace.span("load micro-batches"):
            batch = next(batches)
        skipped = SkippedCounts(state.skipped_steps, state.skipped_samples)
        result = self.train_step(state.iteration + 1, batch.micro_batches, skipped)
        learning_rate = self.optimizer.schedule.rate(state.iteration + 1, skipped)
        before, state = state, next_state(state, result, batch.rows, self.loss_scale.state())
        # Only the main process writes files and prints, and either may block.
        with trace.span("write records", SpanTimeout.COLLECTIVE):
            seconds, positions = time.perf_counter() - began, batch.rows * self.config.seq_length
            record = step_record(state, result, learning_rate, positions, seconds)
            run.logger.log_step(record)
            if warning := run.nonfinite.check(before, state, result):
                run.logger.note(warning)
        return replace(state, evaluation_due=bool(run.evaluations.due(state.iteration)))

    def train_step(
        self, iteration: int, micro_batches: Sequence[MicroBatch], skipped: SkippedCounts = NOTHING_SKIPPED
    ) -> StepResult:
        """Forward and backward passes of this rank's micro-batches of one global batch, and the optimizer step.

        The loss is the sum of the cross entropies of all predicted positions of the global batch divided by their
        number, so that neither loss nor update depend on how rows are distributed over ranks and micro-batches. Loss
        and gradient norm are reduced over all ranks, which therefore agree on whether a step is non-finite.

        Args:
            iteration: number of the step, from 1.
            micro_batches: this rank's micro-batches.
            skipped: steps skipped before, which have not advanced the learning-rate schedule.
        """
        gradients, scale = self.optimizer.gradients, self.loss_scale.value
        counts = self._global_counts(micro_batches)
        self._steps += 1
        gradients.zero()
        losses = self._forward_backward(iteration, micro_batches, weight=(scale / counts[0]).float())
        total = sum_of(losses, self.context.device)
        with trace.span("all-reduce loss"):
            self.context.all_reduce_losses(total)
        # the only synchronization with the device in a step
        loss_sum, norm, predictions, tokens = torch.stack([total, gradients.norm(), *counts]).tolist()
        loss, norm = loss_sum / predictions, norm / scale
        is_skipped = not (math.isfinite(loss) and math.isfinite(norm))
        with trace.span("optimizer step"):
            if not is_skipped:
                self.optimizer.step(iteration, norm, scale, skipped)
        searching = is_skipped and math.isfinite(loss) and self.loss_scale.can_decrease
        self.loss_scale.update(overflow=is_skipped)
        suspects = nonfinite_micro_batches(losses) if is_skipped else ()
        return StepResult(loss, norm, int(tokens), int(predictions), is_skipped, scale, suspects, searching)

    def _global_counts(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Predicted positions and tokens of the global batch, (2,) float64."""
        own = [sum(batch.predictions for batch in micro_batches), sum(batch.tokens for batch in micro_batches)]
        counts = torch.tensor(own, dtype=torch.float64).to(self.context.device)
        with trace.span("all-reduce counts"):
            return self.context.all_reduce_over_data(counts)

    def _forward_backward(self, iteration: int, micro_batches: Sequence[MicroBatch], weight: Tensor) -> list[Tensor]:
        """Accumulate the gradients of ``weight`` times the summed loss; the loss of each micro-batch."""
        batches = [self.objective.prepare(batch) for batch in micro_batches]
        seed_dropout = partial(self._seed_dropout, iteration)
        return self.forward_backward.train(batches, weight, self.optimizer.gradients, seed_dropout)

    def _seed_dropout(self, iteration: int, number: int) -> None:
        """Make dropout a pure function of (seed, iteration, index of the micro-batch in the global batch).

        It is therefore the same after a resume and for any number of data-parallel ranks. Tensor-parallel ranks have
        the same masks outside their parallel regions and different ones inside (pretrain.parallel.tensor_parallel_rng).
        Pipeline stages, and tensor-parallel ranks with sequence parallelism, draw from random streams of their own, so
        that their masks differ from those of a single process.
        """
        context = self.context
        place = number * context.dims.data + context.data_rank
        own = (context.stage, context.tensor_rank if context.dims.sequence_parallel_enabled else 0)
        key = [_STREAM_DROPOUT, self.config.seed, iteration, place, *(own if any(own) else ())]
        words = np.random.SeedSequence(key).generate_state(2, np.uint32)
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def _evaluate_due(self, state: RunState, reason: str | None, run: RunServices) -> RunState:
        """Do the evaluations that are due; a run that is about to stop leaves them to its resume."""
        if not state.evaluation_due or reason is not None:
            return state
        for evaluation in run.evaluations.due(state.iteration):
            record = self.evaluator.evaluate(evaluation.micro_batches, state.iteration, evaluation.split)
            with trace.span("write records", SpanTimeout.COLLECTIVE):
                run.logger.log_evaluation(record)
        return replace(state, evaluation_due=False)

    def _save(self, state: RunState, run: RunServices) -> None:
        # waits for the previous checkpoint, which may take as long as the disk takes
        with trace.span("save checkpoint", SpanTimeout.COLLECTIVE):
            run.writer.save(state)

    def _log_checkpoints(self, run: RunServices) -> None:
        with trace.span("write records", SpanTimeout.COLLECTIVE):
            for path in run.writer.written():
                run.logger.note(f"saved {path}")

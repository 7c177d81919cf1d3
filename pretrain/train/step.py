"""The result of a training step, and what follows from it: the next state of the run, and the step's record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from pretrain.checkpointing import RunState

from .metrics_logger import StepRecord


@dataclass(frozen=True)
class StepResult:
    """One optimizer step on the global batch.

    Attributes:
        loss: mean cross entropy over the predicted positions of the global batch, nats.
        grad_norm: L2 norm of the gradient before clipping.
        tokens, predictions: tokens and predicted positions of the global batch.
        skipped: whether the update was skipped because loss or gradient were not finite.
        loss_scale: loss scale of the step.
        suspects: if skipped, this rank's micro-batches with a non-finite loss, or all of them if there is none.
        searching: whether the step was skipped because the dynamic loss scale is still too high.
    """

    loss: float
    grad_norm: float
    tokens: int
    predictions: int
    skipped: bool
    loss_scale: float
    suspects: tuple[int, ...] = ()
    searching: bool = False


def nonfinite_micro_batches(losses: Sequence[Tensor]) -> tuple[int, ...]:
    """Indices of the micro-batches with a non-finite loss; all if the fault is in a gradient or on another rank."""
    nonfinite = [number for number, loss in enumerate(losses) if not math.isfinite(float(loss))]
    return tuple(nonfinite or range(len(losses)))


def next_state(state: RunState, result: StepResult, rows: int, loss_scale: dict[str, float]) -> RunState:
    """The state of the run after a step.

    Args:
        state: the state before it.
        result: the step's result.
        rows: global batch size of the step.
        loss_scale: state of the loss scale after the step.
    """
    if not result.skipped:
        consecutive = 0
    else:
        consecutive = state.skipped_in_a_row if result.searching else state.skipped_in_a_row + 1
    return replace(
        state,
        iteration=state.iteration + 1,
        consumed_samples=state.consumed_samples + rows,
        consumed_tokens=state.consumed_tokens + result.tokens,
        skipped_steps=state.skipped_steps + result.skipped,
        skipped_samples=state.skipped_samples + rows * result.skipped,
        skipped_in_a_row=consecutive,
        loss_scale=loss_scale,
    )


def step_record(
    state: RunState, result: StepResult, learning_rate: float, positions: int, seconds: float
) -> StepRecord:
    """The record of a step in ``metrics.jsonl``.

    Args:
        state: the state after the step.
        result: the step's result.
        learning_rate: the learning rate of the step.
        positions: tokens that the rows of the global batch could contain.
        seconds: duration of the iteration.
    """
    return StepRecord(
        iteration=state.iteration,
        lm_loss=result.loss,
        learning_rate=learning_rate,
        grad_norm=result.grad_norm,
        tokens=result.tokens,
        predictions=result.predictions,
        tokens_per_second=result.tokens / seconds,
        positions_used=result.tokens / positions,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
        loss_scale=result.loss_scale,
        skipped=result.skipped,
        skipped_steps=state.skipped_steps,
        seconds=seconds,
    )

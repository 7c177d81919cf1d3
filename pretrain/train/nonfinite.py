"""Steps left out because loss or gradient were not finite: how many in a row, and which proteins were in them.

A dynamic loss scale (``--fp16``) is found by overflowing: a step with a finite loss whose gradient overflowed while the
scale could still fall is part of that search and not counted. A loss that is not finite always counts, because the loss
scale has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrain.checkpointing import RunState
from pretrain.data.samples import Samples, TrainingOrder
from pretrain.parallel import ControlGroup
from tape.errors import DataError

from .trainer import StepResult

_ROWS_NAMED = 6
_PROTEINS_NAMED = 12


class NonFiniteSteps:
    """Counts skipped steps and ends the run when there are too many in a row.

    Args:
        limit: skipped steps in a row that end the run; 0: any number goes.
        order: which rows this rank's micro-batches hold.
        samples: which proteins a row holds.
        ranks: a group for the main thread.
    """

    def __init__(self, limit: int, order: TrainingOrder, samples: Samples, ranks: ControlGroup) -> None:
        self._limit = limit
        self._order = order
        self._samples = samples
        self._ranks = ranks

    def note(self, before: RunState, after: RunState, result: StepResult) -> str | None:
        """A line about a step that counts as skipped, None otherwise. Called by all ranks after the same step.

        Args:
            before, after: the run's state before and after the step.
            result: of the step, on this rank.

        Raises:
            DataError: this was one too many. Names the rows and proteins of the step.
        """
        if after.skipped_in_a_row <= before.skipped_in_a_row:
            return None
        rows = self._rows(before.consumed_samples, result.suspects)
        what = "loss" if not math.isfinite(result.loss) else "gradient"
        text = f"iteration {after.iteration}: the {what} is not finite, the weights stay; {self._describe(rows)}"
        if not self._limit or after.skipped_in_a_row < self._limit:
            return f"WARNING: {text}"
        raise DataError(f"{after.skipped_in_a_row} steps in a row were skipped (--max-skipped-steps); {text}")

    def _rows(self, consumed: int, suspects: Sequence[int]) -> list[int]:
        own = [row for number in suspects for row in self._order.samples(consumed, number)]
        return sorted({row for rows in self._ranks.gather(own) for row in rows})

    def _describe(self, rows: list[int]) -> str:
        named = "; ".join(self._describe_row(row) for row in rows[:_ROWS_NAMED])
        return named + (f"; and {len(rows) - _ROWS_NAMED} more rows" if len(rows) > _ROWS_NAMED else "")

    def _describe_row(self, row: int) -> str:
        part, number = self._samples.source(row)
        proteins = [str(piece.protein) for piece in part.proteins(number)]
        more = f" and {len(proteins) - _PROTEINS_NAMED} more" if len(proteins) > _PROTEINS_NAMED else ""
        return f"row {row} holds proteins {', '.join(proteins[:_PROTEINS_NAMED])}{more} of {part.corpus.prefix}"

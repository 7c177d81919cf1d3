"""Non-finite steps, which are skipped: counts consecutive ones and names the proteins in them.

A dynamic loss scale (``--fp16``) is lowered until the gradient no longer overflows: a step with a finite loss whose
gradient overflows while the scale can still decrease is part of that search and not counted. A non-finite loss always
counts, because it doesn't depend on the loss scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrain.checkpointing import RunState
from pretrain.data.samples import Samples, TrainingOrder
from pretrain.parallel import ControlGroup
from tape.errors import DataError

from .step import StepResult

_ROWS_NAMED = 6
_PROTEINS_NAMED = 12


class NonFiniteSteps:
    """Ends the run after too many consecutive non-finite steps.

    Args:
        limit: number of consecutive skipped steps that ends the run; 0 never does.
        order: the rows of this rank's micro-batches.
        samples: the proteins of a row.
        control_group: a control process group for the main thread.
    """

    def __init__(self, limit: int, order: TrainingOrder, samples: Samples, control_group: ControlGroup) -> None:
        self._limit = limit
        self._order = order
        self._samples = samples
        self._control_group = control_group

    def check(self, before: RunState, after: RunState, result: StepResult) -> str | None:
        """A warning about a non-finite step, or None. Called by all ranks after the same step.

        Args:
            before, after: states of the run before and after the step.
            result: result of the step on this rank.

        Raises:
            DataError: after too many consecutive non-finite steps; names the rows and proteins of the last one.
        """
        if after.skipped_in_a_row <= before.skipped_in_a_row:
            return None
        rows = self._rows(before.consumed_samples, result.suspects)
        what = "loss" if not math.isfinite(result.loss) else "gradient"
        text = (
            f"iteration {after.iteration}: the {what} is not finite, so the update is skipped; {self._describe(rows)}"
        )
        if not self._limit or after.skipped_in_a_row < self._limit:
            return f"WARNING: {text}"
        raise DataError(f"{after.skipped_in_a_row} consecutive steps were skipped (--max-skipped-steps); {text}")

    def _rows(self, consumed: int, suspects: Sequence[int]) -> list[int]:
        own = [row for number in suspects for row in self._order.samples(consumed, number)]
        return sorted({row for rows in self._control_group.gather(own) for row in rows})

    def _describe(self, rows: list[int]) -> str:
        named = "; ".join(self._describe_row(row) for row in rows[:_ROWS_NAMED])
        return named + (f"; and {len(rows) - _ROWS_NAMED} more rows" if len(rows) > _ROWS_NAMED else "")

    def _describe_row(self, row: int) -> str:
        part, number = self._samples.source(row)
        proteins = [str(piece.protein) for piece in part.proteins(number)]
        more = f" and {len(proteins) - _PROTEINS_NAMED} more" if len(proteins) > _PROTEINS_NAMED else ""
        return f"row {row} contains proteins {', '.join(proteins[:_PROTEINS_NAMED])}{more} of {part.corpus.prefix}"

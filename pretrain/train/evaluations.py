"""Which evaluations a run does, and when."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain.data.samples import MicroBatches


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split to evaluate; iterating over its micro-batches yields the same ones every time."""

    split: str
    micro_batches: MicroBatches


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run.

    Attributes:
        interval: iterations between evaluations of ``valid``.
        last: the last iteration, after which ``valid`` and ``test`` are evaluated.
        valid, test: the splits; None skips one.
    """

    interval: int
    last: int
    valid: EvaluatedSplit | None = None
    test: EvaluatedSplit | None = None

    def due(self, iteration: int) -> list[EvaluatedSplit]:
        """The evaluations to do after an iteration."""
        is_last = iteration == self.last
        wanted = (self.valid if is_last or iteration % self.interval == 0 else None, self.test if is_last else None)
        return [evaluation for evaluation in wanted if evaluation is not None]

"""How many rows a step takes, as a function of the samples that lie behind it: Megatron's batch-size ramp-up.

The samples consumed so far decide, never the iteration or the layout, so that a resumed run goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tape.errors import ConfigError


@dataclass(frozen=True)
class Rampup:
    """The global batch grows from ``start`` by ``increment`` at equal distances over the first ``samples`` samples."""

    start: int
    increment: int
    samples: int


@dataclass(frozen=True)
class BatchConfig:
    """How many rows make a step.

    Attributes:
        micro_batch: rows of one forward pass on one rank.
        global_batch: rows of one optimizer step on all ranks, once the ramp-up is over.
        rampup: how it begins; None: at full size.

    Raises:
        ConfigError: the ramp-up doesn't lead to the global batch in whole steps.
    """

    micro_batch: int
    global_batch: int
    rampup: Rampup | None = None

    def __post_init__(self) -> None:
        ramp = self.rampup
        if ramp is None:
            return
        if min(ramp.start, ramp.increment, ramp.samples) < 1:
            raise ConfigError(
                "--rampup-batch-size takes three positive numbers (start, increment, samples), not "
                f"{ramp.start} {ramp.increment} {ramp.samples}"
            )
        if ramp.start > self.global_batch or (self.global_batch - ramp.start) % ramp.increment:
            raise ConfigError(
                f"--rampup-batch-size: from {ramp.start} in steps of {ramp.increment} one doesn't arrive at "
                f"--global-batch-size {self.global_batch}"
            )

    def batch_size(self, consumed: int) -> int:
        """Rows of the step that begins when ``consumed`` samples are done."""
        ramp = self.rampup
        if ramp is None or consumed >= ramp.samples:
            return self.global_batch
        increments = (self.global_batch - ramp.start) // ramp.increment
        return ramp.start + consumed * increments // ramp.samples * ramp.increment

    def steps(self, consumed: int, number: int) -> Iterator[tuple[int, int]]:
        """(samples done before it, its rows) of the next ``number`` steps."""
        for _ in range(number):
            rows = self.batch_size(consumed)
            yield consumed, rows
            consumed += rows

    def consumed_samples(self, iteration: int, consumed: int = 0) -> int:
        """Samples done ``iteration`` steps after the point where ``consumed`` were (the run's beginning)."""
        while iteration > 0 and self.batch_size(consumed) < self.global_batch:
            iteration, consumed = iteration - 1, consumed + self.batch_size(consumed)
        return consumed + iteration * self.global_batch

    def iterations(self, samples: int) -> int:
        """Steps that so many samples allow from the beginning; as in Megatron, a last part of a step is left out."""
        count, consumed = 0, 0
        while consumed + self.batch_size(consumed) <= samples and self.batch_size(consumed) < self.global_batch:
            count, consumed = count + 1, consumed + self.batch_size(consumed)
        return count + (samples - consumed) // self.global_batch

    def micro_batches(self, data_parallel: int, consumed: int | None = None) -> int:
        """Forward passes of one rank in the step that begins at ``consumed`` (None: in one of full size).

        Raises:
            ConfigError: the batch doesn't divide.
        """
        rows = self.global_batch if consumed is None else self.batch_size(consumed)
        if rows % (self.micro_batch * data_parallel):
            raise ConfigError(
                f"--global-batch-size {rows} is not a multiple of --micro-batch-size {self.micro_batch} "
                f"times {data_parallel} data-parallel ranks"
            )
        return rows // (self.micro_batch * data_parallel)

    def check(self, data_parallel: int) -> None:
        """Make sure that the batch divides at every point of the run.

        Raises:
            ConfigError: it doesn't. Names the size.
        """
        self.micro_batches(data_parallel)
        if self.rampup is None:
            return
        unit = self.micro_batch * data_parallel
        for rows in (self.rampup.start, self.rampup.increment):
            if rows % unit:
                raise ConfigError(
                    f"--rampup-batch-size: {rows} is not a multiple of --micro-batch-size {self.micro_batch} "
                    f"times {data_parallel} data-parallel ranks"
                )

"""The global batch size of every step, as a function of the samples consumed so far: Megatron-LM's batch-size ramp-up.

It depends neither on the iteration nor on the parallel layout, so a resumed run has the same batches as an
uninterrupted one. A sample is a row of packed proteins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tape.errors import ConfigError


@dataclass(frozen=True)
class Rampup:
    """The global batch grows from ``start`` by ``increment`` at equal intervals over the first ``samples`` samples."""

    start: int
    increment: int
    samples: int


@dataclass(frozen=True)
class BatchConfig:
    """Batch sizes in rows.

    Attributes:
        micro_batch: rows per forward pass on one rank.
        global_batch: rows per optimizer step on all ranks together, after the ramp-up.
        rampup: growth of the global batch at the beginning of the run; None: constant from the start.

    Raises:
        ConfigError: if the increments of the ramp-up do not lead exactly to the global batch.
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
                f"--rampup-batch-size: increments of {ramp.increment} from {ramp.start} do not reach "
                f"--global-batch-size {self.global_batch} exactly"
            )

    def batch_size(self, consumed: int) -> int:
        """Rows of the step that begins after ``consumed`` samples."""
        ramp = self.rampup
        if ramp is None or consumed >= ramp.samples:
            return self.global_batch
        increments = (self.global_batch - ramp.start) // ramp.increment
        return ramp.start + consumed * increments // ramp.samples * ramp.increment

    def steps(self, consumed: int, number: int) -> Iterator[tuple[int, int]]:
        """Yield (samples consumed before the step, rows of the step) for the next ``number`` steps."""
        for _ in range(number):
            rows = self.batch_size(consumed)
            yield consumed, rows
            consumed += rows

    def consumed_samples(self, iteration: int, consumed: int = 0) -> int:
        """Samples consumed after ``iteration`` further steps, starting at ``consumed`` samples."""
        while iteration > 0 and self.batch_size(consumed) < self.global_batch:
            iteration, consumed = iteration - 1, consumed + self.batch_size(consumed)
        return consumed + iteration * self.global_batch

    def iterations(self, samples: int) -> int:
        """Number of steps in a run of ``samples`` samples; as in Megatron-LM, an incomplete last batch is dropped."""
        count, consumed = 0, 0
        while consumed + self.batch_size(consumed) <= samples and self.batch_size(consumed) < self.global_batch:
            count, consumed = count + 1, consumed + self.batch_size(consumed)
        return count + (samples - consumed) // self.global_batch

    def micro_batches(self, data_parallel: int, consumed: int | None = None) -> int:
        """Forward passes per rank in the step that begins after ``consumed`` samples (None: in a full-size step).

        Raises:
            ConfigError: if the batch is not a multiple of the micro-batch times the data-parallel size.
        """
        rows = self.global_batch if consumed is None else self.batch_size(consumed)
        if rows % (self.micro_batch * data_parallel):
            raise ConfigError(
                f"--global-batch-size {rows} is not a multiple of --micro-batch-size {self.micro_batch} "
                f"times {data_parallel} data-parallel ranks"
            )
        return rows // (self.micro_batch * data_parallel)

    def check(self, data_parallel: int) -> None:
        """Check that every global batch of the run divides into micro-batches on all data-parallel ranks.

        Raises:
            ConfigError: if one does not; the message names its size.
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

"""What a run says while it goes: ``metrics.jsonl``, TensorBoard, and one console line an interval.

``metrics.jsonl`` lies in the ``--save`` directory, one JSON object a line. Every object has ``kind``:

``start``, one each time that the run is started:
    iteration            completed steps at that moment
    schema, version      ``proteinlm-metrics``, 2
    processes            how many
    parameters           of the whole model
    flops_per_token      forward and backward, see pretrain.planning.flops
    peak_flops           FLOP/s of all processes together
    peak_source          ``stated`` by --peak-tflops, or ``measured``: the best of repeated matrix products

``train``, one an iteration:
    iteration            completed steps, from 1
    lm_loss              mean cross entropy over all predicted positions of the global batch, nats; null when not finite
    perplexity           exp(lm_loss)
    learning_rate        of this step; steps without an update do not move it on
    grad_norm            before clipping; null when not finite
    tokens               tokens of the global batch (there is no padding), special tokens included
    predictions          predicted positions of the global batch
    tokens_per_second    of this iteration, all ranks together
    positions_used       tokens / (rows x seq_length)
    consumed_samples     rows since the beginning of training
    consumed_tokens      tokens since the beginning of training
    loss_scale           factor of the loss (1 unless --fp16)
    skipped              whether the update was left out because loss or gradient were not finite
    skipped_steps        such steps since the beginning of training
    seconds              duration of the iteration
    utilisation          model FLOP/s over peak_flops
    memory_bytes         peak of the main process so far: allocated on its GPU, or resident
    seconds_left         to the last iteration, at the mean speed of this start

``evaluation``, at ``--eval-interval`` and at the end:
    iteration            steps completed before it
    split                ``valid`` or ``test``
    validation_loss      sum of cross entropy over all predicted positions / their number, nats
    perplexity           exp(validation_loss)
    predictions, rows    how many positions and rows it is over
    seconds              duration

Speeds, times and memory differ between two runs of the same command; everything else is the same. A run that continues
removes the records after the iteration it continues from, so that each iteration stands once. TensorBoard gets the same
numbers under ``train/``, ``valid/`` and ``test/``.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pretrain.planning.flops import Meter
from tape.errors import ConfigError
from tape.io.atomic import atomic_write
from tape.metrics.classes import perplexity

METRICS_NAME = "metrics.jsonl"
SCHEMA, VERSION = "proteinlm-metrics", 2
# What differs between two runs of the same computation; everything else in a record is the same, bit for bit.
TIMING_FIELDS = frozenset({"seconds", "tokens_per_second", "utilisation", "memory_bytes", "seconds_left"})


@dataclass(frozen=True)
class LoggingConfig:
    """Where and how often.

    Attributes:
        log_interval: iterations between console lines.
        directory: of metrics.jsonl; None writes none.
        tensorboard_directory: None for no TensorBoard.
        peak_tflops: of one process, for the utilisation; None: measured.
    """

    log_interval: int = 100
    directory: str | None = None
    tensorboard_directory: str | None = None
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ConfigError(f"--peak-tflops must be above 0, not {self.peak_tflops}")


@dataclass(frozen=True)
class RunInfo:
    """What the records of one start have in common.

    Attributes:
        processes: how many there are.
        parameters: of the whole model.
        meter: turns speed into utilisation and knows the memory.
    """

    processes: int
    parameters: int
    meter: Meter

    def to_dict(self, iteration: int) -> dict[str, Any]:
        return {
            "kind": "start",
            "iteration": iteration,
            "schema": SCHEMA,
            "version": VERSION,
            "processes": self.processes,
            "parameters": self.parameters,
            "flops_per_token": self.meter.flops_per_token,
            "peak_flops": self.meter.peak,
            "peak_source": self.meter.peak_source,
        }


@dataclass(frozen=True)
class StepRecord:
    """One iteration; fields as in the module's text."""

    iteration: int
    lm_loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    predictions: int
    tokens_per_second: float
    positions_used: float
    consumed_samples: int
    consumed_tokens: int
    loss_scale: float
    skipped: bool
    skipped_steps: int
    seconds: float

    @property
    def perplexity(self) -> float:
        return perplexity(self.lm_loss)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "train", **asdict(self), "perplexity": self.perplexity}


@dataclass(frozen=True)
class EvaluationLossRecord:
    """One evaluation; fields as in the module's text."""

    iteration: int
    split: str
    validation_loss: float
    predictions: int
    rows: int
    seconds: float

    @property
    def perplexity(self) -> float:
        return perplexity(self.validation_loss)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "evaluation", **asdict(self), "perplexity": self.perplexity}


class MetricsLogger:
    """Writes the records of one run; every rank but the main one keeps silent.

    Args:
        config: see :class:`LoggingConfig`.
        iterations: where the run will end, for the time left.
        start: the iteration that it continues from.
        facts: of this start.
        is_main: whether this process writes.
        stream: of console lines; standard output when None.
        evaluation_due: whether the evaluation after ``start`` is (still, or again) to come.
    """

    def __init__(
        self,
        config: LoggingConfig,
        iterations: int,
        start: int,
        facts: RunInfo,
        is_main: bool,
        stream: TextIO | None = None,
        evaluation_due: bool = False,
    ) -> None:
        self._config = config
        self._iterations = iterations
        self._is_main = is_main
        self._stream = stream or sys.stdout
        self._metrics: TextIO | None = None
        self._board: Any = None
        self._recent: list[StepRecord] = []
        self._facts = facts
        self._start = start
        self._seconds = 0.0  # of all steps of this start
        self._said_start = False
        if is_main and config.directory is not None:
            self._metrics = _open_metrics(Path(config.directory) / METRICS_NAME, start, evaluation_due)
        if is_main and config.tensorboard_directory is not None:
            from tensorboardX import SummaryWriter  # takes a second, and most runs do without

            self._board = SummaryWriter(config.tensorboard_directory, purge_step=start + 1)

    def note(self, text: str) -> None:
        """One line for the user."""
        if self._is_main:
            print(text, file=self._stream, flush=True)

    def train(self, record: StepRecord) -> None:
        """One iteration is done."""
        if not self._is_main:
            return
        values = {**record.to_dict(), **self._derived(record)}
        self._write(values)
        if self._board is not None:
            self._add_scalars("train", values, record.iteration)
        self._recent.append(record)
        if record.iteration % self._config.log_interval == 0 or record.iteration == self._iterations:
            self.note(self._line(self._recent))
            self._recent.clear()

    def evaluation(self, record: EvaluationLossRecord) -> None:
        """One evaluation is done."""
        if not self._is_main:
            return
        self._write(record.to_dict())
        if self._board is not None:
            self._add_scalars(record.split, record.to_dict(), record.iteration)
        self.note(
            f"{record.split} at iteration {record.iteration}: loss {record.validation_loss:.4f} | "
            f"ppl {record.perplexity:.3f} | {record.predictions} predictions in {record.rows} rows"
        )

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._board is not None:
            self._board.close()

    def _derived(self, record: StepRecord) -> dict[str, Any]:
        """Speed against the peak, memory, and the time left."""
        self._seconds += record.seconds
        meter, done = self._facts.meter, record.iteration - self._start
        return {
            "utilisation": meter.utilisation(record.tokens_per_second),
            "memory_bytes": meter.memory(),
            "seconds_left": (self._iterations - record.iteration) * self._seconds / done,
        }

    def _write(self, values: dict[str, Any]) -> None:
        if self._metrics is None:
            return
        # The first record of a start brings the start's own: a run that has nothing to do leaves no trace.
        records = [values] if self._said_start else [self._facts.to_dict(self._start), values]
        self._said_start = True
        for record in records:
            self._metrics.write(json.dumps({name: _jsonable(value) for name, value in record.items()}) + "\n")
        self._metrics.flush()

    def _add_scalars(self, group: str, values: dict[str, Any], iteration: int) -> None:
        for name, value in values.items():
            if name not in ("kind", "split", "iteration") and math.isfinite(value):
                self._board.add_scalar(f"{group}/{name}", value, iteration)

    def _line(self, records: list[StepRecord]) -> str:
        last = records[-1]
        seconds = sum(record.seconds for record in records)
        predictions = sum(record.predictions for record in records if math.isfinite(record.lm_loss))
        total = sum(record.lm_loss * record.predictions for record in records if math.isfinite(record.lm_loss))
        loss = total / predictions if predictions else math.nan
        left = (self._iterations - last.iteration) * seconds / len(records)
        speed, meter = sum(record.tokens for record in records) / seconds, self._facts.meter
        skipped = f" | skipped {last.skipped_steps}" if last.skipped_steps else ""
        return (
            f"iteration {last.iteration}/{self._iterations} | lm loss {loss:.4f} | ppl {perplexity(loss):.3f} | "
            f"lr {last.learning_rate:.3e} | grad norm {last.grad_norm:.3f} | "
            f"{speed:,.0f} tokens/s | {last.positions_used:.1%} of positions | "
            f"{meter.utilisation(speed):.1%} of {meter.peak_source} peak | "
            f"{meter.memory() / (1 << 30):.2f} GiB{skipped} | {_duration(left)} left"
        )


def _open_metrics(path: Path, start: int, evaluation_due: bool) -> TextIO:
    try:
        return _continue_file(path, start, evaluation_due)
    except OSError as error:
        raise ConfigError(f"--save {path.parent}: cannot be written ({error.strerror or error})") from error


def _continue_file(path: Path, start: int, evaluation_due: bool) -> TextIO:
    """Open the metrics for appending, without records after ``start``; a new run sets an earlier run's aside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if start == 0:
            os.replace(path, _free_name(path))
        else:
            _keep_until(path, start, evaluation_due)
    return path.open("a", encoding="utf-8")


def _keep_until(path: Path, iteration: int, evaluation_due: bool) -> None:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            comes_again = evaluation_due and record["kind"] == "evaluation" and record["iteration"] == iteration
            if record["iteration"] <= iteration and not comes_again:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # the half-written last line of a run that was killed
    with atomic_write(path, "w") as stream:
        stream.writelines(kept)


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return name


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"

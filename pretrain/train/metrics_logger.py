"""Metrics of a pretraining run: ``metrics.jsonl``, TensorBoard, and one console line per log interval.

``metrics.jsonl`` is in the ``--save`` directory and has one JSON object per line. Every object has a ``kind``:

``start``, one each time the run is started or resumed:
    iteration            completed steps at the start
    schema, version      ``proteinlm-metrics``, 2
    processes            number of processes
    parameters           parameters of the complete model
    flops_per_token      forward and backward pass, see pretrain.planning.flops
    peak_flops           peak FLOP/s of all processes together
    peak_source          ``stated`` by --peak-tflops, or ``measured``: the best of repeated matrix products

``train``, one per iteration:
    iteration            completed steps, from 1
    lm_loss              mean cross entropy over all predicted positions of the global batch, nats; null when not finite
    perplexity           exp(lm_loss)
    learning_rate        learning rate of this step; skipped steps do not advance the schedule
    grad_norm            gradient norm before clipping; null when not finite
    tokens               tokens of the global batch, including special tokens (there is no padding)
    predictions          predicted positions of the global batch
    tokens_per_second    throughput of this iteration, all ranks together
    positions_used       tokens / (rows x seq_length)
    consumed_samples     rows since the beginning of training
    consumed_tokens      tokens since the beginning of training
    loss_scale           loss scale (1 unless --fp16)
    skipped              whether the update was skipped because the loss or the gradient was not finite
    skipped_steps        skipped steps since the beginning of training
    seconds              duration of the iteration
    utilisation          model FLOP/s over peak_flops
    memory_bytes         peak of the main process so far: allocated on its GPU, or resident
    seconds_left         time to the last iteration, at the mean speed since the start

``evaluation``, at ``--eval-interval`` and at the end:
    iteration            steps completed before it
    split                ``valid`` or ``test``
    validation_loss      mean cross entropy over all predicted positions, nats
    perplexity           exp(validation_loss)
    predictions, rows    number of predicted positions and of rows evaluated
    seconds              duration

Throughput, times and memory differ between two runs of the same command; everything else is the same. A resumed run
first removes the records after the iteration that it resumes from, so that each iteration appears once. TensorBoard
gets the same numbers under ``train/``, ``valid/`` and ``test/``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pretrain.planning.flops import Meter
from tape.errors import ConfigError, ProteinLMError, readable
from tape.io.json_files import parse_json
from tape.io.writing import atomic_write, output_errors
from tape.metrics.classes import perplexity
from tape.report.training_curves import CURVES_NAME, draw_pretraining
from tape.runtime.progress import duration
from tape.runtime.tensorboard import TensorBoardWriter

from .metrics_schema import METRICS_NAME, SCHEMA, VERSION

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggingConfig:
    """Where metrics are logged, and how often.

    Attributes:
        log_interval: iterations between console lines.
        directory: directory of metrics.jsonl; None writes no file.
        tensorboard_directory: directory of the event files; None disables TensorBoard.
        peak_tflops: peak TFLOP/s of one process, for the utilization; None: measured.
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
    """Properties of the run that are recorded each time it is started.

    Attributes:
        processes: number of processes.
        parameters: number of parameters of the complete model.
        meter: computes the utilization and the memory in use.
    """

    processes: int
    parameters: int
    meter: Meter

    def to_dict(self, iteration: int) -> dict[str, Any]:
        """The ``start`` record of a run that starts after ``iteration`` completed steps."""
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
    """The record of one iteration; the module docstring describes its fields."""

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
    """The record of one evaluation; the module docstring describes its fields."""

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

    def describe(self) -> str:
        """Loss and perplexity for the console."""
        place = f" at iteration {self.iteration}" if self.iteration else ""  # unknown of a model without training
        loss = f"loss {self.validation_loss:.4f} | ppl {self.perplexity:.3f}"
        return f"{self.split}{place}: {loss} | {self.predictions} predictions in {self.rows} rows"


class MetricsLogger:
    """Logs the records of one run; only the main rank writes anything.

    Args:
        config: where metrics are logged, and how often.
        iterations: last iteration of the run, for the remaining time.
        start: completed steps at the start of this process; above 0 when the run is resumed.
        run_info: properties of the run, for the ``start`` record.
        is_main: whether this is the process that writes.
        stream: stream of the console lines; None: standard output.
        evaluation_due: whether the evaluation after iteration ``start`` has yet to be run or repeated.

    Raises:
        ConfigError: if metrics.jsonl cannot be written.
    """

    def __init__(
        self,
        config: LoggingConfig,
        iterations: int,
        start: int,
        run_info: RunInfo,
        is_main: bool,
        stream: TextIO | None = None,
        evaluation_due: bool = False,
    ) -> None:
        self._config = config
        self._iterations = iterations
        self._is_main = is_main
        self._stream = stream or sys.stdout
        self._metrics: TextIO | None = None
        self._tensorboard: TensorBoardWriter | None = None
        self._recent: list[StepRecord] = []
        self.run_info = run_info
        self._start = start
        self._seconds = 0.0  # duration of all steps since the start
        self._start_recorded = False
        if is_main and config.directory is not None:
            self._metrics = _open_metrics(Path(config.directory) / METRICS_NAME, start, evaluation_due)
        if is_main and config.tensorboard_directory is not None:
            self._tensorboard = TensorBoardWriter(config.tensorboard_directory, purge_step=start + 1)

    def note(self, text: str) -> None:
        """Print a line on the console."""
        if self._is_main:
            print(readable(text), file=self._stream, flush=True)

    def log_step(self, record: StepRecord) -> None:
        """Log a completed iteration."""
        if not self._is_main:
            return
        values = {**record.to_dict(), **self._speed_and_memory(record)}
        self._write(values)
        self._add_scalars("train", values, record.iteration)
        self._recent.append(record)
        if record.iteration % self._config.log_interval == 0 or record.iteration == self._iterations:
            self.note(self._console_line(self._recent))
            self._recent.clear()

    def log_evaluation(self, record: EvaluationLossRecord) -> None:
        """Log a completed evaluation."""
        if not self._is_main:
            return
        self._write(record.to_dict())
        self._add_scalars(record.split, record.to_dict(), record.iteration)
        self.note(record.describe())

    def draw_curves(self) -> None:
        """Draw the training curves beside metrics.jsonl; an error is printed, because the checkpoint is saved."""
        if self._metrics is None:
            return
        metrics = Path(self._metrics.name)
        picture = metrics.with_name(CURVES_NAME)
        try:
            if draw_pretraining(metrics, self._iterations, picture):
                self.note(f"training curves: {picture}")
        except (ProteinLMError, OSError) as error:
            self.note(f"no picture of the training curves: {error}")

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            with suppress(OSError):  # of what a full disk had no space for, which has been reported
                self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _speed_and_memory(self, record: StepRecord) -> dict[str, Any]:
        """Fields that depend on the speed of this machine: utilization, memory and remaining time."""
        self._seconds += record.seconds
        meter, steps = self.run_info.meter, record.iteration - self._start
        return {
            "utilisation": meter.utilization(record.tokens_per_second),
            "memory_bytes": meter.memory(),
            "seconds_left": (self._iterations - record.iteration) * self._seconds / steps,
        }

    def _write(self, values: dict[str, Any]) -> None:
        if self._metrics is None:
            return
        # The start record is written with the first other record, so that a run with nothing to do changes no file.
        records = [values] if self._start_recorded else [self.run_info.to_dict(self._start), values]
        self._start_recorded = True
        with output_errors(Path(self._metrics.name)):
            self._metrics = _reopened_if_removed(self._metrics)
            for record in records:
                self._metrics.write(json.dumps({name: _jsonable(value) for name, value in record.items()}) + "\n")
            self._metrics.flush()

    def _add_scalars(self, group: str, values: dict[str, Any], iteration: int) -> None:
        if self._tensorboard is not None:
            omitted = ("kind", "split", "iteration")
            finite = {name: value for name, value in values.items() if name not in omitted and math.isfinite(value)}
            self._tensorboard.add_scalars(group, finite, iteration)

    def _console_line(self, records: list[StepRecord]) -> str:
        """The means over the iterations of a log interval, for the console."""
        last = records[-1]
        seconds = sum(record.seconds for record in records)
        predictions = sum(record.predictions for record in records if math.isfinite(record.lm_loss))
        total = sum(record.lm_loss * record.predictions for record in records if math.isfinite(record.lm_loss))
        loss = total / predictions if predictions else math.nan
        left = (self._iterations - last.iteration) * seconds / len(records)
        speed, meter = sum(record.tokens for record in records) / seconds, self.run_info.meter
        skipped = f" | skipped {last.skipped_steps}" if last.skipped_steps else ""
        return (
            f"iteration {last.iteration}/{self._iterations} | lm loss {loss:.4f} | ppl {perplexity(loss):.3f} | "
            f"lr {last.learning_rate:.3e} | grad norm {last.grad_norm:.3f} | "
            f"{speed:,.0f} tokens/s | {last.positions_used:.1%} of positions | "
            f"{meter.utilization(speed):.1%} of {meter.peak_source} peak | "
            f"{meter.memory() / (1 << 30):.2f} GiB{skipped} | {duration(left)} left"
        )


def _open_metrics(path: Path, start: int, evaluation_due: bool) -> TextIO:
    try:
        return _open_for_appending(path, start, evaluation_due)
    except OSError as error:
        raise ConfigError(f"--save {path.parent}: cannot be written ({error.strerror or error})") from error


def _open_for_appending(path: Path, start: int, evaluation_due: bool) -> TextIO:
    """Open the file, without records after iteration ``start``; a new run renames the file of an earlier run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if start == 0:
            os.replace(path, _unused_name(path))
        else:
            _remove_records_after(path, start, evaluation_due)
    return path.open("a", encoding="utf-8")


def _reopened_if_removed(metrics: TextIO) -> TextIO:
    """The open file, or a new one of the same name if that no longer leads to it.

    Somebody who removes ``--save`` under a run loses its records so far, but not those that follow: the checkpoints
    that follow are complete, too.
    """
    path = Path(metrics.name)
    with suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), os.fstat(metrics.fileno())):
            return metrics
    logger.warning("%s: removed or replaced during the run; the records before this are not in it", path)
    metrics.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8")


def _remove_records_after(path: Path, iteration: int, evaluation_due: bool) -> None:
    kept, damaged = [], []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            repeated = evaluation_due and record["kind"] == "evaluation" and record["iteration"] == iteration
            if record["iteration"] <= iteration and not repeated:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            if line.strip() and number < len(lines):  # without a line end: cut off by a kill
                damaged.append(number)
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (" ..." if len(damaged) > 5 else "")
        logger.warning("%s: damaged records are removed (line %s)", path, shown)
    with atomic_write(path) as stream:
        stream.writelines(kept)


def _unused_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return name


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

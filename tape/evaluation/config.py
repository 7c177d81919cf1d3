"""Configuration of evaluation and inference. Imports no torch, so that errors in options show at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tape.errors import ConfigError
from tape.io.records import RecordOptions
from tape.metrics.bootstrap import Bootstrap
from tape.runtime.process import ProcessConfig
from tape.tables.options import TableOptions
from tape.tasks import TASK_TYPE_TRAITS, TaskType

LENGTH_POLICIES = ("error", "crop", "window")


@dataclass(frozen=True)
class InferenceConfig:
    """How to run a model over proteins without gradients. Only ``precision`` changes the numbers.

    Attributes:
        batch_size: proteins per forward pass; None: the default of the task type.
        num_workers: processes that read data; see :func:`tape.datasets.loading.worker_count`.
        precision: fp32, fp16 or bf16; auto until the command has chosen one.
        max_tokens: maximum tokens per forward pass, padding included; None: no limit.

    Raises:
        ConfigError: ``batch_size`` is below 1.
    """

    batch_size: int | None = None
    num_workers: int = 0
    precision: str = "fp32"
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"--batch_size must be at least 1, not {self.batch_size}")

    def batch_size_for(self, task_type: TaskType) -> int:
        """Proteins per forward pass of a model for this task type."""
        return TASK_TYPE_TRAITS[task_type].batch_size if self.batch_size is None else self.batch_size


@dataclass(frozen=True)
class ModelSource:
    """A trained model.

    Attributes:
        model_type: name of the model type, as registered for the task.
        from_pretrained: model directory, run directory (its best saved epoch), published name or URL.
        tokenizer: name of the vocabulary.
        verify: compare the model's files with their checksums.
    """

    model_type: str
    from_pretrained: str
    tokenizer: str = "iupac"
    verify: bool = True


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation of a finetuned model on one split (``tape-eval``).

    Attributes:
        task: a registered task.
        model: the model to evaluate.
        data_dir: directory with one folder per task.
        split: name of the split.
        output_dir: directory for the results; None: beside the model.
        metrics: names of the metrics to return; empty: all metrics of the task.
        length: what to do with proteins longer than the model's position table: error, crop or window.
        records: columns of the sequence and the id.
        table: a user's own table, instead of ``data_dir``.
        inference: batches, workers and precision.
        bootstrap: resampling for the metrics' intervals; None: no intervals.
        groups: table of groups of proteins that are resampled as wholes; None: the one beside the split, if any.
        leakage: table of ``tape-leakage`` for metrics in bins of identity; None: the one beside the split, if any.
        process: device and logging.
    """

    task: str
    model: ModelSource
    data_dir: str = "./data"
    split: str = "test"
    output_dir: Path | None = None
    metrics: tuple[str, ...] = ()
    length: str = "error"
    records: RecordOptions = RecordOptions()
    table: TableOptions | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    bootstrap: Bootstrap | None = None
    groups: Path | None = None
    leakage: Path | None = None
    process: ProcessConfig = field(default_factory=ProcessConfig)

"""Configuration of finetuning. Imports no torch, so that errors in options show at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tape.errors import ConfigError, quoted
from tape.evaluation.config import EvalConfig, InferenceConfig, ModelSource
from tape.io.records import RecordOptions
from tape.io.run_layout import SEED_PREFIX
from tape.metrics.bootstrap import Bootstrap
from tape.runtime.process import ProcessConfig
from tape.tables.options import TableOptions
from tape.tasks import TASK_TYPE_TRAITS, TaskType

from .best_epoch import LOSS

IMPROVEMENT = "improvement"
BALANCED = "balanced"


@dataclass(frozen=True)
class AdamWConfig:
    """Optimizer and learning-rate schedule.

    Attributes:
        learning_rate: peak learning rate.
        weight_decay: weight decay of matrices; see :func:`tape.finetuning.optimizer.parameter_groups`.
        warmup_steps: optimizer steps; None: see :func:`tape.finetuning.optimizer.default_warmup_steps`.
        max_grad_norm: gradients are clipped to this norm over all parameters; 0 or less: no clipping.
        head_learning_rate: peak learning rate of the parameters outside the encoder; None: the same.

    Raises:
        ConfigError: a value out of range.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_steps: int | None = None
    max_grad_norm: float = 1.0
    head_learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"--{name} must be a number of at least 0, not {value}")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ConfigError(f"--warmup_steps must be at least 0, not {self.warmup_steps}")
        if math.isnan(self.max_grad_norm):
            raise ConfigError("--max_grad_norm must be a number (0 or less: no clipping), not nan")


@dataclass(frozen=True)
class LoopConfig:
    """The training loop: batches, epochs, validation and saving.

    Attributes:
        batch_size: proteins per optimizer step, over all ranks and accumulation steps; None: the default of the task
            type.
        num_train_epochs: epochs of the complete run, including those before a resume.
        gradient_accumulation_steps: micro-batches per rank and optimizer step.
        num_log_iter: optimizer steps between log lines.
        eval_freq: epochs between validations; 0 or less: no validation.
        save_freq: epochs between saved models, or "improvement": save whenever an epoch is the best so far. With a
            number, the last epoch is saved too, also after early stopping.
        patience: stop after this many epochs without a better one; -1: no early stopping.
        metric_for_best_model: validation metric that the best epoch is chosen by; see
            :mod:`tape.finetuning.best_epoch`.
        seed: seed of the order of the proteins, of masks and of dropout.
        num_workers: processes that read data; see :func:`tape.datasets.loading.worker_count`.
        precision: fp32, fp16 or bf16; auto until the command has chosen one.
        max_tokens: maximum tokens per forward pass, padding included; larger micro-batches are divided. None: no limit.
        optimizer: optimizer and learning-rate schedule.

    Raises:
        ConfigError: a value out of range, or values that contradict each other.
    """

    batch_size: int | None = None
    num_train_epochs: int = 10
    gradient_accumulation_steps: int = 1
    num_log_iter: int = 20
    eval_freq: int = 1
    save_freq: int | str = 1
    patience: int = -1
    metric_for_best_model: str = LOSS
    seed: int = 42
    num_workers: int = 8
    precision: str = "fp32"
    max_tokens: int | None = None
    optimizer: AdamWConfig = field(default_factory=AdamWConfig)

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_train_epochs", "gradient_accumulation_steps", "num_log_iter"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}")
        if not 0 <= self.seed < 2**63:  # what torch takes
            raise ConfigError(f"--seed must not be negative or above {2**63 - 1}, but is {self.seed}")
        if isinstance(self.save_freq, str) and self.save_freq != IMPROVEMENT:
            raise ConfigError(f"--save_freq must be a number of epochs or 'improvement', not {quoted(self.save_freq)}")
        if isinstance(self.save_freq, int) and self.save_freq < 1:
            raise ConfigError(f"--save_freq must be at least 1, not {self.save_freq}")
        needs = {
            "--save_freq improvement": self.save_freq == IMPROVEMENT,
            "--patience": self.patience > 0,
            f"--metric_for_best_model {self.metric_for_best_model}": self.metric_for_best_model != LOSS,
        }
        if any(needs.values()) and not 0 < self.eval_freq <= self.num_train_epochs:
            named = " and ".join(name for name, is_given in needs.items() if is_given)
            raise ConfigError(
                f"without validation, {named} can have no effect: give --eval_freq 1 or more, and at most the number of"
                f" epochs, {self.num_train_epochs}"
            )
        if self.batch_size is not None:
            self._check_accumulation(self.batch_size)

    def batch_size_for(self, task_type: TaskType) -> int:
        """Proteins per optimizer step of a task of this type.

        Raises:
            ConfigError: there are more accumulation steps than proteins in the default batch of the task type.
        """
        if self.batch_size is not None:
            return self.batch_size
        batch_size = TASK_TYPE_TRAITS[task_type].batch_size
        self._check_accumulation(batch_size)
        return batch_size

    def is_validated(self, epoch: int) -> bool:
        """Whether a validation follows this epoch, which is counted from 0."""
        return self.eval_freq > 0 and (epoch + 1) % self.eval_freq == 0

    def validation_for(self, task_type: TaskType, world_size: int) -> InferenceConfig:
        """A validation on so many ranks, in batches as large as those of training."""
        batch_size = -(-self.batch_size_for(task_type) // (self.gradient_accumulation_steps * world_size))
        return InferenceConfig(batch_size, self.num_workers, self.precision, self.max_tokens)

    def _check_accumulation(self, batch_size: int) -> None:
        if batch_size < self.gradient_accumulation_steps:
            raise ConfigError(
                f"--batch_size {batch_size} can't be divided into"
                f" --gradient_accumulation_steps {self.gradient_accumulation_steps}"
            )


@dataclass(frozen=True)
class FinetuneDataConfig:
    """The data of a run.

    Attributes:
        data_dir: directory with one folder per task.
        tokenizer: name of the vocabulary.
        max_length: longer proteins are excluded from training (never from evaluation); None: no limit.
        max_train_samples: number of proteins to train on, drawn at random from those that are short enough; None: all.
        length: what to do with proteins longer than the model's position table: error, crop or window.
        records: columns of the sequence and the id.
        table: a user's own table, instead of ``data_dir``.

    Raises:
        ConfigError: a value out of range.
    """

    data_dir: str = "./data"
    tokenizer: str = "iupac"
    max_length: int | None = None
    length: str = "error"
    records: RecordOptions = RecordOptions()
    table: TableOptions | None = None
    max_train_samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_length", "max_train_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class ModelConfig:
    """The model to train.

    Attributes:
        model_type: name of the model type, as registered for the task.
        tokenizer: name of the vocabulary.
        config_file: JSON configuration of a model with new weights; None: the defaults of its class.
        from_pretrained: model or run directory, published name or URL with the initial weights; None: new weights.
        overrides: configuration values that replace those of the file, directory or defaults.
        freeze: train the head alone.
        lora: rank of low-rank updates of the encoder's matrices; None: no such updates.
        verify: compare the files in ``from_pretrained`` with their checksums.
    """

    model_type: str
    tokenizer: str = "iupac"
    config_file: Path | None = None
    from_pretrained: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    freeze: bool = False
    lora: int | None = None
    verify: bool = True


@dataclass(frozen=True)
class OutputConfig:
    """Where a run is stored.

    Attributes:
        output_dir: directory with one directory per run.
        log_dir: directory of the TensorBoard files.
        time_or_name: suffix of the run directory's name; "time": the current time.
        exp_name: complete name of the run directory.
        overwrite: replace a run of the same name; of a resumed run, drop the epochs after the given one.
        arguments: all options by name, as JSON values, for ``args.json``.
    """

    output_dir: str = "./results"
    log_dir: str = "./logs"
    time_or_name: str = "time"
    exp_name: str | None = None
    overwrite: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResumeConfig:
    """A resumed run.

    Attributes:
        changes: a line for each option that differs from the interrupted run's.
        allow_other_samples: allow other training or validation data than the interrupted run's.
    """

    changes: tuple[str, ...] = ()
    allow_other_samples: bool = False


@dataclass(frozen=True)
class FinetuneConfig:
    """Training of a model on a task (``tape-train``).

    Attributes:
        task: a registered task.
        model: the model and its initial weights.
        data: data sets.
        loop: batches, epochs, validation, saving and the optimizer.
        output: directories and names.
        resume: set if ``model.from_pretrained`` is a run, or one of its saved epochs, to resume.
        seeds: number of runs with consecutive seeds; None: a single run.
        eval_splits: splits on which the best saved epoch is evaluated after training.
        force_save: save the untrained model in this directory instead of training.
        process: device and logging.
        notices: lines to log at the start.
        class_weights: ``balanced``: classes are weighted in the loss; see :mod:`tape.finetuning.class_weights`.
        standardize: values of a built-in task are standardized; a table has the option in ``data.table``.
    """

    task: str
    model: ModelConfig
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    resume: ResumeConfig | None = None
    seeds: int | None = None
    eval_splits: tuple[str, ...] = ()
    force_save: Path | None = None
    process: ProcessConfig = field(default_factory=ProcessConfig)
    notices: tuple[str, ...] = ()
    class_weights: str | None = None
    standardize: bool = False

    def __post_init__(self) -> None:
        if self.resume is not None and self.seeds is not None:
            raise ConfigError("--resume_from_checkpoint resumes a single run; give it without --seeds, seed by seed")
        if self.resume is not None and self.model.from_pretrained is None:
            raise ConfigError("--resume_from_checkpoint needs --from_pretrained, the run or saved epoch to resume")
        if self.force_save is not None and self.seeds is not None:
            raise ConfigError("--force_save saves one model and trains none; give it without --seeds")
        if self.force_save is not None and self.class_weights is not None:
            raise ConfigError("--class_weights are those of the training split, which --force_save does not read")
        if self.force_save is not None and self.standardize:
            raise ConfigError("--standardize needs the training split, which --force_save does not read")

    def with_seed(self, seed: int, name: str) -> FinetuneConfig:
        """The run with one of the ``--seeds``, in ``NAME/seed_SEED``."""
        exp_name = f"{name}/{SEED_PREFIX}{seed}"
        arguments = {**self.output.arguments, "seed": seed, "seeds": None, "exp_name": exp_name}
        return replace(
            self,
            loop=replace(self.loop, seed=seed),
            output=replace(self.output, exp_name=exp_name, arguments=arguments),
            seeds=None,
        )

    def evaluation_of(self, run: Path, split: str) -> EvalConfig:
        """Evaluation of the best saved epoch of a run on a split, with the run's settings."""
        loop = self.loop
        return EvalConfig(
            task=self.task,
            model=ModelSource(self.model.model_type, str(run), self.model.tokenizer, self.model.verify),
            data_dir=self.data.data_dir,
            split=split,
            length=self.data.length,
            records=self.data.records,
            table=self.data.table,
            inference=InferenceConfig(loop.batch_size, loop.num_workers, loop.precision, loop.max_tokens),
            bootstrap=Bootstrap(seed=loop.seed),
            process=self.process,
        )


def check_class_weights(task: str, task_type: TaskType) -> None:
    """Check that a task has classes, which ``--class_weights`` weights.

    Raises:
        ConfigError: it has none.
    """
    if task_type not in (TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_CLASS):
        raise ConfigError(f"--class_weights is for tasks with a class per protein or residue, not for {task}")


def check_standardize(task: str, task_type: TaskType) -> None:
    """Check that a task has values, which ``--standardize`` standardizes.

    Raises:
        ConfigError: it has none.
    """
    if task_type is not TaskType.VALUE:
        raise ConfigError(f"--standardize is for tasks with a value per protein, not for {task}")

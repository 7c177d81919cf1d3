"""Settings of a training run, without torch: they are checked before anything heavy is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tape.errors import ConfigError

IMPROVEMENT = "improvement"


@dataclass(frozen=True)
class AdamWConfig:
    """Settings of optimizer and schedule.

    Attributes:
        learning_rate: peak.
        head_learning_rate: peak of the parameters beside the encoder; None: the same.
        weight_decay: of matrices; see :func:`tape.finetuning.optimizer.parameter_groups`.
        warmup_steps: optimizer steps; None means :func:`tape.finetuning.optimizer.default_warmup_steps`.
        max_grad_norm: gradients are clipped to this norm over all parameters; 0 or less: never.

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
                raise ConfigError(f"--{name} must be a number that is not negative, not {value}")
        if math.isnan(self.max_grad_norm):
            raise ConfigError("--max_grad_norm must be a number (0 or less: no limit), not nan")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run.

    Attributes:
        batch_size: proteins an optimizer step, over all ranks and accumulation steps.
        num_train_epochs: of the whole run, those before a resumption included.
        gradient_accumulation_steps: parts into which a rank's share of a step is divided.
        max_tokens: of one forward pass, padding counted; a step is divided into as many as that takes. None: no limit.
        num_log_iter: optimizer steps between two lines of the log.
        eval_freq: epochs between validations; 0 or less: never.
        save_freq: epochs between saved models, or "improvement": whenever the validation loss is the lowest so far.
            With a number the run's last epoch is saved too, also where patience ends it.
        patience: stop after so many epochs without a lower validation loss; -1: never.
        seed: of order, masks, dropout.
        num_workers: worker processes that read data; see :func:`tape.datasets.loading.worker_count`.
        precision: fp32, fp16 or bf16.
        optimizer: settings of the optimizer.

    Raises:
        ConfigError: a value out of range, or values that contradict each other.
    """

    batch_size: int
    num_train_epochs: int = 10
    gradient_accumulation_steps: int = 1
    num_log_iter: int = 20
    eval_freq: int = 1
    save_freq: int | str = 1
    patience: int = -1
    seed: int = 42
    num_workers: int = 8
    precision: str = "fp32"
    max_tokens: int | None = None
    optimizer: AdamWConfig = field(default_factory=AdamWConfig)

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_train_epochs", "gradient_accumulation_steps", "num_log_iter"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if isinstance(self.save_freq, str) and self.save_freq != IMPROVEMENT:
            raise ConfigError(f"--save_freq must be a number of epochs or 'improvement', not {self.save_freq!r}")
        if isinstance(self.save_freq, int) and self.save_freq < 1:
            raise ConfigError(f"--save_freq must be at least 1, not {self.save_freq}")
        if self.eval_freq <= 0 and (self.save_freq == IMPROVEMENT or self.patience > 0):
            raise ConfigError("--save_freq improvement and --patience need validation: give --eval_freq 1 or more")
        if self.batch_size < self.gradient_accumulation_steps:
            raise ConfigError(
                f"--batch_size {self.batch_size} can't be divided into"
                f" --gradient_accumulation_steps {self.gradient_accumulation_steps}"
            )

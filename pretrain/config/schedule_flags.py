"""Flags of the run's length and learning rate, counted in iterations or in samples: Megatron's two forms."""

from __future__ import annotations

import argparse

from pretrain.data.batch_schedule import BatchConfig
from pretrain.optim.lr_schedule import DECAY_STYLES, SampleScheduleConfig, Schedule, ScheduleConfig
from tape.errors import ConfigError

from .parser import not_negative, positive

_LENGTHS = ("train", "lr-decay", "lr-warmup")


def add_schedule_flags(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
    group = parser.add_argument_group("learning rate and length", "in iterations or in samples (rows), not in both")
    group.add_argument("--lr", type=float, default=1e-4, help="peak learning rate")
    group.add_argument("--min-lr", type=float, default=0.0, help="where the decay ends")
    group.add_argument("--lr-decay-style", choices=DECAY_STYLES, default="linear", help="after the warm-up")
    group.add_argument("--train-iters", type=positive, help="iterations of the whole run")
    group.add_argument(
        "--train-samples", type=positive, help="rows of the whole run; a last part of a batch is left out"
    )
    group.add_argument("--lr-decay-iters", type=positive, help="--train-iters when not given")
    group.add_argument("--lr-decay-samples", type=positive, help="--train-samples when not given")
    group.add_argument("--lr-warmup-fraction", type=float, help="linear warm-up, as part of the decay's length")
    group.add_argument("--lr-warmup-iters", type=not_negative, default=0, help="the same in iterations")
    group.add_argument("--lr-warmup-samples", type=not_negative, default=0, help="the same in samples")


def run_length(options: argparse.Namespace, batch: BatchConfig) -> tuple[int, Schedule]:
    """Iterations of the run and its learning rates.

    Raises:
        ConfigError: both forms or none are given, or the numbers don't fit together.
    """
    if (options.train_iters is None) == (options.train_samples is None):
        raise ConfigError("give the length of the run as --train-iters or as --train-samples: one of the two")
    unit, other = ("iters", "samples") if options.train_samples is None else ("samples", "iters")
    for name in _LENGTHS:
        if _given(options, name, other):
            raise ConfigError(f"--{name}-{other} does not go with --train-{unit}; give --{name}-{unit}")
    train = _given(options, "train", unit)
    assert train is not None
    decay = _given(options, "lr-decay", unit) or train
    warmup = _warmup(options, unit, decay)
    rates = (options.lr, options.min_lr, options.lr_decay_style)
    if unit == "iters":
        return train, ScheduleConfig(*rates, decay, warmup)
    iterations = batch.iterations(train)
    if not iterations:
        raise ConfigError(f"--train-samples {train} is less than one batch of {batch.batch_size(0)}")
    return iterations, SampleScheduleConfig(*rates, decay, warmup, batch.consumed_samples)


def _warmup(options: argparse.Namespace, unit: str, decay: int) -> float:
    fraction, length = options.lr_warmup_fraction, _given(options, "lr-warmup", unit) or 0
    if fraction is None:
        return length
    if length:
        raise ConfigError(f"--lr-warmup-fraction and --lr-warmup-{unit} exclude each other")
    return float(fraction * decay)


def _given(options: argparse.Namespace, name: str, unit: str) -> int | None:
    value = getattr(options, f"{name.replace('-', '_')}_{unit}")
    return int(value) if value else None

"""The flags of the run length and the learning-rate schedule, in iterations or in samples as in Megatron-LM."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pretrain.data.batch_schedule import BatchConfig
from pretrain.optim.lr_schedule import (
    DECAY_STYLES,
    WSD_DECAY_STYLES,
    SampleScheduleConfig,
    Schedule,
    ScheduleConfig,
    WSDDecay,
)
from tape.cli.types import non_negative_int, positive_int
from tape.errors import ConfigError

_LENGTHS = ("train", "lr-decay", "lr-warmup", "lr-wsd-decay")


def add_schedule_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a parser."""
    group = parser.add_argument_group(
        "learning rate and run length", "given in iterations or in samples (rows), not in both"
    )
    group.add_argument("--lr", type=float, default=1e-4, help="peak learning rate")
    group.add_argument("--min-lr", type=float, default=0.0, help="learning rate at the end of the decay")
    group.add_argument("--lr-decay-style", choices=DECAY_STYLES, default="linear", help="decay after the warm-up")
    group.add_argument(
        "--lr-wsd-decay-style", choices=WSD_DECAY_STYLES, help="decay of --lr-decay-style WSD (default: exponential)"
    )
    group.add_argument("--train-iters", type=non_negative_int, help="length of the run in iterations")
    group.add_argument(
        "--train-samples", type=positive_int, help="length of the run in rows; an incomplete last batch is dropped"
    )
    group.add_argument("--lr-decay-iters", type=positive_int, help="length of the decay (default: --train-iters)")
    group.add_argument("--lr-decay-samples", type=positive_int, help="length of the decay (default: --train-samples)")
    group.add_argument(
        "--lr-wsd-decay-iters",
        type=positive_int,
        help="length of the decay of --lr-decay-style WSD in iterations, the last ones of --lr-decay-iters",
    )
    group.add_argument("--lr-wsd-decay-samples", type=positive_int, help="the same in samples")
    group.add_argument(
        "--lr-warmup-fraction", type=float, help="length of the linear warm-up as a fraction of the decay"
    )
    group.add_argument(
        "--lr-warmup-iters", type=non_negative_int, default=0, help="length of the linear warm-up in iterations"
    )
    group.add_argument(
        "--lr-warmup-samples", type=non_negative_int, default=0, help="length of the linear warm-up in samples"
    )


def run_length(options: Mapping[str, Any], batch: BatchConfig) -> tuple[int, Schedule]:
    """The number of iterations and the learning-rate schedule.

    Args:
        options: the values of all flags by name, such as ``lr_decay_iters``.
        batch: batch sizes.

    Raises:
        ConfigError: if lengths are given in both units or in none, or contradict each other.
    """
    if (options["train_iters"] is None) == (options["train_samples"] is None):
        raise ConfigError("give the length of the run as either --train-iters or --train-samples")
    unit, other = ("iters", "samples") if options["train_samples"] is None else ("samples", "iters")
    for name in _LENGTHS:
        if _given(options, name, other):
            raise ConfigError(f"--{name}-{other} cannot be combined with --train-{unit}; give --{name}-{unit}")
    train = _given(options, "train", unit)
    if train is None:
        raise ConfigError("--train-iters 0 trains nothing; --skip-train evaluates the weights in --load")
    decay = _given(options, "lr-decay", unit) or train
    warmup = _warmup(options, unit, decay)
    wsd = _wsd_decay(options, unit)
    rates = (options["lr"], options["min_lr"], options["lr_decay_style"])
    if unit == "iters":
        return train, ScheduleConfig(*rates, decay, warmup, wsd)
    iterations = batch.iterations(train)
    if not iterations:
        raise ConfigError(f"--train-samples {train} is less than one global batch of {batch.batch_size(0)}")
    return iterations, SampleScheduleConfig(*rates, decay, warmup, batch.consumed_samples, wsd)


def _warmup(options: Mapping[str, Any], unit: str, decay: int) -> float:
    fraction, length = options["lr_warmup_fraction"], _given(options, "lr-warmup", unit) or 0
    if fraction is None:
        return length
    if length:
        raise ConfigError(f"--lr-warmup-fraction and --lr-warmup-{unit} are mutually exclusive")
    return float(fraction * decay)


def _wsd_decay(options: Mapping[str, Any], unit: str) -> WSDDecay | None:
    length, style = _given(options, "lr-wsd-decay", unit), options["lr_wsd_decay_style"]
    if length is None:
        if style is not None:
            raise ConfigError(f"--lr-wsd-decay-style {style} needs --lr-wsd-decay-{unit}")
        return None
    return WSDDecay(length, style or WSDDecay.style)


def _given(options: Mapping[str, Any], name: str, unit: str) -> int | None:
    value = options[f"{name.replace('-', '_')}_{unit}"]
    return int(value) if value else None

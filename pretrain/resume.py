"""How a run starts: from the beginning, or as a resume that continues the run that wrote the checkpoint.

A resume has the same samples, the same batches and the same schedule; changing them deliberately requires a flag.
pretrain.checkpointing compares the model. Every other option that differs is announced, except those that affect
neither numbers nor checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpointing import (
    CheckpointConfig,
    LatestCheckpoint,
    RunDescription,
    find_latest,
    find_readable,
    newest_iteration,
    read_metadata,
    refuse_save_in_other_format,
)
from pretrain.config.arguments import PretrainConfig
from pretrain.config.flags import make_parser
from pretrain.config.schedule_flags import run_length
from pretrain.data.corpus import Corpus, read_description
from pretrain.data.indexed_dataset import data_path
from pretrain.data.samples import Samples
from pretrain.parallel import ControlGroup
from tape.errors import CheckpointError
from tape.io.sampled_digest import sampled_digest
from tape.runtime.precision_choice import AUTO, choose_precision
from tape.tokenizers import TAPETokenizer

# Options that determine the rows of each step and their masks. Paths are not included, because a corpus may be moved.
_SAMPLE_OPTIONS = (
    "seed",
    "global_batch_size",
    "rampup_batch_size",
    "split",
    "seq_length",
    "mask_prob",
    "no_sep",
    "long_documents",
)
# Options on which the loss of an evaluation depends, with the corpora
_EVALUATION_OPTIONS = frozenset({"seed", "split", "seq_length", "mask_prob", "no_sep", "long_documents", "precision"})
_DIGESTS = ("digest", "sampled_digest")  # fields of a corpus that older checkpoints or corpora don't have
SCHEDULE_OPTIONS = (
    "lr",
    "min_lr",
    "lr_decay_style",
    "lr_decay_iters",
    "lr_decay_samples",
    "lr_warmup_fraction",
    "lr_warmup_iters",
    "lr_warmup_samples",
    "lr_wsd_decay_style",
    "lr_wsd_decay_iters",
    "lr_wsd_decay_samples",
)
# Options that may differ without a word, because no loss, weight or score depends on them. All others are announced.
SILENT_OPTIONS = frozenset(
    {
        "allow_other_samples",
        "async_save",
        "data_path",  # the corpora are compared by their content
        "distributed_timeout_minutes",
        "exit_duration_in_mins",
        "exit_interval",
        "finetune",  # as pretrained_checkpoint
        "hang_timeout_seconds",
        "keep_last",
        "load",
        "log_interval",
        "num_workers",
        "override_lr_scheduler",
        "peak_tflops",
        "pretrained_checkpoint",  # no part in a run that is resumed
        "resize_positions",  # the model is compared
        "save",
        "save_interval",
        "tensorboard_dir",
        "train_data_path",  # as data_path
        "use_checkpoint_lr_scheduler",
        "verify_data",
    }
)


@dataclass(frozen=True)
class RunStart:
    """How a run starts.

    Attributes:
        config: the configuration, with the checkpoint's learning-rate schedule if requested.
        description: the description of the run that its checkpoints contain.
        checkpoint: the checkpoint to resume from; None: from the beginning.
        changes: lines for the user: why this checkpoint, and each permitted difference from the run that wrote it.
    """

    config: PretrainConfig
    description: RunDescription
    checkpoint: Path | None
    changes: tuple[str, ...]


def plan_start(config: PretrainConfig, samples: Samples, control_group: ControlGroup, device: torch.device) -> RunStart:
    """Describe the run, and compare it with the checkpoint in ``--load``, if any; called by all ranks together.

    Args:
        config: the run's configuration.
        samples: the training samples.
        control_group: all ranks.
        device: this rank's device, for ``--precision auto``.

    Raises:
        CheckpointError: if there is no checkpoint where there should be one, or samples or schedule differ, and no flag
            allows it.
    """
    options, described = config.checkpoint, describe_samples(samples, config.given, config.batch.global_batch)
    latest = choose_checkpoint(options, control_group, has_model=config.pretrained is not None)
    path, metadata = latest.path, {} if latest.path is None else read_metadata(latest.path)
    config, notices = with_precision(config, metadata.get("arguments"), control_group, device)
    changes = [*latest.notices, *notices]
    if path is not None:
        changes += option_changes(metadata["arguments"], config.given)
        changes += check_samples(path, metadata.get("samples", {}), described, options.allow_other_samples)
        if options.schedule_of != "checkpoint":
            changes += check_schedule(path, metadata["arguments"], config.given, options.schedule_of == "start")
        else:
            given = {**config.given, **schedule_options(metadata["arguments"])}
            config = replace(config, given=given, schedule=run_length(given, config.batch)[1])
    tokenizer = TAPETokenizer()
    description = RunDescription(
        model_config=config.model.to_dict(),
        arguments=config.given,
        vocabulary=tokenizer.tokens,
        vocabulary_fingerprint=tokenizer.fingerprint,
        samples=described,
        initial_weights=_initial_weights(config, metadata),
    )
    if path is not None:
        config = replace(config, pretrained=None)
    return RunStart(config, description, path, tuple(changes))


def _initial_weights(config: PretrainConfig, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The model whose weights the run started from, which its checkpoints pass on."""
    if metadata:
        return dict(metadata.get("initial_weights", {}))  # absent in checkpoints of earlier versions
    return {} if config.pretrained is None else config.pretrained.describe()


def with_precision(
    config: PretrainConfig, saved: Mapping[str, Any] | None, control_group: ControlGroup, device: torch.device
) -> tuple[PretrainConfig, list[str]]:
    """The configuration with the choice of ``--precision auto``, which the run's checkpoints record.

    Args:
        config: the run's configuration.
        saved: the options of the checkpoint's run, whose precision holds; None: a run from the beginning.
        control_group: all ranks; they use the choice of rank 0.
        device: this rank's device.

    Returns:
        The configuration, and a line for the user if there was a choice.
    """
    if config.precision.name != AUTO:
        return config, []
    if saved is None:
        name, line = control_group.gather(choose_precision(device.type))[0]
    else:
        name = _with_one_precision(saved)["precision"]
        line = f"--precision auto: {name}, as before in this run"
    given = {**config.given, "precision": name}
    return replace(config, given=given, precision=replace(config.precision, name=name)), [line]


def _with_one_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with ``precision``, for which earlier versions had ``bf16`` and ``fp16``."""
    switches = ("bf16", "fp16")
    switched_on = next((name for name in switches if options.get(name)), "fp32")
    others = {name: value for name, value in options.items() if name not in switches}
    return {"precision": switched_on, **others}


def choose_checkpoint(
    options: CheckpointConfig, control_group: ControlGroup, *, has_model: bool = False
) -> LatestCheckpoint:
    """The checkpoint in ``--load``; called by all ranks together.

    Args:
        options: where checkpoints are loaded and saved.
        control_group: all ranks.
        has_model: whether a run without a checkpoint starts from a model.

    Raises:
        CheckpointError: there is none, and ``--load`` is not the ``--save`` of this run, or it holds other weights; or
            none of them is complete; or ``--save`` holds checkpoints of another run.
    """
    notices = () if options.save is None or options.resumes_itself else _foreign_checkpoints(options.save, options.load)
    if options.load is None:
        return LatestCheckpoint(None, notices)
    latest = find_latest(options.load, control_group, has_model=has_model)
    if latest.path is None and not options.resumes_itself:
        state = "has no checkpoint" if Path(options.load).is_dir() else "does not exist"
        raise CheckpointError(
            f"--load {options.load}: {state}. A run starts from the beginning only without --load, or if --load and "
            f"--save are the same directory (--save is {options.save or 'not given'})"
        )
    return LatestCheckpoint(latest.path, (*latest.notices, *notices))


def _foreign_checkpoints(save: str, load: str | None) -> tuple[str, ...]:
    """A notice if ``--save`` has checkpoints that a run from one of them, named by ``--load``, will replace.

    Raises:
        CheckpointError: they are those of another run, or ``--save`` is of another format.
    """
    refuse_save_in_other_format(Path(save))
    newest = newest_iteration(save)
    if newest is None:
        return ()
    if load is not None and _is_inside(Path(load), Path(save)):
        return (
            f"WARNING: --save {save} holds checkpoints up to iteration {newest}; those after {load} are replaced when"
            " this run reaches their iterations",
        )
    if _holds_converted_weights(save):
        raise CheckpointError(
            f"--save {save}: holds weights that were converted for pretraining, which this run would replace; choose"
            " another --save"
        )
    raise CheckpointError(
        f"--save {save}: holds checkpoints of another run, up to iteration {newest}, which this run would replace."
        f" --load {save} continues that run; to begin another one, choose another --save, or remove them"
    )


def _is_inside(path: Path, directory: Path) -> bool:
    """Whether a directory contains a path, or a symbolic link of its name."""
    return directory.resolve() in (path.absolute().parent.resolve(), *path.resolve().parents)


def _holds_converted_weights(save: str) -> bool:
    """Whether the converter wrote the checkpoint in a directory (``--to pretraining``), which is not that of a run."""
    try:
        path = find_readable(save)
        return path is not None and read_metadata(path).get("weights_only") is True
    except CheckpointError:
        return False


def option_changes(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """A line if options differ from those of the checkpoint's run.

    Args:
        saved: the options of the checkpoint's run by name; an option that is missing there has its default.
        given: the options of this start.
    """
    compared = {*_SAMPLE_OPTIONS, *SCHEDULE_OPTIONS}  # by check_samples and check_schedule
    saved, given = _with_one_precision(saved), _with_one_precision(given)
    names = (saved.keys() | given.keys()) - compared - SILENT_OPTIONS
    return _difference_notice(saved, given, names)


def evaluation_changes(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """A line if options on which a loss depends differ from those of the run that wrote a checkpoint.

    Args:
        saved: the options of the run by name; empty: it is not known.
        given: the options of the evaluation.
    """
    return _difference_notice(_with_one_precision(saved), given, _EVALUATION_OPTIONS & saved.keys())


def _difference_notice(saved: Mapping[str, Any], given: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    parser, differences = make_parser(), []
    for name in sorted(names):
        old, new = (_as_json(options.get(name, parser.get_default(name))) for options in (saved, given))
        if old != new:
            differences.append(f"--{name.replace('_', '-')} was {old}, is {new}")
    return (
        [f"NOTICE: options differ from those of the checkpoint's run: {'; '.join(differences)}"] if differences else []
    )


def _as_json(value: Any) -> Any:
    """The value as it is read from a checkpoint: tuples are lists there."""
    return json.loads(json.dumps(value))


def describe_samples(samples: Samples, given: Mapping[str, Any], global_batch: int) -> dict[str, Any]:
    """Everything that determines the samples of a run; stored in its checkpoints.

    Args:
        samples: the training samples.
        given: the run's options by name.
        global_batch: the global batch size, which ``given`` may leave to the default.
    """
    options = {name: given[name] for name in _SAMPLE_OPTIONS if name in given}
    options["global_batch_size"] = global_batch
    options["shares"] = list(samples.shares)  # rows per corpus in a blend
    return {**options, "corpora": [_describe_corpus(part.corpus) for part in samples.parts]}


def _describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """Counts, digests of the source files and of ``.bin`` if known, and one of samples of ``.bin``; independent of the
    corpus's path."""
    description = read_description(corpus.prefix)
    hashes = "" if description is None else " ".join(source.sha256 for source in description.sources)
    sources = hashlib.sha256(hashes.encode()).hexdigest()[:16] if hashes else None
    digest = None if description is None else description.sha256.get("bin")
    return {
        "proteins": len(corpus),
        "residues": int(corpus.dataset.tokens),
        "sources": sources,
        "digest": None if digest is None else digest[:16],
        "sampled_digest": sampled_digest(data_path(corpus.prefix)),
    }


def check_samples(path: object, saved: Mapping[str, Any], wanted: Mapping[str, Any], allowed: bool) -> list[str]:
    """Compare the samples with those of the checkpoint's run.

    Args:
        path: the checkpoint, for messages.
        saved: the checkpoint's description; empty if written by an earlier version without one.
        wanted: the description of this start.
        allowed: whether other samples are allowed.

    Returns:
        Lines for the user.

    Raises:
        CheckpointError: if they differ and are not allowed to; names both values of each difference.
    """
    differences = _differences(_with_known_digests(saved, wanted), _with_known_digests(wanted, saved))
    if not differences:
        return []
    if allowed:
        return [f"WARNING: from here on, the samples differ from those before: {differences}"]
    raise CheckpointError(
        f"{path}: its run used other samples: {differences}. Use its values, or give --allow-other-samples"
    )


def _with_known_digests(samples: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """``samples`` without the digests of corpora which are unknown in ``others``, as in older checkpoints."""
    corpora, theirs = samples.get("corpora", []), others.get("corpora", [])
    if len(corpora) != len(theirs):
        return dict(samples)
    known = [
        {**corpus, **{name: corpus.get(name) if other.get(name) else None for name in _DIGESTS}}
        for corpus, other in zip(corpora, theirs, strict=True)
    ]
    return {**samples, "corpora": known} if corpora else dict(samples)


def schedule_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the learning-rate schedule with their defaults; runs with equal ones have equal schedules."""
    options = {name: given[name] for name in SCHEDULE_OPTIONS if name in given}
    for unit in ("iters", "samples"):
        length = given.get(f"train_{unit}")
        if f"lr_decay_{unit}" in options and options[f"lr_decay_{unit}"] is None and length is not None:
            options[f"lr_decay_{unit}"] = length
    return options


def check_schedule(path: object, saved: Mapping[str, Any], given: Mapping[str, Any], override: bool) -> list[str]:
    """Compare the learning-rate schedule with the checkpoint's, as Megatron-LM does.

    Args:
        path: the checkpoint, for messages.
        saved, given: options by name, of the checkpoint and of this start.
        override: whether to use the schedule of this start.

    Raises:
        CheckpointError: if they differ and no flag selects one; names both values of each difference.
    """
    differences = _differences(schedule_options(saved), schedule_options(given))
    if not differences:
        return []
    if override:
        return [f"from here on, the learning-rate schedule differs from the one before: {differences}"]
    raise CheckpointError(
        f"{path}: its run has another learning-rate schedule: {differences}. Give --override-lr-scheduler to use the "
        "values given now, or --use-checkpoint-lr-scheduler to keep the run's (--train-iters is also the default of "
        "--lr-decay-iters)"
    )


def _differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('_', '-')} is {saved[name]} in the checkpoint, {wanted[name]} now"
        for name in wanted
        if name in saved and saved[name] != wanted[name]
    )

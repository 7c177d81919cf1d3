"""Whether a start continues the run that wrote a checkpoint: the same rows in the same batches, the same schedule.

The model is checked by pretrain.checkpointing. What is compared here is what the curve depends on beyond it; whoever
changes it on purpose says so with a flag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pretrain.data.corpus import Corpus, read_description
from pretrain.data.samples import Samples
from tape.errors import CheckpointError

# Options that decide which rows a step sees, and with which masks. Paths are not among them: a corpus may move.
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
SCHEDULE_OPTIONS = (
    "lr",
    "min_lr",
    "lr_decay_style",
    "lr_decay_iters",
    "lr_decay_samples",
    "lr_warmup_fraction",
    "lr_warmup_iters",
    "lr_warmup_samples",
)


def describe_samples(samples: Samples, given: Mapping[str, Any], global_batch: int) -> dict[str, Any]:
    """What the rows of a run are a function of, for its checkpoints.

    Args:
        samples: to train on.
        given: the run's options by name.
        global_batch: rows of a step, where ``given`` leaves it open.
    """
    options = {name: given[name] for name in _SAMPLE_OPTIONS if name in given}
    options["global_batch_size"] = global_batch
    options["shares"] = list(samples.shares)  # of the corpora, in a blend
    return {**options, "corpora": [_describe_corpus(part.corpus) for part in samples.parts]}


def _describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """Counts, and a digest of the sources where the corpus knows them; the same wherever it lies."""
    description = read_description(corpus.prefix)
    hashes = "" if description is None else " ".join(source.sha256 for source in description.sources)
    sources = hashlib.sha256(hashes.encode()).hexdigest()[:16] if hashes else None
    return {"proteins": len(corpus), "residues": int(corpus.dataset.tokens), "sources": sources}


def check_samples(path: object, saved: Mapping[str, Any], wanted: Mapping[str, Any], allowed: bool) -> list[str]:
    """Compare with what a checkpoint's run has seen.

    Args:
        path: of the checkpoint, for the message.
        saved: its description; empty for one that has none (of an earlier version).
        wanted: of this start.
        allowed: whether other rows are meant.

    Returns:
        Lines for the user.

    Raises:
        CheckpointError: they differ and are not allowed to. Names both values of each difference.
    """
    differences = _differences(saved, wanted)
    if not differences:
        return []
    if allowed:
        return [f"WARNING: other samples than before from here on: {differences}"]
    raise CheckpointError(
        f"{path}: its run saw other samples: {differences}. Start with its values, or say --allow-other-samples"
    )


def schedule_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The learning rate's options with what they default to; two runs with equal ones have equal rates."""
    options = {name: given[name] for name in SCHEDULE_OPTIONS if name in given}
    for unit in ("iters", "samples"):
        length = given.get(f"train_{unit}")
        if f"lr_decay_{unit}" in options and options[f"lr_decay_{unit}"] is None and length is not None:
            options[f"lr_decay_{unit}"] = length
    return options


def check_schedule(path: object, saved: Mapping[str, Any], given: Mapping[str, Any], override: bool) -> list[str]:
    """Compare the learning rate's options with a checkpoint's; as Megatron does.

    Args:
        path: of the checkpoint, for the message.
        saved, given: options by name, the checkpoint's and this start's.
        override: whether this start's are meant.

    Raises:
        CheckpointError: they differ and no flag says which holds. Names both values of each difference.
    """
    differences = _differences(schedule_options(saved), schedule_options(given))
    if not differences:
        return []
    if override:
        return [f"another learning rate than before from here on: {differences}"]
    raise CheckpointError(
        f"{path}: its run has another learning rate: {differences}. Say --override-lr-scheduler to take this start's "
        "values, or --use-checkpoint-lr-scheduler to keep the run's (--train-iters is also the default of "
        "--lr-decay-iters)"
    )


def _differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('_', '-')} is {saved[name]} there, {wanted[name]} here"
        for name in wanted
        if name in saved and saved[name] != wanted[name]
    )

"""Checks that the rank files of a classic Megatron-LM checkpoint belong together and are in the right directories.

All ranks of a run save at the same iteration with the same arguments, and Megatron-LM shards every tensor evenly. A
file of another run, iteration or rank differs in one of these; otherwise its weights would be taken for the missing
ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from converter.mapping.tables import MEGATRON_HEAD_BIAS, MEGATRON_HEAD_WORDS, MEGATRON_WORDS
from tape.errors import CheckpointError, quoted

from .rank_file import RankFile

Stages = Sequence[Sequence[RankFile]]

# Arguments that determine the model or identify the run, and so are the same on all ranks
_COMMON_ARGUMENTS = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "max_position_embeddings",
    "padded_vocab_size",
    "model_parallel_size",
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "layernorm_epsilon",
    "bias_gelu_fusion",
    "openai_gelu",
    "params_dtype",
    "seed",
    "lr",
    "train_iters",
    "global_batch_size",
    "consumed_train_samples",
)


def check_ranks(path: Path, stages: Stages) -> None:
    """Check the consistency of all ranks.

    Args:
        path: the checkpoint, for messages.
        stages: the ranks' files as ``stages[pipeline][tensor]``, by the numbers in their directory names.

    Raises:
        CheckpointError: names the file that is inconsistent, and in what.
    """
    _check_common(stages)
    _check_number(path, stages)
    _check_places(stages)
    for stage in stages:
        _check_keys(stage)
        _check_shapes(stage)
    _check_head(stages)


def _check_common(stages: Stages) -> None:
    first = stages[0][0]
    expected = dict(_common(first))
    for rank in (rank for stage in stages for rank in stage):
        for name, value in _common(rank):
            if name in expected and str(value) != str(expected[name]):
                raise CheckpointError(
                    f"{rank.path}: has {name} {value}, but {first.path} has {expected[name]}: they are from different"
                    " checkpoints"
                )


def _common(rank: RankFile) -> Iterator[tuple[str, Any]]:
    """Values that are the same in all files, by name."""
    yield "checkpoint_version", rank.version
    if rank.iteration is not None:
        yield "iteration", rank.iteration
    for name in _COMMON_ARGUMENTS:
        if name in rank.arguments:
            yield name, rank.arguments[name]


def _check_number(path: Path, stages: Stages) -> None:
    """Check that the number of files agrees with the arguments."""
    arguments = stages[0][0].arguments
    tensor = arguments.get("tensor_model_parallel_size", arguments.get("model_parallel_size"))
    for name, declared, found in (
        ("tensor", tensor, len(stages[0])),
        ("pipeline", arguments.get("pipeline_model_parallel_size"), len(stages)),
    ):
        if declared is not None and (not isinstance(declared, int) or declared != found):
            raise CheckpointError(
                f"{path}: written by {quoted(declared)} {name}-parallel ranks, but files of {found} were found"
            )


def _check_places(stages: Stages) -> None:
    """Check that every file is in the directory of the rank that wrote it.

    Global ranks count tensor-parallel ranks first, then data-parallel ranks, then pipeline stages. A tool that reshards
    a checkpoint runs as one process, so all its files state the same rank; those are not checked.
    """
    ranks = [rank for stage in stages for rank in stage]
    if len({rank.arguments.get("rank") for rank in ranks if isinstance(rank.arguments.get("rank"), int)}) < 2:
        return
    tensor, per_stage = len(stages[0]), _ranks_of_a_stage(stages)
    for stage, members in enumerate(stages):
        for place, rank in enumerate(members):
            number = rank.arguments.get("rank")
            if not isinstance(number, int):
                continue
            found = (number % tensor, number // per_stage if per_stage else stage)
            if found != (place, stage):
                raise CheckpointError(
                    f"{rank.path}: according to its arguments, rank {number} wrote it, which is tensor-parallel rank"
                    f" {found[0]} of stage {found[1]}, not {place} of {stage}: directories were swapped or mixed"
                )


def _ranks_of_a_stage(stages: Stages) -> int | None:
    """Number of processes per pipeline stage, data-parallel replicas included; None if the arguments don't state it."""
    arguments = stages[0][0].arguments
    world = arguments.get("world_size")
    if not isinstance(world, int) or arguments.get("use_tp_pp_dp_mapping") is True:
        return None
    each, remainder = divmod(world, len(stages))
    return None if remainder or each % len(stages[0]) else each


def _check_keys(stage: Sequence[RankFile]) -> None:
    expected = stage[0].tensors.keys()
    for rank in stage[1:]:
        different = sorted(expected ^ rank.tensors.keys())
        if different:
            where = rank if different[0] in expected else stage[0]
            raise CheckpointError(f"{where.path}: {different[0]} is missing, but another tensor-parallel rank has it")


def _check_shapes(stage: Sequence[RankFile]) -> None:
    """Check that all ranks of a stage have shards of the same shapes."""
    for rank in stage[1:]:
        for key, tensor in rank.tensors.items():
            expected = stage[0].tensors[key].shape
            if tensor.shape != expected:
                raise CheckpointError(
                    f"{rank.path}: {key} has shape {tensor.shape}, but {stage[0].path} has {expected}"
                )


def _check_head(stages: Stages) -> None:
    """Check that the last stage has a copy of the word embeddings, and a head bias with as many rows."""
    last, first = stages[-1][0], stages[0][0]
    if len(stages) > 1 and MEGATRON_HEAD_BIAS in last.tensors and MEGATRON_HEAD_WORDS not in last.tensors:
        raise CheckpointError(
            f"{last.path}: {MEGATRON_HEAD_WORDS} is missing, which the last of {len(stages)} pipeline stages needs"
            " for its LM head"
        )
    if MEGATRON_WORDS not in first.tensors:
        return
    rows = first.tensors[MEGATRON_WORDS].shape[:1]
    for key in (MEGATRON_HEAD_BIAS, MEGATRON_HEAD_WORDS):
        if key in last.tensors and last.tensors[key].shape[:1] != rows:
            raise CheckpointError(
                f"{last.path}: {key} has shape {last.tensors[key].shape}, but {MEGATRON_WORDS} of {first.path} has"
                f" {first.tensors[MEGATRON_WORDS].shape}: both need one row per token of the rank"
            )

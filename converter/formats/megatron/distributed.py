"""Distributed checkpoints of Megatron Core (``--ckpt-format torch_dist``), of any parallel layout.

A directory has the files of torch.distributed.checkpoint (``.metadata``, ``*.distcp``), and ``common.pt`` with the
arguments. The weights alone are read, shard by shard: optimizer and random states and the extra states of fp8 kernels
stay unread. Usually one tensor contains those of all layers: ``encoder.layers.mlp.linear_fc1.weight`` (layers, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from converter.formats.tensor_files import PickledFile
from tape.errors import CheckpointError, quoted
from tape.io.json_files import read_json_object
from tape.models.lazy_tensors import LazyState, LazyTensor

from .key_names import EXTRA_STATE, Form, canonical_name, form_of
from .layout import MegatronCheckpoint, iteration_folder
from .rank_file import RankFile, argument_values, dropped_parts, stage_layers, stated_iteration, stated_version

if TYPE_CHECKING:
    from pretrain.checkpointing import StoredTensor

COMMON_NAME = "common.pt"
_INDEX_NAME = ".metadata"
_LAYERS = "encoder.layers."
_MOST_LAYERS = 1 << 12  # as in tape.configs; each becomes an object
_NOT_THE_MODEL = ("optimizer.", "chained_", "rng_state", "rerun_state_machine", "opt_param_scheduler")


def is_distributed(path: Path) -> bool:
    """Whether this is a distributed checkpoint of Megatron Core, or a ``--save`` directory with one."""
    if not path.is_dir():
        return False
    folder = iteration_folder(path)
    return (folder / COMMON_NAME).is_file() or "sharded_backend" in _description(folder)


def _description(folder: Path) -> dict[str, Any]:
    """Megatron Core's ``metadata.json``; empty if there is none."""
    file = folder / "metadata.json"
    return read_json_object(file) if file.is_file() else {}


def read_distributed_checkpoint(path: Path) -> MegatronCheckpoint:
    """Read a ``--save`` or ``iter_*`` directory, as the checkpoint of a single rank.

    Raises:
        CheckpointError: if it is damaged, has another backend than torch_dist, or contains no BERT of Megatron Core.
    """
    # imported here, because torch.distributed.checkpoint takes more than a second and other formats don't need it
    from pretrain.checkpointing import tensors_and_others

    folder = iteration_folder(path)
    if not (folder / _INDEX_NAME).is_file():
        raise CheckpointError(
            f"{folder}: a distributed checkpoint of Megatron Core without {_INDEX_NAME}, of another backend than"
            " torch_dist: save it with Megatron-LM's --ckpt-convert-format torch --ckpt-convert-save"
        )
    if not (folder / COMMON_NAME).is_file():
        raise CheckpointError(
            f"{folder / COMMON_NAME}: missing, in which a distributed checkpoint of Megatron Core has its arguments:"
            " copy the whole directory again"
        )
    stored, others = tensors_and_others(folder)
    own = _model_tensors(stored, folder)
    if form_of(own) is not Form.CORE:
        wrapped = form_of(name.partition(".")[2] for name in own) is Form.CORE
        raise CheckpointError(
            f"{folder}: contains no BERT of Megatron Core (its keys: {', '.join(list(stored)[:6])})"
            + ("; these are NeMo's: export a Megatron-LM checkpoint with NeMo's scripts" if wrapped else "")
        )
    names = {canonical_name(name, Form.CORE): name for name in own}
    extra_states = sum(EXTRA_STATE in name for name in (*stored, *others))
    rank = _rank(folder, {name: own[key] for name, key in names.items()}, names, extra_states)
    split = rank.arguments.get("tensor_model_parallel_size")
    return MegatronCheckpoint(
        path=path,
        stages=((rank,),),
        shards={name: (tensor,) for name, tensor in rank.tensors.items()},
        layers=stage_layers(rank),
        files=tuple(sorted(file for file in folder.iterdir() if file.is_file())),
        padded_for=split if isinstance(split, int) and split > 0 else 1,
    )


def _rank(folder: Path, tensors: LazyState, names: Mapping[str, str], extra_states: int) -> RankFile:
    file = PickledFile(folder / COMMON_NAME)
    content = file.content()
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file.path}: contains a {type(content).__name__}, not a checkpoint dictionary")
    rank = RankFile(
        path=file.path,
        tensors=tensors,
        arguments=argument_values(content.get("args"), file.path),
        version=stated_version(content, file.path),
        bare=False,
        iteration=stated_iteration(content),
        dropped=dropped_parts(content, file.path),
        file=file,
        form=Form.CORE,
        own_names=names,
        extra_states=extra_states,
    )
    file.release()
    return rank


def _model_tensors(stored: Mapping[str, StoredTensor], folder: Path) -> LazyState:
    """The weights by key; a tensor of all layers becomes one per layer."""
    tensors: LazyState = {}
    for name, entry in stored.items():
        if name.startswith(_NOT_THE_MODEL) or EXTRA_STATE in name:
            continue
        if not entry.dtype.is_floating_point:
            raise CheckpointError(f"{folder}: {name} is a {entry.dtype} tensor, not a tensor of weights")
        if not entry.shape or 0 in entry.shape:  # an index of a few bytes could state any number of empty layers
            raise CheckpointError(f"{folder}: {quoted(name)} has shape {entry.shape}, which no weight has")
        part = name.removeprefix(_LAYERS)
        if part == name or part.partition(".")[0].isdigit():
            tensors[name] = LazyTensor(entry.shape, entry.dtype, partial(_gather, entry, None))
            continue
        if entry.shape[0] > _MOST_LAYERS:
            raise CheckpointError(f"{folder}: {quoted(name)} has {entry.shape[0]:,} layers, more than {_MOST_LAYERS:,}")
        for layer in range(entry.shape[0]):
            load = partial(_gather, entry, layer)
            tensors[f"{_LAYERS}{layer}.{part}"] = LazyTensor(entry.shape[1:], entry.dtype, load)
    return tensors


def _gather(entry: StoredTensor, layer: int | None) -> Tensor:
    """A tensor, or one layer of it, from the shards that contain it; NaN, which no format accepts, where none does."""
    whole = torch.full(entry.shape if layer is None else entry.shape[1:], math.nan, dtype=entry.dtype)
    for shard in entry.shards:
        places = [slice(start, start + size) for start, size in zip(shard.offsets, shard.sizes, strict=True)]
        if layer is None:
            whole[tuple(places)] = shard.load()
        elif places[0].start <= layer < places[0].stop:
            whole[tuple(places[1:])] = shard.load_row(layer - places[0].start)
    return whole

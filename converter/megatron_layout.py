"""Megatron-LM's classic checkpoint directories: which files there are and what each rank holds (INTERFACE section 7).

``latest_checkpointed_iteration.txt`` names ``iter_0001000/`` or ``release/``; in it every tensor-parallel rank TT of
every pipeline stage PPP has ``mp_rank_TT[_PPP]/model_optim_rng.pt``. Here the ranks are read and their keys brought to
one spelling; nothing is merged or reordered.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tape.errors import CheckpointError
from tape.models.lazy_tensors import LazyTensor

from .mapping import Shards
from .tensor_files import LazyState, PickledFile

TRACKER_NAME = "latest_checkpointed_iteration.txt"
RANK_FILE_NAME = "model_optim_rng.pt"
_RANK_FOLDER = re.compile(r"mp_rank_(\d+)(?:_(\d+))?$")

_LAYER = re.compile(r"\.layers\.(\d+)\.")

# Parts of keys that newer releases of Megatron-LM renamed, new -> old.
_RENAMED = (
    ("language_model.encoder.", "language_model.transformer."),
    (".self_attention.", ".attention."),
    (".input_norm.", ".input_layernorm."),
    (".post_attention_norm.", ".post_attention_layernorm."),
    (".final_norm.", ".final_layernorm."),
    ("lm_head.norm.", "lm_head.layernorm."),
)

# What a training checkpoint holds beside the model, and why a finetuning model has no place for it.
DROPPED_PARTS = {
    "optimizer": "optimizer state",
    "lr_scheduler": "learning-rate schedule",
    "opt_param_scheduler": "learning-rate schedule",
    "random_rng_state": "random state",
    "np_rng_state": "random state",
    "torch_rng_state": "random state",
    "cuda_rng_state": "random state",
    "rng_tracker_states": "random state",
    "rng_state": "random state",
    "num_floating_point_operations_so_far": "training counter",
}
_READ_PARTS = frozenset({"args", "checkpoint_version", "iteration", "total_iters", "model"})


@dataclass(frozen=True)
class RankFile:
    """One rank's file: ``tensors`` by key, in the spelling of 2020's Megatron-LM, layers numbered within the stage."""

    path: Path
    tensors: Mapping[str, LazyTensor]
    arguments: Mapping[str, Any]
    version: float | None
    iteration: int | None
    dropped: tuple[str, ...]
    file: PickledFile


@dataclass(frozen=True)
class MegatronCheckpoint:
    """All ranks, ``stages[pipeline][tensor]``.

    Args:
        version: order of the query/key/value rows; None where a bare model dictionary leaves it open.
        arguments: Megatron's own, empty where the file has none.
    """

    path: Path
    stages: tuple[tuple[RankFile, ...], ...]

    @property
    def first(self) -> RankFile:
        return self.stages[0][0]

    @property
    def version(self) -> float | None:
        return self.first.version

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.first.arguments

    @property
    def tensor_parallel(self) -> int:
        return len(self.stages[0])

    @property
    def ranks(self) -> list[RankFile]:
        """All ranks, stage by stage."""
        return [rank for stage in self.stages for rank in stage]

    def release(self) -> None:
        """Forget what was read of the files; they are opened again when needed."""
        for rank in self.ranks:
            rank.file.release()

    def merged_stages(self) -> dict[str, Shards]:
        """For each key of the whole model, with layers numbered through all stages, the tensors of its ranks.

        Raises:
            CheckpointError: the ranks of a stage hold different keys, or two stages hold the same.
        """
        merged: dict[str, Shards] = {}
        offset = 0
        for stage in self.stages:
            _check_same_keys(stage)
            numbered = {key: _renumber(key, offset) for key in stage[0].tensors}
            for key, name in numbered.items():
                if name in merged:
                    raise CheckpointError(f"{stage[0].path}: {key} belongs to another pipeline stage")
                merged[name] = tuple(rank.tensors[key] for rank in stage)
            offset += stage_layers(stage[0])
        return merged


def read_megatron_checkpoint(path: Path) -> MegatronCheckpoint:
    """Read a ``--save`` directory, one ``iter_*`` directory, a folder with the bare file, or the file itself.

    Raises:
        CheckpointError: a rank is missing, damaged or disagrees with the others on version or arguments.
    """
    files = find_rank_files(path)
    stages = tuple(tuple(read_rank_file(file) for file in stage) for stage in files)
    checkpoint = MegatronCheckpoint(path, stages)
    _check_declared_layout(checkpoint)
    return checkpoint


def find_rank_files(path: Path) -> list[list[Path]]:
    """Files as ``[pipeline][tensor]``."""
    if not path.is_dir():
        return [[path]]
    folder = _iteration_folder(path)
    ranks: dict[tuple[int, int], Path] = {}
    for child in sorted(folder.iterdir()):
        match = _RANK_FOLDER.match(child.name)
        if match:
            ranks[int(match[2] or 0), int(match[1])] = child / RANK_FILE_NAME
    if not ranks:
        return [[_only_file(folder)]]
    pipeline, tensor = (max(rank[axis] for rank in ranks) + 1 for axis in (0, 1))
    for stage in range(pipeline):
        for rank in range(tensor):
            if (stage, rank) not in ranks:
                shown = f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if pipeline > 1 else "")
                raise CheckpointError(f"{folder}: {shown} is missing of {tensor} x {pipeline} ranks")
    return [[ranks[stage, rank] for rank in range(tensor)] for stage in range(pipeline)]


def _iteration_folder(path: Path) -> Path:
    """The folder that the tracker file names, or ``path`` itself without a tracker."""
    tracker = path / TRACKER_NAME
    if not tracker.is_file():
        return path
    name = tracker.read_text(encoding="utf-8", errors="replace").strip()
    if name != "release" and not name.isdigit():
        raise CheckpointError(f"{tracker}: holds {name[:40]!r}, not an iteration number or 'release'")
    folder = path / (name if name == "release" else f"iter_{int(name):07d}")
    if not folder.is_dir():
        raise CheckpointError(f"{tracker}: names {name}, but {folder} is missing")
    return folder


def _only_file(folder: Path) -> Path:
    """A folder without rank folders: ``model_optim_rng.pt``, or the only ``.pt`` file there."""
    usual = folder / RANK_FILE_NAME
    candidates = sorted(folder.glob("*.pt"))
    if usual.is_file():
        return usual
    if not candidates:
        raise CheckpointError(
            f"{folder}: no checkpoint there: neither metadata.json (pretrain_tape.py), nor mp_rank_* or"
            f" {RANK_FILE_NAME} (Megatron-LM)"
        )
    if len(candidates) > 1:
        names = ", ".join(candidate.name for candidate in candidates)
        raise CheckpointError(f"{folder}: which checkpoint is meant? It has {names}; give the file's path")
    return candidates[0]


def read_rank_file(path: Path) -> RankFile:
    """Load one ``.pt`` file: a training checkpoint, or the bare model dictionary of one.

    Raises:
        CheckpointError: no language model in it, or a layout that isn't supported.
    """
    pickled = PickledFile(path)
    content = pickled.content()
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint dictionary")
    whole = "model" in content
    if "model0" in content:
        raise CheckpointError(f"{path}: an interleaved pipeline (model0, model1, ...) isn't supported")
    model = content["model"] if whole else content
    if not isinstance(model, Mapping) or "language_model" not in {key.split(".")[0] for key in map(str, model)}:
        shown = ", ".join(map(str, list(content)[:6]))
        raise CheckpointError(f"{path}: no Megatron language model in it (its keys: {shown})")
    arguments = content.get("args") if whole else None
    rank = RankFile(
        path=path,
        tensors=_flatten(model, pickled, ("model",) if whole else ()),
        arguments=_namespace_values(arguments),
        version=_version(content, path) if whole else None,
        iteration=_iteration(content) if whole else None,
        dropped=tuple(sorted(str(key) for key in content if key not in _READ_PARTS)) if whole else (),
        file=pickled,
    )
    pickled.release()  # what is needed is read again, tensor by tensor
    return rank


def _version(content: Mapping[str, Any], path: Path) -> float:
    """INTERFACE section 7: a missing version means 0."""
    version = content.get("checkpoint_version", 0)
    if not isinstance(version, (int, float)):
        raise CheckpointError(f"{path}: checkpoint_version is {version!r}, not a number")
    return float(version)


def _iteration(content: Mapping[str, Any]) -> int | None:
    value = content.get("iteration", content.get("total_iters"))
    return value if isinstance(value, int) else None


def _namespace_values(arguments: object) -> Mapping[str, Any]:
    if isinstance(arguments, argparse.Namespace):
        return dict(vars(arguments))
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def _flatten(model: Mapping[Any, Any], file: PickledFile, prefix: tuple[str, ...]) -> LazyState:
    tensors: LazyState = {}
    for keys, value in _leaves(model, ()):
        key = ".".join(map(str, keys))
        name = canonical_name(key)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{file.path}: {key} is {_shown(value)}, not a tensor of weights")
        if name in tensors:
            raise CheckpointError(f"{file.path}: {key} is there twice, under an old and a new name")
        tensors[name] = file.lazy(value, prefix + keys)
    return tensors


def _shown(value: object) -> str:
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _leaves(tree: Mapping[Any, Any], above: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def canonical_name(key: str) -> str:
    """The old spelling of a key that newer Megatron-LM writes otherwise."""
    for new, old in _RENAMED:
        key = key.replace(new, old)
    return key


def stage_layers(rank: RankFile) -> int:
    """Number of layers that a rank's pipeline stage holds."""
    numbers = [int(match[1]) for match in map(_LAYER.search, rank.tensors) if match]
    return max(numbers, default=-1) + 1


def _renumber(key: str, offset: int) -> str:
    return _LAYER.sub(lambda match: f".layers.{int(match[1]) + offset}.", key, count=1)


def _check_same_keys(stage: tuple[RankFile, ...]) -> None:
    expected = stage[0].tensors.keys()
    for rank in stage[1:]:
        different = sorted(expected ^ rank.tensors.keys())
        if different:
            where = rank if different[0] in expected else stage[0]
            raise CheckpointError(f"{where.path}: {different[0]} is missing, another tensor-parallel rank has it")


def _check_declared_layout(checkpoint: MegatronCheckpoint) -> None:
    """All ranks agree on the version, and there are as many as the arguments say."""
    for rank in checkpoint.ranks:
        if rank.version != checkpoint.version:
            raise CheckpointError(
                f"{rank.path}: checkpoint_version {rank.version}, but {checkpoint.first.path} has {checkpoint.version}"
            )
    arguments = checkpoint.arguments
    tensor = arguments.get("tensor_model_parallel_size", arguments.get("model_parallel_size"))
    for name, declared, found in (
        ("tensor", tensor, checkpoint.tensor_parallel),
        ("pipeline", arguments.get("pipeline_model_parallel_size"), len(checkpoint.stages)),
    ):
        if declared is not None and declared != found:
            raise CheckpointError(
                f"{checkpoint.path}: written by {declared} {name}-parallel ranks, but {found} of their files are here"
            )

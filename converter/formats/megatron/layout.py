"""Megatron-LM's classic checkpoint directories: the files and what each rank's file contains.

``latest_checkpointed_iteration.txt`` names ``iter_0001000/`` or ``release/``, which contains
``mp_rank_TT[_PPP]/model_optim_rng.pt`` (or ``model_rng.pt``) for every tensor-parallel rank TT of every pipeline stage
PPP. This module reads all ranks and normalizes the spelling of their keys; it doesn't merge or reorder tensors.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.mapping.rules import Shards
from pretrain.checkpoint_paths import checkpoint_path
from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError, listed
from tape.io.digits import natural_number

from .rank_file import LAYER, RankFile, read_rank_file, stage_layers
from .shard_consistency import check_ranks

TRACKER_NAME = "latest_checkpointed_iteration.txt"
RELEASE = "release"
RANK_FILE_NAME = "model_optim_rng.pt"
# with a distributed optimizer, from March 2022 to May 2023: its state is in mp_rank_TT[_PPP]_DDD/optim.pt, where the
# last number is the data-parallel rank
_MODEL_FILE_NAME = "model_rng.pt"
_OPTIMIZER_FILE_NAME = "optim.pt"
_ITERATION = re.compile(r"iter_\d+|release")
_RESAVE = "load it with transformers 4 ({}) and save it again with save_pretrained"
_NOT_READ = {
    "tf_model.h5": _RESAVE.format("from_tf=True"),
    "flax_model.msgpack": _RESAVE.format("from_flax=True"),
    ".metadata": "metadata.json (pretrain_tape.py) or common.pt (Megatron Core) is missing; of other programs, python"
    " -m torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY FILE.pt makes a file",
    "weights/common.pt": "export a Megatron-LM checkpoint with NeMo's scripts",
    "adapter_config.json": "merge the adapter into its model with peft's merge_and_unload, and save that",
}
_RANK_FOLDER = re.compile(r"mp_rank_(\d+)(?:_(\d+))?$")


@dataclass(frozen=True)
class MegatronCheckpoint:
    """A checkpoint of all ranks.

    Args:
        path: the path given by the user.
        stages: the ranks' files as ``stages[pipeline][tensor]``.
        shards: the tensor-parallel shards of each key, with layers numbered across all pipeline stages.
        layers: number of layers of all stages.
        files: the files, if not one per rank.
        padded_for: number of ranks for which the vocabulary is padded, if not those of the files.
    """

    path: Path
    stages: tuple[tuple[RankFile, ...], ...]
    shards: Mapping[str, Shards]
    layers: int
    files: tuple[Path, ...] = ()
    padded_for: int = 0

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
        """Drop the content of all files; they are read again when needed."""
        for rank in self.ranks:
            rank.file.release()


def read_megatron_checkpoint(path: Path) -> MegatronCheckpoint:
    """Read a ``--save`` directory, an ``iter_*`` directory, a directory with a single file, or the file itself.

    Raises:
        CheckpointError: if a rank is missing, damaged, or belongs to another checkpoint than the others.
    """
    files = find_rank_files(path)
    stages = tuple(tuple(read_rank_file(file) for file in stage) for stage in files)
    check_ranks(path, stages)
    offsets = [0, *itertools.accumulate(stage_layers(stage[0]) for stage in stages)]
    return MegatronCheckpoint(path, stages, _merge_stages(stages, offsets), layers=offsets[-1])


def _merge_stages(stages: Sequence[Sequence[RankFile]], offsets: Sequence[int]) -> dict[str, Shards]:
    """The shards of each key; ``offsets`` are the numbers of the stages' first layers.

    Raises:
        CheckpointError: if two stages have the same key.
    """
    merged: dict[str, Shards] = {}
    for stage, offset in zip(stages, offsets, strict=False):
        for key in stage[0].tensors:
            name = _renumber(key, offset)
            if name in merged:
                raise CheckpointError(f"{stage[0].path}: {key} belongs to another pipeline stage")
            merged[name] = tuple(rank.tensors[key] for rank in stage)
    return merged


def find_rank_files(path: Path) -> list[list[Path]]:
    """The ranks' files as ``[pipeline][tensor]``."""
    if not path.is_dir():
        return [[path]]
    folder = iteration_folder(path)
    ranks: dict[tuple[int, int], Path] = {}
    optimizer = None
    for child in sorted(folder.iterdir()):
        match = _RANK_FOLDER.match(child.name)
        if match and _is_optimizer(child):
            optimizer = child / _OPTIMIZER_FILE_NAME
        elif match:
            ranks[int(match[2] or 0), int(match[1])] = _rank_file(child)
    if not ranks and optimizer is not None:
        raise CheckpointError(
            f"{optimizer}: the optimizer's state alone; the weights are in mp_rank_TT/{_MODEL_FILE_NAME}, which is"
            " missing"
        )
    if not ranks:
        return [[_only_file(folder)]]
    pipeline, tensor = (max(rank[axis] for rank in ranks) + 1 for axis in (0, 1))
    for stage in range(pipeline):
        for rank in range(tensor):
            if (stage, rank) not in ranks:
                shown = f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if pipeline > 1 else "")
                raise CheckpointError(f"{folder}: {shown} of {tensor} x {pipeline} ranks is missing")
    return [[ranks[stage, rank] for rank in range(tensor)] for stage in range(pipeline)]


def _rank_file(folder: Path) -> Path:
    older = folder / _MODEL_FILE_NAME
    return older if older.is_file() else folder / RANK_FILE_NAME


def _is_optimizer(folder: Path) -> bool:
    """Whether this directory has the state of a distributed optimizer alone."""
    has_model = (folder / _MODEL_FILE_NAME).is_file() or (folder / RANK_FILE_NAME).is_file()
    return not has_model and (folder / _OPTIMIZER_FILE_NAME).is_file()


def iteration_folder(path: Path) -> Path:
    """The directory that the tracker file names, or ``path`` if there is no tracker."""
    tracker = path / TRACKER_NAME
    if not tracker.is_file():
        return path
    name = tracker.read_text(encoding="utf-8", errors="replace").strip()
    iteration = natural_number(name)
    if name != RELEASE and iteration is None:
        raise CheckpointError(
            f"{tracker}: contains {name[:40]!r}, not an iteration number or '{RELEASE}': give the path of an iteration"
        )
    folder = path / RELEASE if iteration is None else checkpoint_path(path, iteration)
    if not folder.is_dir():
        raise CheckpointError(f"{tracker}: names {name}, but {folder} is missing")
    return folder


def _only_file(folder: Path) -> Path:
    """The file in a directory without ``mp_rank_*``: ``model_optim_rng.pt``, or the only ``.pt`` file."""
    usual = folder / RANK_FILE_NAME
    candidates = sorted(folder.glob("*.pt"))
    if usual.is_file():
        return usual
    if not candidates:
        raise CheckpointError(f"{folder}: no checkpoint found: {_instead(folder)}")
    if len(candidates) > 1:
        names = ", ".join(candidate.name for candidate in candidates)
        raise CheckpointError(f"{folder}: contains several checkpoints ({names}); give the path of one")
    return candidates[0]


def _instead(folder: Path) -> str:
    """What a directory without a checkpoint has instead, and what to do with it."""
    iterations = [path.name for path in folder.glob("*") if _ITERATION.fullmatch(path.name) and path.is_dir()]
    models = [path.parent.name for path in folder.glob(f"*/{CONFIG_NAME}")]
    for found, kind in ((iterations, f"{TRACKER_NAME}, but checkpoints"), (models, "model, but directories of models")):
        if found:
            return f"no {kind}: {listed(sorted(found))}; give the path of one"
    for name, advice in _NOT_READ.items():
        if (folder / name).is_file():
            return f"{name} is not read: {advice}"
    return (
        f"neither {CONFIG_NAME} and weights (TAPE, Hugging Face), nor metadata.json (pretrain_tape.py), nor mp_rank_*"
        f" or {RANK_FILE_NAME} (Megatron-LM)"
    )


def _renumber(key: str, offset: int) -> str:
    return LAYER.sub(lambda match: f".layers.{int(match[1]) + offset}.", key, count=1)

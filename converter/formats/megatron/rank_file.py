"""The file of one rank of a classic Megatron-LM checkpoint: its tensors, its arguments, and the parts to drop.

Keys are normalized to one spelling; tensors are not merged or reordered.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from converter.formats.foreign import describe_content
from converter.formats.tensor_files import PickledFile
from tape.errors import CheckpointError, quoted
from tape.io.checkpoint_formats import refuse_wrapped_keys
from tape.models.lazy_tensors import LazyState, LazyTensor

from .key_names import EXTRA_STATE, Form, canonical_name, form_of

LAYER = re.compile(r"\.layers\.(\d+)\.")

# Parts of a training checkpoint that a finetuning model doesn't need, with a description
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
    "grad_scaler": "loss scale of half-precision training",
    "rerun_state_machine": "record of repeated iterations",
    "tokens": "training counter",
    "content_metadata": "how Megatron Core has sharded the checkpoint",
    "num_floating_point_operations_so_far": "training counter",
}
_READ_PARTS = frozenset({"args", "checkpoint_version", "iteration", "total_iters", "model"})


@dataclass(frozen=True)
class RankFile:
    """The content of one rank's file.

    Args:
        path: the file.
        tensors: tensors by key in the spelling of Megatron-LM of 2020, layers numbered within the stage.
        arguments: Megatron-LM's training arguments; empty if the file has none.
        version: the checkpoint version stated in the file, or None.
        bare: whether the file contains the model dictionary alone.
        iteration: training iteration, or None.
        dropped: names of the parts that are not converted.
        form: who computes the layers.
        own_names: the key in the file of each of ``tensors``.
        extra_states: number of extra states (of fp8 kernels) that are not read, of whatever type.
        file: the open file, to load tensors from.
    """

    path: Path
    tensors: Mapping[str, LazyTensor]
    arguments: Mapping[str, Any]
    version: float | None
    bare: bool
    iteration: int | None
    dropped: tuple[str, ...]
    file: PickledFile
    form: Form = Form.CLASSIC
    own_names: Mapping[str, str] = field(default_factory=dict)
    extra_states: int = 0

    @property
    def has_names_of_2021(self) -> bool:
        """Whether the model is called ``encoder``, as in Megatron-LM since June 2021."""
        return any(name.startswith("language_model.encoder.") for name in self.own_names.values())


def read_rank_file(path: Path) -> RankFile:
    """Load a ``.pt`` file: a training checkpoint, or the model dictionary of one.

    Raises:
        CheckpointError: if it contains no language model, an unsupported layout, or an unknown part.
    """
    pickled = PickledFile(path)
    content = pickled.content()
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: contains a {type(content).__name__}, not a checkpoint dictionary")
    is_training_checkpoint = "model" in content
    if "model0" in content:
        raise CheckpointError(
            f"{path}: interleaved pipeline schedules (model0, model1, ...) are not supported; save it again by"
            " Megatron-LM without --num-layers-per-virtual-pipeline-stage"
        )
    model = content["model"] if is_training_checkpoint else content
    if not isinstance(model, Mapping):
        raise CheckpointError(f"{path}: {describe_content(content)}")
    leaves = {".".join(map(str, keys)): (keys, value) for keys, value in _leaves(model, ())}
    form = form_of([*leaves, *(f"{key}." for key in model)])
    if form is None:
        refuse_wrapped_keys(leaves, path)
        raise CheckpointError(f"{path}: {describe_content(content, model)}")
    arguments = content.get("args") if is_training_checkpoint else None
    prefix = ("model",) if is_training_checkpoint else ()
    weights = {key: leaf for key, leaf in leaves.items() if not _is_extra_state(key)}
    tensors, own_names = _tensors(weights, form, pickled, prefix)
    rank = RankFile(
        path=path,
        tensors=tensors,
        arguments=argument_values(arguments, path),
        version=stated_version(content, path) if is_training_checkpoint else None,
        bare=not is_training_checkpoint,
        iteration=stated_iteration(content) if is_training_checkpoint else None,
        dropped=dropped_parts(content, path) if is_training_checkpoint else (),
        file=pickled,
        form=form,
        own_names=own_names,
        extra_states=len(leaves) - len(weights),
    )
    pickled.release()  # tensors are read again one by one when needed
    return rank


def dropped_parts(content: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    """Names of the parts that are dropped deliberately.

    Raises:
        CheckpointError: if a part is unknown, so that the model might need it.
    """
    others = sorted(str(key) for key in content if key not in _READ_PARTS)
    for name in others:
        if name not in DROPPED_PARTS:
            raise CheckpointError(
                f"{path}: {name}: unknown part; Megatron-LM saves none of this name beside the model. If the model does"
                " not need it, remove it from the file"
            )
    return tuple(others)


def stated_version(content: Mapping[str, Any], path: Path) -> float | None:
    version = content.get("checkpoint_version")
    if version is None:
        return None
    if not isinstance(version, (int, float)):
        raise CheckpointError(f"{path}: checkpoint_version is {quoted(version)}, not a number")
    return float(version)


def stated_iteration(content: Mapping[str, Any]) -> int | None:
    value = content.get("iteration", content.get("total_iters"))
    return value if isinstance(value, int) else None


def argument_values(arguments: object, path: Path) -> Mapping[str, Any]:
    """The arguments by name; none if the file has none.

    Raises:
        CheckpointError: they are of a type in which they can't be read, so that the model might be another one.
    """
    if arguments is None:
        return {}
    if isinstance(arguments, argparse.Namespace):
        return dict(vars(arguments))
    if isinstance(arguments, Mapping):
        return dict(arguments)
    raise CheckpointError(
        f"{path}: its args are {quoted(arguments)}, not an argparse.Namespace or a dictionary: save them as vars(args)"
    )


def _tensors(
    leaves: Mapping[str, tuple[tuple[Any, ...], Any]], form: Form, file: PickledFile, prefix: tuple[str, ...]
) -> tuple[LazyState, dict[str, str]]:
    """The tensors by their names of 2020, and the keys in the file by these names."""
    tensors: LazyState = {}
    own_names: dict[str, str] = {}
    for key, (keys, value) in leaves.items():
        name = canonical_name(key, form)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{file.path}: {key} is {_shown(value)}, not a tensor of weights")
        if name in tensors:
            raise CheckpointError(f"{file.path}: {key} occurs twice, under an old and a new name")
        tensors[name] = file.lazy(value, prefix + keys)
        own_names[name] = key
    return tensors, own_names


def _shown(value: object) -> str:
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _leaves(tree: Mapping[Any, Any], above: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not _is_extra_state(str(key)):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _is_extra_state(key: str) -> bool:
    return EXTRA_STATE in key.split(".")


def stage_layers(rank: RankFile) -> int:
    """Number of layers in a rank's pipeline stage."""
    numbers = [int(match[1]) for match in map(LAYER.search, rank.tensors) if match]
    return max(numbers, default=-1) + 1

"""The model whose weights a run starts from (``--finetune``, ``--pretrained-checkpoint``), in any format.

This is the only module of pretraining that uses the converter, for its reading side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from converter.formats.detection import open_source
from converter.formats.sharded.source import ShardedSource
from converter.mapping.tables import POSITIONS
from converter.options import SourceOptions
from converter.verify.parameters import check_parameters
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.io.sampled_digest import describe_file
from tape.models.lazy_tensors import LazyState, LazyTensor

# in errors of the readers
_CONVERTER_OPTION = re.compile(
    r" (-heads|--lm-head|--assume-neutral|--checkpoint-version|--vocab-file|--gelu|--layernorm-epsilon|--no-verify)\b"
)


@dataclass(frozen=True)
class PretrainedModel:
    """A model to start from.

    Attributes:
        path: the directory or file; of a run of this project, the directory of the checkpoint.
        kind: its format.
        config: its configuration, with TAPE's vocabulary.
        state: its weights in fp32, by the names of ``ProteinBertForMaskedLM``, loaded one at a time.
        missing: the parts that pretraining needs and the model lacks; they start from random weights.
        assumed: settings that its files do not state, as clauses for the user.
    """

    path: Path
    kind: str
    config: ProteinBertConfig
    state: LazyState
    missing: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def release(self) -> None:
        """Forget the weights, when a model has them; files that can't be memory-mapped are in memory until then."""
        self.state.clear()

    @property
    def digest(self) -> str:
        """Sixteen hex digits that are equal on ranks that see the same files."""
        path = self.path
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        described = "\n".join(f"{file.relative_to(path)} {describe_file(file)}" for file in files)
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    @property
    def has_lm_head(self) -> bool:
        """Whether the model can predict residues without training."""
        return any(name.startswith("mlm.") for name in self.state)

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint of this project."""
        return self.kind == ShardedSource.kind

    @property
    def name(self) -> str:
        """Its path and format, for the user."""
        return f"{self.path} ({self.kind})"

    def describe(self) -> dict[str, str]:
        """What the run's checkpoints record."""
        return {"path": str(self.path), "format": self.kind, "digest": self.digest}

    def notices(self) -> list[str]:
        """Lines for the user."""
        lines = [f"starting at iteration 0 with the weights of {self.name}"]
        lines += self.assumptions()
        if self.missing:
            parts = " and no ".join(self.missing)
            lines.append(f"WARNING: {self.path} has no {parts}: random weights instead")
        return lines

    def assumptions(self) -> list[str]:
        """A line on what is assumed, if anything is."""
        if not self.assumed:
            return []
        return [f"{self.path} does not state, and these are assumed: {'; '.join(self.assumed)}"]

    def with_positions(self, rows: int) -> PretrainedModel:
        """The model with this number of positions.

        A longer table repeats the given one from its beginning, as in Longformer (Beltagy et al. 2020, section 5); a
        shorter one is its beginning.

        Args:
            rows: the number of positions.
        """
        table = self.state[POSITIONS]
        if rows == table.shape[0]:
            return self

        def load() -> Tensor:
            given = table.load()
            return given[torch.arange(rows) % len(given)]

        resized = LazyTensor((rows, *table.shape[1:]), table.dtype, load)
        config = ProteinBertConfig.from_dict({**self.config.to_dict(), "max_position_embeddings": rows})
        return replace(self, config=config, state={**self.state, POSITIONS: resized})


def open_pretrained_model(path: Path) -> PretrainedModel:
    """Open a checkpoint of this project, Megatron-LM, Megatron Core, TAPE or Hugging Face.

    Args:
        path: what the converter takes as ``-src``.

    Raises:
        ProteinLMError: it is missing, damaged, of an unknown format, or does not state all of its settings. Names the
            file, and the converter if that has an option for it.
    """
    try:
        source = open_source(path, SourceOptions())
        state = source.map().state
        check_parameters(state, source)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{error}{_converter_advice(str(error), path)}") from error
    if source.config.pruned_heads:
        raise ConfigError(f"{path}: attention heads were pruned, and pretraining does not support such models")
    named = {name: _checked(name, tensor, path) for name, tensor in state.items()}
    missing = _missing(source.config, named)
    return PretrainedModel(source.path, source.kind, source.config, named, missing, source.assumed)


def _missing(config: ProteinBertConfig, names: Iterable[str]) -> tuple[str, ...]:
    parts = {"mlm.": "language-model head"}
    if config.layer_norm_position == "post":
        parts["bert.pooler."] = "pooler"
    present = {prefix for prefix in parts for name in names if name.startswith(prefix)}
    return tuple(part for prefix, part in parts.items() if prefix not in present)


def _converter_advice(message: str, path: Path) -> str:
    """How to give an option that the message names, which only the converter has."""
    option = _CONVERTER_OPTION.search(message)
    if option is None:
        return ""
    convert = f"proteinlm convert -src {path} -out WEIGHTS --to pretraining"
    return f". {option[1]} is an option of the converter: {convert} {option[1]} ..., and start from WEIGHTS"


def _checked(name: str, tensor: LazyTensor, path: Path) -> LazyTensor:
    """The tensor in fp32; loading it raises CheckpointError if a value is not finite."""

    def load() -> Tensor:
        values = tensor.load().float()
        if not bool(torch.isfinite(values).all()):
            raise CheckpointError(f"{path}: {name} has values that are not finite")
        return values

    return LazyTensor(tensor.shape, torch.float32, load)

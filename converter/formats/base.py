"""The interfaces of checkpoint formats: a source is read, a target is written.

Formats that are read: Megatron-LM's checkpoints of classic models and of Megatron Core, sharded checkpoints of
``pretrain_tape.py``, TAPE model directories (of this project, ProteinLM and tape-proteins 0.5) and Hugging Face model
directories.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from converter.mapping.rules import Mapped
from converter.verify.certificate import ComparedModel
from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyState

MEGATRON_FORMATS = ("megatron", "megatron-core")  # of Megatron-LM's files, one per rank


class Source(ComparedModel, Protocol):
    """A model in one checkpoint format.

    Its state dict is produced by the rule tables, its reference forward pass is computed from its own files without
    them, and the parity certificate compares the two. The result of a conversion is opened as a source as well.

    Attributes:
        kind: name of the format.
        path: the checkpoint's path.
        accepts: names of the :class:`~converter.options.SourceOptions` that the format leaves open.
        assumed: what the files do not state and is taken as usual, as clauses for the user.
    """

    kind: str
    accepts: frozenset[str]
    assumed: tuple[str, ...]

    @property
    def has_head(self) -> bool:
        """Whether the checkpoint contains the masked-LM head."""

    def map(self, with_head: bool = True) -> Mapped:
        """The state dict of ``ProteinBertForMaskedLM``, in the source's data types.

        Args:
            with_head: whether to keep the masked-LM head, if there is one; without it, its output layer need not be
                that of TAPE's model, which is tied to the word embeddings.
        """

    def provenance(self) -> dict[str, Any]:
        """Description of the source for ``conversion.json``."""


class Target(Protocol):
    """A checkpoint format to write, with its options."""

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """Make sure that the format can represent the model.

        Raises:
            ConfigError: if it cannot; the message gives the reason.
        """

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        """Write all files except the conversion record.

        Args:
            folder: an empty directory.
            state: state dict of ``ProteinBertForMaskedLM`` in a single data type; without ``mlm.`` keys, only the
                encoder is written.
            config: the model's configuration.
            source: provenance of the source.
        """

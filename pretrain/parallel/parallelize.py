"""How the blocks on this rank are carried out: what they keep for the backward pass, and whether they are compiled."""

from __future__ import annotations

import os
import shutil

import torch

from tape.errors import ConfigError
from tape.models.attention import AttentionCore
from tape.models.modeling_bert import ProteinBertForMaskedLM

from .pipeline_split import own_blocks

RECOMPUTATIONS = ("full", "selective")


def recompute(model: ProteinBertForMaskedLM, granularity: str) -> None:
    """Let the backward pass compute again: ``full``, whole blocks; ``selective``, attention cores; ``none``."""
    model.bert.encoder.checkpoint_activations = granularity == "full"
    for module in model.modules():
        if isinstance(module, AttentionCore):
            module.recompute = granularity == "selective"


def compile_blocks(model: ProteinBertForMaskedLM, device: torch.device, backend: str = "inductor") -> None:
    """Compile the blocks in place, for any number of tokens.

    The attention core stays as it is: its shapes change with the lengths of the proteins in every row.

    Raises:
        ConfigError: no compiler on a CPU.
    """
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))):
        raise ConfigError("--compile needs a C++ compiler on a CPU: install g++, or leave --compile out")
    for block in own_blocks(model):
        attention = block.attention.self
        # The module, not its forward alone: what is hooked to it draws random numbers and must stay as it is, too.
        attention.core = torch.compiler.disable(attention.core)
        block.compile(dynamic=True, backend=backend)

"""Parallelizes a model from outside, step by step; the model's code does not use process groups."""

from __future__ import annotations

import os
import shutil

import torch

from tape.errors import ConfigError
from tape.models.attention import AttentionCore
from tape.models.modeling_bert import ProteinBertForMaskedLM

from .context import ParallelConfig, ParallelContext
from .fsdp import apply_fsdp
from .pipeline_split import remove_other_stages, stage_blocks
from .tensor_parallel import apply_tensor_parallel
from .tensor_parallel_rng import apply_tensor_parallel_rng


def parallelize_model(model: ProteinBertForMaskedLM, context: ParallelContext, config: ParallelConfig) -> None:
    """Reduce the model to what this rank computes, in place. Names in the state dict stay.

    The model is still on the meta device: a rank never holds more than its own shards. FSDP shards the parameters
    outside the blocks, too, but only when the training objective around the model exists
    (:func:`~pretrain.parallel.pipeline.make_forward_backward`): it gathers them at the start of the outermost forward
    pass, which is the objective's.

    Raises:
        ConfigError: the layout does not fit the model, or there is no compiler.
    """
    context.dims.check_model(model.config)
    remove_other_stages(model, context)  # pipeline parallelism
    blocks = stage_blocks(model)
    if context.dims.tensor > 1:
        for block in blocks:
            apply_tensor_parallel(block, context.tensor_mesh, context.dims.sequence_parallel_enabled)
    apply_tensor_parallel_rng(model, context)
    apply_activation_checkpointing(model, config.recompute)
    apply_attention_backend(model, config.attention_backend)
    if config.compile:
        apply_compile(model, context.device)
    for block in blocks:
        apply_fsdp(block, context)


def apply_activation_checkpointing(model: ProteinBertForMaskedLM, granularity: str) -> None:
    """Set what the backward pass recomputes: ``full``: transformer blocks; ``selective``: attention cores; ``none``."""
    model.bert.encoder.checkpoint_activations = granularity == "full"
    for module in model.modules():
        if isinstance(module, AttentionCore):
            module.recompute = granularity == "selective"


def apply_attention_backend(model: ProteinBertForMaskedLM, backend: str) -> None:
    """Set how packed rows compute attention: ``auto``, ``flash`` or ``padded``."""
    for module in model.modules():
        if isinstance(module, AttentionCore):
            module.backend = backend


def apply_compile(model: ProteinBertForMaskedLM, device: torch.device, backend: str = "inductor") -> None:
    """Compile the transformer blocks in place, for any number of tokens.

    The attention core is not compiled: its shapes change with the lengths of the proteins in each row.

    Raises:
        ConfigError: there is no C++ compiler, which torch.compile needs on a CPU.
    """
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))):
        raise ConfigError("--compile needs a C++ compiler on a CPU: install g++, or omit --compile")
    for block in stage_blocks(model):
        attention = block.attention.self
        # The module and not only its forward: its hooks (TensorParallelRNG) must not be compiled either.
        attention.core = torch.compiler.disable(attention.core)
        block.compile(dynamic=True, backend=backend)

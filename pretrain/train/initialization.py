"""Initial weights: those of a given model, or drawn.

Each parameter is drawn from its own generator, seeded by (seed, parameter name). A parameter therefore has the same
initial values at every layout, on every device and in models of any depth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.parallel import ParallelConfig, ParallelContext, parallelize_model
from pretrain.parallel.parameters import DECODER_NAME, TIED_NAME, copy_shard
from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyTensor
from tape.models.meta_device import on_meta_device
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.models.neighbor_attention import OUTPUT_PROJECTIONS, neighbor_start

DEFAULT_PARALLEL = ParallelConfig()


@dataclass(frozen=True)
class InitConfig:
    """Normal initialization.

    Attributes:
        seed: seed of the generators.
        std: standard deviation of matrices and embeddings; that of output projections is std / sqrt(2 layers).
    """

    seed: int = 1234
    std: float = 0.02


def build_model(
    config: ProteinBertConfig,
    init: InitConfig,
    context: ParallelContext,
    parallel: ParallelConfig = DEFAULT_PARALLEL,
    weights: Mapping[str, LazyTensor] | None = None,
) -> ProteinBertForMaskedLM:
    """Build this rank's part of the model, with initial weights, on its device.

    The model is built on the meta device first, so a rank never holds more than its own shards and one full parameter.

    Args:
        config: architecture of the model.
        init: settings of the initialization.
        context: the device mesh and this rank's coordinates in it.
        parallel: settings of activation checkpointing and compilation.
        weights: fp32 tensors by parameter name to start from; parameters that it lacks are drawn.

    Raises:
        ConfigError: if the model cannot be split as the layout requires, or if there is no compiler.
    """
    with on_meta_device():
        model = ProteinBertForMaskedLM(config)
    parallelize_model(model, context, parallel)
    model.to_empty(device=context.device)
    if context.dims.pipeline == 1:
        model.tie_weights()  # to_empty has allocated the tied matrix twice
    # The masked-LM objective does not use BERT's pooler: it is kept for finetuning as it is.
    model.bert.pooler.requires_grad_(False)
    initialize_parameters(model, config, init, weights or {})
    return model


@torch.no_grad()
def initialize_parameters(
    model: ProteinBertForMaskedLM,
    config: ProteinBertConfig,
    init: InitConfig,
    weights: Mapping[str, LazyTensor],
) -> None:
    """Set this rank's shards of all parameters to their initial values, one parameter after the other."""
    for name, parameter in model.named_parameters():
        # The last stage's replica of the word embeddings has the same initial values as the first stage's.
        source = TIED_NAME if name == DECODER_NAME else name
        if source in weights:
            full = weights[source].load()
        else:
            full = initial_values(source, parameter.shape, config.num_hidden_layers, init)
            if config.initial_attention != "random":
                full = neighbor_start(source, full, config.num_attention_heads, init.std, config.initial_attention)
        copy_shard(parameter, full)


def initial_values(name: str, shape: torch.Size, layers: int, init: InitConfig) -> Tensor:
    """Initial values of a full parameter, fp32 on the CPU: matrices N(0, std), layer-norm weights 1, biases 0."""
    if len(shape) < 2:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
    digest = hashlib.sha256(f"{init.seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    # As in Megatron-LM, projections onto the residual stream are scaled so that its variance doesn't grow with depth.
    std = init.std / (2 * layers) ** 0.5 if name.endswith(OUTPUT_PROJECTIONS) else init.std
    return torch.empty(shape).normal_(0.0, std, generator=generator)

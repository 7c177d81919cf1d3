"""Initial weights: each parameter is drawn from its own generator, seeded by (seed, parameter name).

A parameter therefore has the same initial values at every layout, on every device and in models of any depth.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.parallel import ParallelConfig, ParallelContext, parallelize_model
from pretrain.parallel.parameters import DECODER_NAME, TIED_NAME, copy_shard
from tape.configs import ProteinBertConfig
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.models.neighbor_attention import OUTPUT_PROJECTIONS, neighbor_start

DEFAULT_PARALLEL = ParallelConfig()


@dataclass(frozen=True)
class InitConfig:
    """Normal initialization.

    Attributes:
        seed: seeds the generators.
        std: standard deviation of matrices and embeddings; output projections have std / sqrt(2 layers).
    """

    seed: int = 1234
    std: float = 0.02


def build_model(
    config: ProteinBertConfig, init: InitConfig, processes: ParallelContext, parallel: ParallelConfig = DEFAULT_PARALLEL
) -> ProteinBertForMaskedLM:
    """The model with initial weights, reduced to what this rank computes and on its device.

    It is built on the meta device first, so that a rank never holds more than its own shards and one full parameter.

    Args:
        config: shape of the model.
        init: how to initialize its weights.
        processes: this process and its place in the layout.
        parallel: activation checkpointing and compilation.

    Raises:
        ConfigError: the layout doesn't fit the model, or there is no compiler.
    """
    with torch.device("meta"):
        model = ProteinBertForMaskedLM(config)
    parallelize_model(model, processes, parallel)
    model.to_empty(device=processes.device)
    if processes.dims.pipeline == 1:
        model.tie_weights()  # to_empty has allocated the tied matrix twice
    initialize_parameters(model, config, init, processes)
    return model


@torch.no_grad()
def initialize_parameters(
    model: ProteinBertForMaskedLM, config: ProteinBertConfig, init: InitConfig, processes: ParallelContext
) -> None:
    """Set this rank's shards of all parameters to their initial values."""
    for name, parameter in model.named_parameters():
        # The last stage's replica of the word embeddings has the same initial values as the first stage's.
        own = TIED_NAME if name == DECODER_NAME else name
        full = initial_values(own, parameter.shape, config.num_hidden_layers, init)
        if config.initial_attention == "neighbours":
            full = neighbor_start(own, full, config.num_attention_heads, init.std)
        copy_shard(parameter, full, processes)


def initial_values(name: str, shape: torch.Size, layers: int, init: InitConfig) -> Tensor:
    """Initial values of a full parameter, fp32 on the CPU: matrices N(0, std), layer-norm weights 1, biases 0."""
    if len(shape) < 2:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
    digest = hashlib.sha256(f"{init.seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    # As in Megatron-LM, projections onto the residual stream are scaled so that its variance doesn't grow with depth.
    std = init.std / (2 * layers) ** 0.5 if name.endswith(OUTPUT_PROJECTIONS) else init.std
    return torch.empty(shape).normal_(0.0, std, generator=generator)

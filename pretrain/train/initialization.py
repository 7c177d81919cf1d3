"""Initial weights: each parameter from a generator of its own, keyed by (seed, parameter name).

So a parameter starts with the same values at every layout, on every device, and whatever else the model has.
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

PLAIN = ParallelConfig()


@dataclass(frozen=True)
class InitConfig:
    """Normal initialisation.

    Attributes:
        seed: keys every parameter's generator.
        std: of matrices and embeddings; output projections have std / sqrt(2 layers).
    """

    seed: int = 1234
    std: float = 0.02


def build_model(
    config: ProteinBertConfig, init: InitConfig, processes: ParallelContext, parallel: ParallelConfig = PLAIN
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
        model.tie_weights()  # to_empty gives both users of a tied matrix one of their own
    initialise_parameters(model, config, init, processes)
    return model


@torch.no_grad()
def initialise_parameters(
    model: ProteinBertForMaskedLM, config: ProteinBertConfig, init: InitConfig, processes: ParallelContext
) -> None:
    """Fill in every parameter in place."""
    for name, parameter in model.named_parameters():
        # A last stage has its own copy of the word embeddings, which begins as the first stage's.
        own = TIED_NAME if name == DECODER_NAME else name
        full = initial_values(own, parameter.shape, config.num_hidden_layers, init)
        if config.initial_attention == "neighbours":
            full = neighbor_start(own, full, config.num_attention_heads, init.std)
        copy_shard(parameter, full, processes)


def initial_values(name: str, shape: torch.Size, layers: int, init: InitConfig) -> Tensor:
    """One whole parameter, fp32 on the CPU: N(0, std) for matrices, 1 for layer-norm weights, 0 for biases."""
    if len(shape) < 2:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
    digest = hashlib.sha256(f"{init.seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    # Megatron scales what is added to the residual stream so that its variance doesn't grow with depth.
    std = init.std / (2 * layers) ** 0.5 if name.endswith(OUTPUT_PROJECTIONS) else init.std
    return torch.empty(shape).normal_(0.0, std, generator=generator)

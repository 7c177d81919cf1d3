"""What a rank of a run needs in memory, from the model's sizes and the layout, before anything is started.

Weights, gradients and optimizer state are counted exactly. Activations are estimated from what autograd keeps of each
block: two residual streams and the inputs of two layer norms and four matrix products, queries, keys and values, and
the two wide FFN states. Kernels' workspace, fragmentation and the process itself are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tape.configs import ProteinBertConfig
from tape.models.modeling_bert import ProteinBertForMaskedLM

from .parallel import TIED_NAME, ParallelDims

_SPLIT = (
    "attention.self.query.weight",
    "attention.self.query.bias",
    "attention.self.key.weight",
    "attention.self.key.bias",
    "attention.self.value.weight",
    "attention.self.value.bias",
    "attention.dense.weight",
    "mlp.dense_h_4h.weight",
    "mlp.dense_h_4h.bias",
    "mlp.dense_4h_h.weight",
)
_FP32 = 4
_GROUP_PADDING = 1.1  # slots of padded groups a token, where attention is computed in them


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank.

    Attributes:
        whole, parameters: how many the model has, and how many this rank holds (counts).
        weights, gradients, optimizer: exact.
        low_precision: copies of the matrices in bf16 or fp16 while a step is computed.
        activations: of one micro-batch, kept for the backward pass.
        checkpointed: the same with --checkpoint-activations.
    """

    whole: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    low_precision: int
    activations: int
    checkpointed: int

    def total(self, checkpoint_activations: bool) -> int:
        """All together."""
        kept = self.checkpointed if checkpoint_activations else self.activations
        return self.weights + self.gradients + self.optimizer + self.low_precision + kept


@dataclass(frozen=True)
class StepShape:
    """What of a run decides its activations.

    Attributes:
        tokens: of one micro-batch.
        attended_length: tokens that a token attends to, on average.
        mask_prob: part of the positions that the head sees.
        precision: fp32, bf16 or fp16.
        fused_attention: whether attention probabilities never stand in memory (GPUs, or no attention dropout).
    """

    tokens: int
    attended_length: float
    mask_prob: float
    precision: str
    fused_attention: bool


def parameter_sizes(config: ProteinBertConfig) -> dict[str, int]:
    """Elements of every parameter of the pretraining model, by name; computed without memory."""
    with torch.device("meta"):
        model = ProteinBertForMaskedLM(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def rank_parameters(sizes: Mapping[str, int], layers: int, dims: ParallelDims) -> int:
    """Parameters on the rank that holds most; of a pipeline that is the first stage or the last.

    Args:
        sizes: of :func:`parameter_sizes`.
        layers: of the model.
        dims: the layout.
    """
    return max(_stage_parameters(sizes, layers, dims, stage) for stage in {0, dims.pipeline - 1})


def _stage_parameters(sizes: Mapping[str, int], layers: int, dims: ParallelDims, stage: int) -> int:
    own = dims.layers_of(stage, layers)
    first, last = stage == 0, stage == dims.pipeline - 1
    here = {"bert.embeddings.": first, "bert.encoder.final_ln.": last, "mlm.": last}
    here |= {f"bert.encoder.layer.{number}.": number in own for number in range(layers)}
    total = 0 if first or not last else sizes[TIED_NAME]
    for name, size in sizes.items():
        if next((kept for prefix, kept in here.items() if name.startswith(prefix)), True):
            total += size // dims.tensor if name.endswith(_SPLIT) else size
    return -(-total // dims.data) if dims.shards_data else total


def rank_memory(config: ProteinBertConfig, dims: ParallelDims, step: StepShape, optimizer: str) -> RankMemory:
    """Estimate one rank's memory.

    Args:
        config: of the model.
        dims: the layout.
        step: what a micro-batch looks like.
        optimizer: adam (two states a parameter) or sgd (one).
    """
    sizes = parameter_sizes(config)
    parameters = rank_parameters(sizes, config.num_hidden_layers, dims)
    # The first stage has the most blocks, and under 1F1B as many micro-batches in flight as there are stages.
    kept = len(dims.layers_of(0, config.num_hidden_layers)) * dims.pipeline
    blocks = block_bytes(config, dims, step) * kept
    inputs = _FP32 * config.hidden_size * kept / _token_parts(dims)
    ends = _end_bytes(config, step) / _token_parts(dims)
    return RankMemory(
        whole=sum(sizes.values()),
        parameters=parameters,
        weights=_FP32 * parameters,
        gradients=_FP32 * parameters,
        optimizer=(2 if optimizer == "adam" else 1) * _FP32 * parameters,
        low_precision=0 if step.precision == "fp32" else 2 * parameters,
        activations=round(step.tokens * (blocks + ends)),
        checkpointed=round(step.tokens * (inputs + block_bytes(config, dims, step) + ends)),
    )


def block_bytes(config: ProteinBertConfig, dims: ParallelDims, step: StepShape) -> float:
    """Bytes a token that one block keeps for its backward pass on one rank."""
    hidden, wide = config.hidden_size, config.intermediate_size
    width = _FP32 if step.precision == "fp32" else 2
    masks = 2 * hidden if config.hidden_dropout_prob > 0 else 0
    # In half precision query, key and value projections each keep a cast of the layer norm's output.
    casts = (1 if width == _FP32 else 3) + 1
    # With sequence parallelism the tokens are gathered for the matrix products, and split otherwise.
    whole = (2 * _FP32 * hidden + masks) / _token_parts(dims) + casts * width * hidden
    split = width * (3 * _GROUP_PADDING * hidden + _GROUP_PADDING * hidden + hidden + 2 * wide)
    if not step.fused_attention:
        split += config.num_attention_heads * step.attended_length * _GROUP_PADDING * (3 * _FP32)
    return whole + split / dims.tensor


def _token_parts(dims: ParallelDims) -> int:
    """Ranks that share the tokens of a row outside the split regions."""
    return dims.tensor if dims.splits_tokens else 1


def _end_bytes(config: ProteinBertConfig, step: StepShape) -> float:
    """Bytes a token of embeddings, final layer norm and head."""
    hidden = config.hidden_size
    return _FP32 * hidden + (hidden if config.hidden_dropout_prob > 0 else 0) + step.mask_prob * 5 * _FP32 * hidden

"""Estimate of the memory per rank from the model's sizes and the parallel layout, without allocating a model.

Weights, gradients and optimizer state are exact to the byte, for the rank that holds most of them. Activations are
estimated from the tensors that autograd saves per block: two residual streams, the inputs of two layer norms and four
matrix products, queries, keys and values, and the two wide states of the MLP. The temporarily gathered weights and
gradients of FSDP are an estimate, too. Kernel workspaces, fragmentation and the process itself are not included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from pretrain.optim.optimizer import OptimizerConfig, has_muon
from pretrain.parallel import TIED_NAME, ParallelDims
from tape.configs import ProteinBertConfig
from tape.models.meta_device import on_meta_device
from tape.models.modeling_bert import ProteinBertForMaskedLM

_SPLIT_ROWS = (
    "attention.self.query.weight",
    "attention.self.query.bias",
    "attention.self.key.weight",
    "attention.self.key.bias",
    "attention.self.value.weight",
    "attention.self.value.bias",
    "mlp.dense_h_4h.weight",
    "mlp.dense_h_4h.bias",
)
_SPLIT_COLUMNS = ("attention.dense.weight", "mlp.dense_4h_h.weight")
_BLOCK = "bert.encoder.layer."
_FP32 = 4
_GROUP_PADDING = 1.1  # positions per token where attention is computed on padded groups of proteins


@dataclass(frozen=True)
class RankMemory:
    """Memory of one rank; in bytes, except for the numbers of parameters.

    Attributes:
        model_parameters: number of parameters of the model.
        parameters: number of parameters on this rank.
        weights: fp32 weights, exact.
        gradients: fp32 gradients, exact.
        optimizer: optimizer state, exact.
        gathered: unsharded weights and gradients that FSDP holds temporarily.
        low_precision: bf16 or fp16 casts of the matrices during a step.
        activations: activations of one micro-batch that are saved for the backward pass.
        checkpointed: the same with --checkpoint-activations.
    """

    model_parameters: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    low_precision: int
    activations: int
    checkpointed: int

    def total(self, checkpoint_activations: bool) -> int:
        """Total memory in bytes."""
        kept = self.checkpointed if checkpoint_activations else self.activations
        return self.weights + self.gradients + self.optimizer + self.gathered + self.low_precision + kept


@dataclass(frozen=True)
class StepShape:
    """Properties of a step that determine the memory of its activations.

    Attributes:
        tokens: tokens per micro-batch.
        attended_length: mean number of tokens that a token attends to.
        mask_prob: fraction of positions that the head predicts.
        precision: fp32, bf16 or fp16.
        fused_attention: whether no attention probabilities are kept (GPUs, or fp32 without attention dropout).
        micro_batches: micro-batches per step on one rank.
    """

    tokens: int
    attended_length: float
    mask_prob: float
    precision: str
    fused_attention: bool
    micro_batches: int = 1


def parameter_shapes(config: ProteinBertConfig) -> dict[str, torch.Size]:
    """Shape of every parameter of the pretraining model, by name; computed on the meta device."""
    with on_meta_device():
        model = ProteinBertForMaskedLM(config)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def parameter_count(config: ProteinBertConfig) -> int:
    """Number of parameters of the pretraining model."""
    return sum(shape.numel() for shape in parameter_shapes(config).values())


def rank_parameters(shapes: Mapping[str, torch.Size], layers: int, dims: ParallelDims) -> dict[str, int]:
    """Elements of each parameter on the rank that holds most; in a pipeline it is on the first or the last stage.

    Args:
        shapes: shapes of the parameters, see :func:`parameter_shapes`.
        layers: number of transformer blocks.
        dims: parallel layout.
    """
    stages = ({name: _part(name, shapes[name], dims) for name in _names(shapes, layers, dims, s)} for s in _ends(dims))
    return max(stages, key=lambda stage: sum(stage.values()))


def _ends(dims: ParallelDims) -> set[int]:
    return {0, dims.pipeline - 1}


def _names(shapes: Mapping[str, torch.Size], layers: int, dims: ParallelDims, stage: int) -> list[str]:
    """Parameters of a stage in the order of the model; on the last stage, its tied embedding matrix is appended."""
    first, last = stage == 0, stage == dims.pipeline - 1
    here = {"bert.embeddings.": first, "bert.encoder.final_ln.": last, "mlm.": last}
    here |= {f"{_BLOCK}{number}.": number in dims.layers_of(stage, layers) for number in range(layers)}
    names = [n for n in shapes if next((kept for prefix, kept in here.items() if n.startswith(prefix)), True)]
    return names if first or not last else [*names, TIED_NAME]


def _part(name: str, shape: torch.Size, dims: ParallelDims) -> int:
    """Elements of a parameter on the first of its ranks; FSDP shards the rows, and the first rank has the most."""
    rows, *columns = shape
    if name.endswith(_SPLIT_ROWS):
        rows //= dims.tensor
    elif name.endswith(_SPLIT_COLUMNS):
        columns[0] //= dims.tensor
    return (-(-rows // dims.data) if dims.fsdp_enabled else rows) * math.prod(columns)


def rank_memory(
    config: ProteinBertConfig, dims: ParallelDims, step: StepShape, optimizer: OptimizerConfig
) -> RankMemory:
    """Estimate the memory of the rank that needs most.

    Args:
        config: sizes of the model.
        dims: parallel layout.
        step: properties of a step.
        optimizer: determines the optimizer state per parameter.
    """
    shapes = parameter_shapes(config)
    held = rank_parameters(shapes, config.num_hidden_layers, dims)
    elements = sum(held.values())
    # The first stage has the most blocks, and under 1F1B as many micro-batches in flight as there are stages.
    kept = len(dims.layers_of(0, config.num_hidden_layers)) * dims.pipeline
    blocks = block_bytes(config, dims, step) * kept
    inputs = _FP32 * config.hidden_size * kept / _token_parts(dims)
    ends = _end_bytes(config, step) / _token_parts(dims)
    return RankMemory(
        model_parameters=sum(shape.numel() for shape in shapes.values()),
        parameters=elements,
        weights=_FP32 * elements,
        gradients=_FP32 * elements,
        optimizer=sum(_state_bytes(size, has_muon(n, len(shapes[n])), optimizer) for n, size in held.items()),
        gathered=_gathered_bytes(shapes, config.num_hidden_layers, dims, step.micro_batches),
        low_precision=0 if step.precision == "fp32" else 2 * elements,
        activations=round(step.tokens * (blocks + ends)),
        checkpointed=round(step.tokens * (inputs + block_bytes(config, dims, step) + ends)),
    )


def _state_bytes(elements: int, is_block_matrix: bool, optimizer: OptimizerConfig) -> int:
    """Optimizer state of a parameter with ``elements`` on this rank."""
    if optimizer.name == "adam" or (optimizer.name == "muon" and not is_block_matrix):
        return _FP32 * (2 * elements + 1)  # two moments and a step counter
    return _FP32 * elements if optimizer.name == "muon" or optimizer.momentum else 0


def _gathered_bytes(shapes: Mapping[str, torch.Size], layers: int, dims: ParallelDims, micro_batches: int) -> int:
    """Unsharded weights and gradients that FSDP holds at the same time.

    Weights: those outside the blocks, of one block and of the prefetched next one. Gradients before the
    reduce-scatter: those of one block and the copy that is sent; with several micro-batches, those of the entire
    stage, because they are accumulated first.
    """
    if not dims.fsdp_enabled:
        return 0
    whole = replace(dims, fsdp=False)
    most = 0
    for stage in _ends(dims):
        names = _names(shapes, layers, dims, stage)
        total = sum(_part(name, shapes[name], whole) for name in names)
        blocks = sum(_part(name, shapes[name], whole) for name in names if name.startswith(_BLOCK))
        block = blocks // len(dims.layers_of(stage, layers))
        most = max(most, total - blocks + 2 * block + (total + block if micro_batches > 1 else 2 * block))
    return _FP32 * most


def block_bytes(config: ProteinBertConfig, dims: ParallelDims, step: StepShape) -> float:
    """Bytes per token that one block saves for its backward pass on one rank."""
    hidden, wide = config.hidden_size, config.intermediate_size
    width = _FP32 if step.precision == "fp32" else 2
    masks = 2 * hidden if config.hidden_dropout_prob > 0 else 0
    # In half precision the query, key and value projections each save a cast of the layer norm's output.
    casts = (1 if width == _FP32 else 3) + 1
    # With sequence parallelism the tokens are gathered for the matrix products and sharded elsewhere.
    whole = (2 * _FP32 * hidden + masks) / _token_parts(dims) + casts * width * hidden
    split = width * (3 * _GROUP_PADDING * hidden + _GROUP_PADDING * hidden + hidden + 2 * wide)
    if not step.fused_attention:
        # the probabilities; with dropout, also its mask and its result
        kept = 2 * width + 1 if config.attention_probs_dropout_prob > 0 else width
        split += config.num_attention_heads * step.attended_length * _GROUP_PADDING * kept
    return whole + split / dims.tensor


def _token_parts(dims: ParallelDims) -> int:
    """Number of ranks over which the tokens are sharded outside the tensor-parallel regions."""
    return dims.tensor if dims.sequence_parallel_enabled else 1


def _end_bytes(config: ProteinBertConfig, step: StepShape) -> float:
    """Bytes per token that embeddings, final layer norm and head save."""

    hidden = config.hidden_size
    return _FP32 * hidden + (hidden if config.hidden_dropout_prob > 0 else 0) + step.mask_prob * 5 * _FP32 * hidden

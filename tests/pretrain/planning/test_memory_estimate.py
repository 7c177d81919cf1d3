"""Parameter counts compared with built models, and estimated activations with the tensors that autograd saves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from pretrain.optim.optimizer import OptimizerConfig
from pretrain.parallel import ParallelContext, ParallelDims, apply_fsdp, local_parameters
from pretrain.parallel.context import DATA_AXIS, TENSOR_AXIS
from pretrain.planning.memory_estimate import (
    StepShape,
    block_bytes,
    parameter_count,
    parameter_shapes,
    rank_memory,
    rank_parameters,
)
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.models import low_precision
from tape.models.attention import PackedLayout
from tape.models.modeling_bert import ProteinBertForMaskedLM

# Accuracy of the activation estimate that the documentation states.
FACTOR = 1.25
LENGTHS = [40, 120, 60, 90, 75, 115]


def config(dropout: float = 0.1, attention_dropout: float = 0.0, layers: int = 2) -> ProteinBertConfig:
    return ProteinBertConfig(
        hidden_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=attention_dropout,
        type_vocab_size=1,
    )


@pytest.fixture
def fake_ranks() -> Iterator[None]:
    """A process group of eight ranks of which only this one exists, which suffices to shard a model."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    yield
    dist.destroy_process_group()


def test_the_count_equals_that_of_a_built_model() -> None:
    built = sum(parameter.numel() for parameter in ProteinBertForMaskedLM(config()).parameters())
    held = rank_parameters(parameter_shapes(config()), 2, ParallelDims())
    assert parameter_count(config()) == sum(held.values()) == built


def test_the_released_model_has_205_9_million_parameters() -> None:
    """The released checkpoint also contains bert_tail_dense, an unused H x H linear map."""
    released = ProteinBertConfig(
        hidden_size=1024,
        num_hidden_layers=16,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=2176,
        type_vocab_size=1,
        vocab_size=30,
    )
    assert parameter_count(released) + 1024 * 1024 + 1024 == 205_902_878


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_the_count_of_a_rank_equals_that_of_its_shards(fake_ranks: None, tensor: int, sharded: bool) -> None:
    dims = ParallelDims(8, tensor, fsdp=sharded)
    mesh = init_device_mesh("cpu", (dims.data, tensor), mesh_dim_names=(DATA_AXIS, TENSOR_AXIS))
    context = ParallelContext(dims, 0, torch.device("cpu"), mesh)
    model = build_model(config(), InitConfig(), context)
    apply_fsdp(model, context)
    held = {parameter.name: parameter.local.numel() for parameter in local_parameters(model, context)}
    assert held == rank_parameters(parameter_shapes(config()), 2, dims)


def test_parameter_count_of_the_largest_pipeline_stage() -> None:
    """Two stages of one block: embeddings on the first; final layer norm, head and the tied matrix on the last."""
    shapes = parameter_shapes(config())
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    block = sum(size for name, size in sizes.items() if ".layer.0." in name)
    embeddings = sum(size for name, size in sizes.items() if name.startswith("bert.embeddings."))
    head = sum(sizes.values()) - 2 * block - embeddings
    expected = block + max(embeddings, head + sizes["bert.embeddings.word_embeddings.weight"])
    assert sum(rank_parameters(shapes, 2, ParallelDims(2, pipeline=2)).values()) == expected


def kept_bytes(model: ProteinBertForMaskedLM, precision: str) -> int:
    """Bytes of distinct tensors, without weights, that autograd saves in the forward pass of a packed row."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {parameter.numel() for parameter in model.parameters()}  # casts of weights are counted separately
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.numel() not in sizes:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(5, 30, (1, sum(LENGTHS)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # autocast as on machines with bf16 instructions, instead of fp32 products of rounded numbers
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            hidden = model.bert(ids, packing=PackedLayout.from_lengths(LENGTHS))[0]
        hidden.float().sum()
        return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("dropout", "attention_dropout"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.1)])
def test_the_saved_activations_of_a_block_are_near_the_estimate(
    precision: str, dropout: float, attention_dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference between five blocks and one excludes the embeddings and the head."""
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: True)
    measured = []
    for layers in (1, 5):
        torch.manual_seed(0)
        model = ProteinBertForMaskedLM(config(dropout, attention_dropout, layers)).train()
        measured.append(kept_bytes(model, precision))
    tokens = sum(LENGTHS)
    attended = sum(length**2 for length in LENGTHS) / tokens
    shape = StepShape(tokens, attended, 0.15, precision, fused_attention=attention_dropout == 0 and precision == "fp32")
    estimated = tokens * block_bytes(config(dropout, attention_dropout), ParallelDims(), shape)
    assert 1 / FACTOR < estimated / ((measured[1] - measured[0]) / 4) < FACTOR


def test_weights_gradients_and_states_are_counted() -> None:
    shape = StepShape(1000, 100.0, 0.15, "bf16", True)
    memory = rank_memory(config(), ParallelDims(), shape, OptimizerConfig())
    count, tensors = parameter_count(config()), len(parameter_shapes(config()))
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * count, 4 * count, 8 * count + 4 * tensors)
    for momentum, expected in ((0.9, 4 * count), (0.0, 0)):
        optimizer = OptimizerConfig("sgd", momentum=momentum)
        assert rank_memory(config(), ParallelDims(), shape, optimizer).optimizer == expected
    shapes = parameter_shapes(config())
    block_matrices = [shape for name, shape in shapes.items() if ".layer." in name and len(shape) == 2]
    saved = sum(shape.numel() + 1 for shape in block_matrices)  # a moment and a step counter less than AdamW
    muon = rank_memory(config(), ParallelDims(), shape, OptimizerConfig("muon"))
    assert muon.optimizer == memory.optimizer - 4 * saved
    assert memory.total(False) - memory.total(True) == memory.activations - memory.checkpointed > 0


def test_sequence_parallelism_shards_the_residual_stream() -> None:
    """Two fp32 streams and two byte masks exist for half of the tokens only: 5 H bytes less per token and block."""
    shape = StepShape(1000, 100.0, 0.15, "fp32", True)
    whole, split = (ParallelDims(2, tensor=2, sequence_parallel=sequence) for sequence in (False, True))
    assert block_bytes(config(), whole, shape) - block_bytes(config(), split, shape) == 5 * 128
    memory, less = (rank_memory(config(), dims, shape, OptimizerConfig()) for dims in (whole, split))
    assert less.activations < memory.activations
    assert less.checkpointed < memory.checkpointed

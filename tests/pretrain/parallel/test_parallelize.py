"""Activation checkpointing and compilation of transformer blocks."""

from __future__ import annotations

import pytest
import torch

from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.parallel.parallelize import apply_activation_checkpointing, apply_compile
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.attention import AttentionCore, PackedLayout
from tape.models.modeling_bert import ProteinBertForMaskedLM

CPU = torch.device("cpu")
CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)


ALONE = ParallelContext(ParallelDims(), 0, CPU, None)


def model() -> ProteinBertForMaskedLM:
    return build_model(CONFIG, InitConfig(), ALONE).eval()


def encode(one: ProteinBertForMaskedLM, lengths: list[int]) -> torch.Tensor:
    layout = PackedLayout.from_lengths(lengths)
    ids = torch.arange(layout.tokens).unsqueeze(0) % 25 + 5
    result: torch.Tensor = one.bert(ids, packing=layout)[0]
    return result


@pytest.mark.parametrize(("granularity", "blocks", "cores"), [("full", 1, 0), ("selective", 0, 1), ("none", 0, 0)])
def test_granularity_selects_what_is_recomputed(granularity: str, blocks: bool, cores: bool) -> None:
    one = model()
    apply_activation_checkpointing(one, granularity)
    assert one.bert.encoder.checkpoint_activations == bool(blocks)
    assert {m.recompute for m in one.modules() if isinstance(m, AttentionCore)} == {bool(cores)}


# torch's tracer looks at .grad of every tensor it meets
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_blocks_equal_uncompiled_ones_for_any_lengths() -> None:
    plain, compiled = model(), model()
    names = list(compiled.state_dict())
    apply_compile(compiled, CPU, backend="aot_eager")
    assert list(compiled.state_dict()) == names
    for lengths in ([5, 9], [3, 4, 20], [12]):
        torch.testing.assert_close(encode(compiled, lengths), encode(plain, lengths))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_blocks_draw_the_same_dropout() -> None:
    """Hooks switch the random state of the attention core: they are not compiled, and cause no recompilation."""
    config = ProteinBertConfig(**{**CONFIG.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5})
    plain, compiled = (build_model(config, InitConfig(), ALONE).train() for _ in range(2))
    apply_compile(compiled, CPU, backend="aot_eager")
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for seed in range(3):
            states = []
            for one in (plain, compiled):
                torch.manual_seed(seed)
                states.append(encode(one, [5, 9]))
            torch.testing.assert_close(*states)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        apply_compile(model(), CPU)

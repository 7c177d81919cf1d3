"""What value and class heads see of a protein."""

from __future__ import annotations

import pytest
import torch

from tape import ProteinBertForSequenceClassification, ProteinBertForValuePrediction, TAPETokenizer
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.pooling import ProteinPooling, residue_mask

SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "head_hidden_size": 4,
    "num_labels": 3,
}


def test_residues_are_neither_special_tokens_nor_padding() -> None:
    states = torch.zeros(2, 5, 1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert residue_mask(states, mask).int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]
    assert residue_mask(states, None).int().tolist() == [[0, 1, 1, 1, 0]] * 2


def test_mean_and_attention_by_hand() -> None:
    states = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [3.0, 2.0], [9.0, 9.0], [7.0, 7.0]]])
    pooled, mask = states[:, 0], torch.tensor([[1, 1, 1, 1, 0]])
    assert ProteinPooling("cls", 2)(states, pooled, mask).tolist() == [[9.0, 9.0]]
    assert ProteinPooling("mean", 2)(states, pooled, mask).tolist() == [[2.0, 1.0]]
    attention = ProteinPooling("attention", 2)
    assert attention(states, pooled, mask).tolist() == [[2.0, 1.0]]  # starts as the mean
    with torch.no_grad():
        attention.query.copy_(torch.tensor([2.0, 0.0]))
    first, second = torch.tensor([1.0, 3.0]).mul(2 / 2**0.5).softmax(0).tolist()
    expected = [first * 1 + second * 3, second * 2]
    assert attention(states, pooled, mask)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cls", "mean", "attention"])
@pytest.mark.parametrize("model_class", [ProteinBertForValuePrediction, ProteinBertForSequenceClassification])
def test_models_take_it_from_their_configuration(kind: str, model_class: type, tmp_path) -> None:
    torch.manual_seed(0)
    model = model_class(ProteinBertConfig(**SMALL, pooling=kind)).eval()
    names = set(model.state_dict())
    assert names - set(model_class(ProteinBertConfig(**SMALL)).state_dict()) == (
        {"pooling.query"} if kind == "attention" else set()
    )
    tokenizer = TAPETokenizer()
    long, short = (torch.from_numpy(tokenizer.encode(text)) for text in ("ACDEFGHI", "KLM"))
    ids = torch.zeros(2, len(long), dtype=torch.int64)
    ids[0], ids[1, : len(short)] = long, short
    if kind == "attention":
        torch.nn.init.normal_(model.pooling.query)
    with torch.no_grad():
        batched = model(ids, (ids != 0).long())[0]
        alone = torch.cat([model(long[None])[0], model(short[None])[0]])
    torch.testing.assert_close(batched, alone, rtol=1e-5, atol=1e-6)
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path)
    assert again.config.pooling == kind
    with torch.no_grad():
        assert torch.equal(again(ids, (ids != 0).long())[0], batched)


def test_the_query_learns() -> None:
    model = ProteinBertForValuePrediction(ProteinBertConfig(**SMALL, pooling="attention"))
    (loss, _), _ = model(torch.tensor([[2, 5, 6, 7, 3]]), targets=torch.tensor([[1.0]]))
    loss.backward()
    assert model.pooling.query.grad is not None
    assert model.pooling.query.grad.abs().sum() > 0


def test_other_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="pooling must be one of cls, mean, attention, not 'max'"):
        ProteinBertConfig(pooling="max")
    with pytest.raises(ConfigError, match="not 'max'"):
        ProteinPooling("max", 4)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("model_class", [ProteinBertForValuePrediction, ProteinBertForSequenceClassification])
def test_heads_under_autocast_resolve_single_mutations_of_long_proteins(model_class: type, norm: str) -> None:
    torch.manual_seed(0)
    config = ProteinBertConfig(**SMALL | {"max_position_embeddings": 512}, pooling="mean", pooled_norm=norm)
    model = model_class(config).eval()
    wild_type = torch.randint(5, 25, (1, 400))
    wild_type[:, 0], wild_type[:, -1] = 2, 3
    variants = wild_type.repeat(4, 1)
    for row in range(1, 4):
        variants[row, 100 * row] = 5 + (int(wild_type[0, 100 * row]) - 4) % 20
    with torch.no_grad():
        exact = model(variants)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(variants)[0]
    assert rounded.dtype == torch.float32
    effects, expected = rounded[1:] - rounded[:1], exact[1:] - exact[:1]
    assert (effects - expected).norm() < 0.1 * expected.norm()


def test_batch_normalization_gives_the_head_differences_of_unit_variance() -> None:
    torch.manual_seed(0)
    model = ProteinBertForValuePrediction(ProteinBertConfig(**SMALL, pooling="mean", pooled_norm="batch"))
    inputs: list[torch.Tensor] = []
    model.predict.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].detach()))
    ids = torch.randint(5, 25, (32, 12))
    model(ids)
    assert inputs[0].mean(0) == pytest.approx(0, abs=1e-5)
    assert inputs[0].var(0, unbiased=False) == pytest.approx(1, abs=0.05)
    model.eval()(ids[:1])  # with the running statistics: a single protein is not its own mean
    assert inputs[1].abs().sum() > 0


def test_a_model_cast_to_bf16_predicts() -> None:
    model = ProteinBertForValuePrediction(ProteinBertConfig(**SMALL, pooling="mean", pooled_norm="batch"))
    assert model.to(torch.bfloat16).eval()(torch.tensor([[2, 5, 6, 7, 3]]))[0].dtype == torch.bfloat16

"""The rule tables: transforms against rows placed by hand, and totality in both directions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from converter.mapping import (
    MEGATRON_VOCABULARY,
    Layout,
    Mapped,
    check_total,
    map_megatron,
    map_proteinlm,
    query_key_value,
    same,
    token_rows_by_name,
)
from tape.errors import CheckpointError, VocabularyMismatchError
from tape.tokenizers import IUPAC_VOCAB
from tests.converter.megatron_writer import Truth, expected_state, make_truth, rank_model

ROWS, _ = token_rows_by_name(MEGATRON_VOCABULARY)


def shards_of(truth: Truth) -> dict[str, tuple[Tensor, ...]]:
    model = rank_model(truth, 0, 1, 0, 1, 3.0, True)
    language = model["language_model"]
    flat = {f"language_model.transformer.{key}": value for key, value in language["transformer"].items()}
    for table, weights in language["embedding"].items():
        flat[f"language_model.embedding.{table}.weight"] = weights["weight"]
    flat |= {f"lm_head.{key}": value for key, value in model["lm_head"].items()}
    return {key: (value,) for key, value in flat.items()}


def convert(shards: dict[str, tuple[Tensor, ...]], truth: Truth) -> Mapped:
    return map_megatron(shards, truth.layers, Layout(truth.heads, 3.0, ROWS), token_types=1)


@pytest.fixture
def truth() -> Truth:
    return make_truth()


@pytest.mark.parametrize("version", [0.0, 1.0, 2.0, 3.0])
def test_query_key_value_order(version: float) -> None:
    heads, size, hidden = 2, 3, 5
    # the value of a row tells part, head and row within the head
    rows = {
        (p, h, r): torch.full((hidden,), 100.0 * p + 10 * h + r) for p in range(3) for h in range(2) for r in range(3)
    }
    orders = {
        0.0: [(p, h, r) for p in range(3) for h in range(2) for r in range(3)],
        1.0: [(p, h, r) for h in range(2) for r in range(3) for p in range(3)],
    }
    order = orders.get(version, [(p, h, r) for h in range(2) for p in range(3) for r in range(3)])
    fused = torch.stack([rows[key] for key in order])
    parts = query_key_value((fused,), Layout(heads, version, ROWS))
    for number, part in enumerate(parts):
        expected = torch.stack([rows[number, h, r] for h in range(heads) for r in range(size)])
        assert torch.equal(part, expected)


def test_token_rows_by_name() -> None:
    assert ROWS[:5] == (0, 1, 2, 3, 4)
    assert ROWS[5:] == tuple(range(6, 31))
    shuffled = list(reversed(MEGATRON_VOCABULARY))
    rows, unused = token_rows_by_name(shuffled)
    assert [shuffled[row] for row in rows][5:] == list(IUPAC_VOCAB)[5:]
    assert unused == ("[unused1]",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens: tokens[:-1], "lacks: Z"),
        (lambda tokens: (*tokens, "A"), "twice: A"),
        (lambda tokens: (*tokens, "J"), "without a counterpart: J"),
    ],
)
def test_other_vocabularies_are_refused_by_name(change, message: str) -> None:
    with pytest.raises(VocabularyMismatchError, match=message):
        token_rows_by_name(change(MEGATRON_VOCABULARY))


def test_every_missing_key_is_an_error_that_names_it(truth: Truth) -> None:
    shards = shards_of(truth)
    for key in shards:
        rest = {name: value for name, value in shards.items() if name != key}
        with pytest.raises(CheckpointError) as caught:
            convert(rest, truth)
        assert key in str(caught.value)


def test_unknown_key_is_an_error_that_names_it(truth: Truth) -> None:
    shards = shards_of(truth) | {"language_model.transformer.layers.0.adapter.weight": (torch.zeros(2),)}
    with pytest.raises(CheckpointError, match=r"layers\.0\.adapter\.weight: no rule knows"):
        convert(shards, truth)


def test_deliberate_drops_are_recorded(truth: Truth) -> None:
    shards = shards_of(truth) | {
        "language_model.pooler.dense.weight": (torch.zeros(2),),
        "binary_head.bias": (torch.zeros(2),),
    }
    mapped = convert(shards, truth)
    assert set(mapped.dropped) == {"language_model.pooler.dense.weight", "binary_head.bias"}
    assert mapped.state.keys() == expected_state(truth).keys()


def test_language_model_head_and_tied_decoder_are_kept(truth: Truth) -> None:
    # defects 5 and 26
    state = convert(shards_of(truth), truth).state
    assert torch.equal(state["mlm.decoder.weight"], state["bert.embeddings.word_embeddings.weight"])
    for name in ("mlm.bias", "mlm.transform.dense.weight", "mlm.transform.LayerNorm.bias"):
        assert torch.equal(state[name], expected_state(truth)[name])


def test_token_types_of_the_source_are_kept(truth: Truth) -> None:
    types = torch.arange(2.0 * truth.hidden).view(2, -1)
    shards = shards_of(truth) | {"language_model.embedding.tokentype_embeddings.weight": (types,)}
    mapped = convert(shards, truth)
    assert torch.equal(mapped.state["bert.embeddings.token_type_embeddings.weight"], types)
    assert not mapped.filled


def test_replicated_tensors_may_differ_by_rounding_only() -> None:
    tensor = torch.ones(3)
    layout = Layout(1, 3.0, ROWS)
    assert torch.equal(same((tensor, tensor * (1 + 1e-7)), layout)[0], tensor)
    with pytest.raises(CheckpointError, match="different values"):
        same((tensor, tensor + 1e-3), layout)
    with pytest.raises(CheckpointError, match="different values"):
        same((tensor, torch.full((3,), float("nan"))), layout)


def test_too_few_embedding_rows(truth: Truth) -> None:
    shards = shards_of(truth)
    key = "language_model.embedding.word_embeddings.weight"
    with pytest.raises(CheckpointError, match=r"word_embeddings.*30 rows"):
        convert(shards | {key: (shards[key][0][:30],)}, truth)


def test_tensor_without_dimensions_is_named(truth: Truth) -> None:
    key = "language_model.transformer.layers.0.attention.query_key_value.bias"
    with pytest.raises(CheckpointError, match=r"query_key_value\.bias: has shapes"):
        convert(shards_of(truth) | {key: (torch.tensor(1.0),)}, truth)


def test_our_names_pass_and_the_unused_tail_is_dropped(truth: Truth) -> None:
    state = expected_state(truth) | {"bert.bert_tail_dense.bias": torch.zeros(truth.hidden)}
    mapped = map_proteinlm(state, Layout(truth.heads, 3.0, tuple(range(30))))
    assert mapped.dropped.keys() == {"bert.bert_tail_dense.bias"}
    assert mapped.state.keys() == expected_state(truth).keys()


def test_our_checkpoint_with_another_token_order(truth: Truth) -> None:
    order = tuple(reversed(range(30)))
    state = expected_state(truth)
    mapped = map_proteinlm(state, Layout(truth.heads, 3.0, order)).state
    assert torch.equal(mapped["mlm.bias"], state["mlm.bias"].flip(0))
    assert torch.equal(mapped["mlm.decoder.weight"], state["mlm.decoder.weight"].flip(0))


def test_check_total_names_each_kind_of_difference() -> None:
    expected = {"a": torch.Size([2]), "b": torch.Size([3])}
    state = {"a": torch.zeros(2), "b": torch.zeros(3)}
    check_total(state, expected)
    with pytest.raises(CheckpointError, match="b: the model needs it"):
        check_total({"a": torch.zeros(2)}, expected)
    with pytest.raises(CheckpointError, match="c: the source has it"):
        check_total({**state, "c": torch.zeros(1)}, expected)
    with pytest.raises(CheckpointError, match=r"b: has shape \(4,\)"):
        check_total({**state, "b": torch.zeros(4)}, expected)

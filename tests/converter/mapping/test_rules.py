"""The rule tables: transforms compared with rows arranged by hand, and completeness in both directions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from converter.formats.megatron.source import map_megatron
from converter.mapping.rules import (
    Mapped,
    Shards,
    apply_rules,
    as_single_rank,
    invert_rules,
    token_rows_by_name,
)
from converter.mapping.tables import (
    HUGGINGFACE_RULES,
    MEGATRON_RULES,
    MEGATRON_VOCABULARY,
    POST_LN_RULES,
    PROTEINLM_DROPS,
    PROTEINLM_POST_RULES,
    PROTEINLM_RULES,
    TAPE_05_RULES,
)
from converter.mapping.transforms import (
    TRANSFORMS,
    TransformSettings,
    merge_query_key_value,
    merge_same,
    split_query_key_value,
)
from tape.errors import CheckpointError, VocabularyMismatchError
from tape.models.lazy_tensors import LazyTensor
from tape.tokenizers import IUPAC_VOCAB
from tests.support.megatron_writer import Truth, expected_state, make_truth, rank_model

HERE = Path("checkpoint")
ROWS, _ = token_rows_by_name(MEGATRON_VOCABULARY, HERE)


def shards_of(truth: Truth) -> dict[str, tuple[Tensor, ...]]:
    model = rank_model(truth, 0, 1, 0, 1, 3.0, True)
    language = model["language_model"]
    flat = {f"language_model.transformer.{key}": value for key, value in language["transformer"].items()}
    for table, weights in language["embedding"].items():
        flat[f"language_model.embedding.{table}.weight"] = weights["weight"]
    flat |= {f"lm_head.{key}": value for key, value in model["lm_head"].items()}
    return {key: (value,) for key, value in flat.items()}


def lazily(shards: dict[str, tuple[Tensor, ...]]) -> dict[str, Shards]:
    return {key: tuple(map(LazyTensor.of, tensors)) for key, tensors in shards.items()}


def loaded(mapped: Mapped) -> dict[str, Tensor]:
    return {name: tensor.load() for name, tensor in mapped.state.items()}


def convert(shards: dict[str, tuple[Tensor, ...]], truth: Truth) -> Mapped:
    return map_megatron(lazily(shards), truth.layers, TransformSettings(truth.heads, 3.0, ROWS), 1, HERE)


def map_proteinlm(state: dict[str, Tensor], layout: TransformSettings) -> Mapped:
    shards = as_single_rank({key: LazyTensor.of(value) for key, value in state.items()})
    return apply_rules(PROTEINLM_RULES, PROTEINLM_DROPS, shards, 2, layout, HERE)


@pytest.fixture
def truth() -> Truth:
    return make_truth()


@pytest.mark.parametrize("version", [0.0, 1.0, 2.0, 3.0])
def test_query_key_value_rows_are_reordered_for_each_checkpoint_version(version: float) -> None:
    heads, size, hidden = 2, 3, 5
    # the value of a row encodes part, head and row within the head
    rows = {
        (p, h, r): torch.full((hidden,), 100.0 * p + 10 * h + r) for p in range(3) for h in range(2) for r in range(3)
    }
    orders = {
        0.0: [(p, h, r) for p in range(3) for h in range(2) for r in range(3)],
        1.0: [(p, h, r) for h in range(2) for r in range(3) for p in range(3)],
    }
    order = orders.get(version, [(p, h, r) for h in range(2) for p in range(3) for r in range(3)])
    fused = torch.stack([rows[key] for key in order])
    layout = TransformSettings(heads, version, ROWS)
    parts = merge_query_key_value((fused,), layout)
    for number, part in enumerate(parts):
        expected = torch.stack([rows[number, h, r] for h in range(heads) for r in range(size)])
        assert torch.equal(part, expected)
    assert torch.equal(split_query_key_value(parts, layout)[0], fused)


def test_token_rows_are_selected_by_name() -> None:
    assert ROWS[:5] == (0, 1, 2, 3, 4)
    assert ROWS[5:] == tuple(range(6, 31))
    shuffled = list(reversed(MEGATRON_VOCABULARY))
    rows, unused = token_rows_by_name(shuffled, HERE)
    assert [shuffled[row] for row in rows][5:] == list(IUPAC_VOCAB)[5:]
    assert unused == ("[unused1]",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens: tokens[:-1], "lacks: Z"),
        (lambda tokens: (*tokens, "A"), "twice: A"),
        (lambda tokens: (*tokens, "J"), "tokens that TAPE lacks: J"),
    ],
)
def test_other_vocabularies_are_refused_by_name(change, message: str) -> None:
    with pytest.raises(VocabularyMismatchError, match=message):
        token_rows_by_name(change(MEGATRON_VOCABULARY), HERE)


def test_a_large_foreign_vocabulary_is_named_in_few_words() -> None:
    tokens = (*MEGATRON_VOCABULARY, *(f"word{number}" for number in range(30_000)))
    with pytest.raises(VocabularyMismatchError, match=r"checkpoint: .* lacks: word0, .*, word9 and 29990 more$"):
        token_rows_by_name(tokens, HERE)


def test_every_missing_key_is_an_error_that_names_it(truth: Truth) -> None:
    shards = shards_of(truth)
    for key in shards:
        rest = {name: value for name, value in shards.items() if name != key}
        with pytest.raises(CheckpointError) as caught:
            convert(rest, truth)
        assert key in str(caught.value)


def test_unknown_key_is_an_error_that_names_it(truth: Truth) -> None:
    shards = shards_of(truth) | {"language_model.transformer.layers.0.adapter.weight": (torch.zeros(2),)}
    with pytest.raises(CheckpointError, match=r"layers\.0\.adapter\.weight: unknown key"):
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
    # bugs 5 and 26 in docs/compatibility.md
    state = loaded(convert(shards_of(truth), truth))
    assert torch.equal(state["mlm.decoder.weight"], state["bert.embeddings.word_embeddings.weight"])
    for name in ("mlm.bias", "mlm.transform.dense.weight", "mlm.transform.LayerNorm.bias"):
        assert torch.equal(state[name], expected_state(truth)[name])


def test_token_types_of_the_source_are_kept(truth: Truth) -> None:
    types = torch.arange(2.0 * truth.hidden).view(2, -1)
    shards = shards_of(truth) | {"language_model.embedding.tokentype_embeddings.weight": (types,)}
    mapped = convert(shards, truth)
    assert torch.equal(loaded(mapped)["bert.embeddings.token_type_embeddings.weight"], types)
    assert not mapped.filled


def test_replicated_tensors_may_differ_by_rounding_only() -> None:
    tensor = torch.ones(3)
    layout = TransformSettings(1, 3.0, ROWS)
    assert torch.equal(merge_same((tensor, tensor * (1 + 1e-7)), layout)[0], tensor)
    with pytest.raises(CheckpointError, match="different values"):
        merge_same((tensor, tensor + 1e-3), layout)
    small = torch.tensor([9e-4, -0.02, 0.0], dtype=torch.float16)  # less than the spacing of the data type at 1
    zero = torch.zeros(1, dtype=torch.float16)
    assert torch.equal(merge_same((small, torch.nextafter(small, small * 2)), layout)[0], small)
    assert torch.equal(merge_same((zero, torch.nextafter(zero, zero + 1)), layout)[0], zero)
    for other in (torch.zeros_like(small), small + 5e-4):
        with pytest.raises(CheckpointError, match="different values"):
            merge_same((small, other), layout)
    with pytest.raises(CheckpointError, match="different values"):
        merge_same((tensor, torch.full((3,), float("nan"))), layout)


def test_too_few_embedding_rows_are_refused(truth: Truth) -> None:
    shards = shards_of(truth)
    key = "language_model.embedding.word_embeddings.weight"
    with pytest.raises(CheckpointError, match=r"word_embeddings.*30 rows"):
        convert(shards | {key: (shards[key][0][:30],)}, truth)


def test_tensor_without_dimensions_is_named(truth: Truth) -> None:
    key = "language_model.transformer.layers.0.attention.query_key_value.bias"
    with pytest.raises(CheckpointError, match=r"query_key_value\.bias: has shapes"):
        convert(shards_of(truth) | {key: (torch.tensor(1.0),)}, truth)


def test_names_of_tape_are_kept_and_the_unused_last_layer_is_dropped(truth: Truth) -> None:
    state = expected_state(truth) | {"bert.bert_tail_dense.bias": torch.zeros(truth.hidden)}
    mapped = map_proteinlm(state, TransformSettings(truth.heads, 3.0, tuple(range(30))))
    assert mapped.dropped.keys() == {"bert.bert_tail_dense.bias"}
    assert mapped.state.keys() == expected_state(truth).keys()


def test_token_rows_of_a_sharded_checkpoint_are_reordered(truth: Truth) -> None:
    order = tuple(reversed(range(30)))
    state = expected_state(truth)
    converted = map_proteinlm(state, TransformSettings(truth.heads, 3.0, order))
    mapped = loaded(converted)
    assert torch.equal(mapped["mlm.bias"], state["mlm.bias"].flip(0))
    assert torch.equal(mapped["mlm.decoder.weight"], state["mlm.decoder.weight"].flip(0))


@pytest.mark.parametrize("version", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_splitting_and_merging_are_inverses(version: float, ranks: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layout = TransformSettings(heads=4, version=version, token_rows=ROWS, ranks=ranks, embedding_rows=32)
    wide, words = torch.randn(8, 12, generator=generator), torch.randn(30, 8, generator=generator)
    parts = tuple(torch.randn(8, 8, generator=generator) for _ in range(3))
    for name, tensors in {
        "same": (wide,),
        "rows": (wide,),
        "columns": (wide,),
        "token_rows": (words,),
        "query_key_value": parts,
    }.items():
        transform = TRANSFORMS[name]
        shares = transform.split(tensors, layout)
        assert len(shares) == ranks
        merged = transform.merge(shares, layout)
        assert all(torch.equal(one, other) for one, other in zip(merged, tensors, strict=True)), name


@pytest.mark.parametrize("rules", [MEGATRON_RULES, HUGGINGFACE_RULES, PROTEINLM_RULES])
def test_every_table_produces_the_same_model(rules: tuple, truth: Truth) -> None:
    state = {key: LazyTensor.of(value) for key, value in expected_state(truth).items()}
    layout = TransformSettings(truth.heads, 3.0, ROWS, ranks=2, embedding_rows=256)
    shards = invert_rules(rules, state, truth.layers, layout)
    found = apply_rules(rules, {}, shards, truth.layers, layout, HERE)
    assert found.state.keys() == state.keys()
    for key, tensor in found.state.items():
        assert torch.equal(tensor.load(), state[key].load()), key


def test_tables_of_the_post_layer_norm_forms_name_the_same_parameters() -> None:
    tables = (POST_LN_RULES, TAPE_05_RULES, PROTEINLM_POST_RULES)
    first, *others = ({target for rule in rules for target in rule.targets} for rules in tables)
    assert others == [first, first]


def test_the_reverse_mapping_is_complete(truth: Truth) -> None:
    state = {key: LazyTensor.of(value) for key, value in expected_state(truth).items()}
    layout = TransformSettings(truth.heads, 3.0, ROWS, embedding_rows=128)
    for rules in (MEGATRON_RULES, HUGGINGFACE_RULES):
        with pytest.raises(CheckpointError, match=r"adapter\.weight: unknown key: the format to write has no rule"):
            invert_rules(rules, state | {"adapter.weight": state["mlm.bias"]}, truth.layers, layout)
        for key in state:
            if key == "bert.embeddings.token_type_embeddings.weight" and rules is MEGATRON_RULES:
                continue  # it is optional in Megatron-LM
            rest = {name: value for name, value in state.items() if name != key}
            with pytest.raises(CheckpointError, match=f"{key} is missing"):
                invert_rules(rules, rest, truth.layers, layout)


def test_a_size_that_is_not_divisible_by_the_ranks_is_named(truth: Truth) -> None:
    state = {key: LazyTensor.of(value) for key, value in expected_state(truth).items()}
    layout = TransformSettings(truth.heads, 3.0, ROWS, ranks=3, embedding_rows=384)
    with pytest.raises(CheckpointError, match=r"query\.weight: size 32 can't be divided by 3"):
        invert_rules(MEGATRON_RULES, state, truth.layers, layout)

"""Which tensor of a source becomes which tensor of a TAPE model: rule tables and a few named transforms.

A table is total both ways. A source key that no rule consumes and no drop lists, and a model parameter that no rule
produces, are errors that name the key. Merging tensor-parallel ranks, the version's query/key/value order and
embedding rows by token name are transforms; everything else is a rename.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from tape.errors import CheckpointError, VocabularyMismatchError
from tape.tokenizers import IUPAC_VOCAB, MEGATRON_SPECIAL_TOKENS

Shards = tuple[Tensor, ...]

# Megatron's 31-line iupac_vocab.txt; id = line. (INTERFACE section 4)
MEGATRON_VOCABULARY = ("[PAD]", "[MASK]", "[CLS]", "[SEP]", "[UNK]", "[unused1]", *"ABCDEFGHIKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Layout:
    """What the transforms must know of a source.

    Args:
        heads: attention heads of the whole model.
        version: Megatron's checkpoint version, for the order of the query/key/value rows.
        token_rows: for each TAPE token id, its row in the source's (merged) embedding.
    """

    heads: int
    version: float
    token_rows: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """``{i}`` in a name stands for every layer's number. ``group`` marks rules that a source may lack as a whole."""

    source: str
    transform: str
    targets: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Mapped:
    """A model's state dict with the record of what became of the rest."""

    state: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)


_EMBEDDING = "language_model.embedding."
_FROM = "language_model.transformer.layers.{i}."
_TO = "bert.encoder.layer.{i}."
WORD_EMBEDDINGS = _EMBEDDING + "word_embeddings.weight"
HEAD_EMBEDDINGS = "word_embeddings_for_head.weight"
_TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"


def _pair(source: str, target: str, transform: str = "same", bias: str = "same", group: str = "") -> tuple[Rule, Rule]:
    """Rules of a layer's weight and bias."""
    return (
        Rule(f"{source}.weight", transform, (f"{target}.weight",), group),
        Rule(f"{source}.bias", bias, (f"{target}.bias",), group),
    )


def _attention_targets(kind: str) -> tuple[str, ...]:
    return tuple(f"{_TO}attention.self.{name}.{kind}" for name in ("query", "key", "value"))


MEGATRON_RULES: tuple[Rule, ...] = (
    Rule(WORD_EMBEDDINGS, "token_rows", ("bert.embeddings.word_embeddings.weight",)),
    Rule(WORD_EMBEDDINGS, "token_rows", ("mlm.decoder.weight",), "head"),
    Rule(_EMBEDDING + "position_embeddings.weight", "same", ("bert.embeddings.position_embeddings.weight",)),
    Rule(_EMBEDDING + "tokentype_embeddings.weight", "same", (_TOKEN_TYPES,), "token types"),
    *_pair(_FROM + "input_layernorm", _TO + "input_ln"),
    Rule(_FROM + "attention.query_key_value.weight", "query_key_value", _attention_targets("weight")),
    Rule(_FROM + "attention.query_key_value.bias", "query_key_value", _attention_targets("bias")),
    *_pair(_FROM + "attention.dense", _TO + "attention.dense", "columns"),
    *_pair(_FROM + "post_attention_layernorm", _TO + "post_attn_ln"),
    *_pair(_FROM + "mlp.dense_h_to_4h", _TO + "mlp.dense_h_4h", "rows", bias="rows"),
    *_pair(_FROM + "mlp.dense_4h_to_h", _TO + "mlp.dense_4h_h", "columns"),
    *_pair("language_model.transformer.final_layernorm", "bert.encoder.final_ln"),
    Rule("lm_head.bias", "token_rows", ("mlm.bias",), "head"),
    *_pair("lm_head.dense", "mlm.transform.dense", group="head"),
    *_pair("lm_head.layernorm", "mlm.transform.LayerNorm", group="head"),
)

# Source keys that a TAPE model has no place for, with the reason that the provenance states.
MEGATRON_DROPS: dict[str, str] = {
    "language_model.pooler.*": "TAPE pools by the state of the first token",
    "binary_head.*": "next-sentence head, unused with proteins",
    HEAD_EMBEDDINGS: "the last pipeline stage's copy of the word embeddings, checked to be equal",
}

PROTEINLM_DROPS: dict[str, str] = {
    "bert.bert_tail_dense.*": "never used by the original model",
}


def same(shards: Shards, layout: Layout) -> Shards:
    """Replicated on every rank: the ranks may differ by rounding of the last bit at most."""
    first = shards[0]
    for other in shards[1:]:
        bound = torch.finfo(first.dtype).eps * first.abs().clamp(min=1.0)
        if other.shape != first.shape or not bool(((other - first).abs() <= bound).all()):
            raise CheckpointError("the tensor-parallel ranks hold different values of what is one tensor")
    return (first,)


def rows(shards: Shards, layout: Layout) -> Shards:
    """Column-parallel: output rows are spread over the ranks."""
    return (_concatenate(shards, 0),)


def columns(shards: Shards, layout: Layout) -> Shards:
    """Row-parallel: input columns are spread over the ranks."""
    return (_concatenate(shards, 1),)


def token_rows(shards: Shards, layout: Layout) -> Shards:
    """Vocabulary-parallel: rows are spread over the ranks, and picked by token name (padding rows stay behind)."""
    whole = _concatenate(shards, 0)
    if whole.shape[0] <= max(layout.token_rows):
        raise CheckpointError(f"has {whole.shape[0]} rows, too few for the vocabulary's row {max(layout.token_rows)}")
    return (whole[list(layout.token_rows)],)


def query_key_value(shards: Shards, layout: Layout) -> Shards:
    """Split each rank's fused rows by the version's order, then put the ranks' heads in sequence.

    With n heads a rank of size d the rows are [3, n, d] in version 0, [n, d, 3] in 1.0 and [n, 3, d] from 2.0.
    """
    axis = {0.0: 0, 1.0: 2}.get(layout.version, 1)
    local_heads, remainder = divmod(layout.heads, len(shards))
    parts: list[list[Tensor]] = [[], [], []]
    for shard in shards:
        if remainder or shard.shape[0] % (3 * local_heads):
            raise CheckpointError(f"{shard.shape[0]} rows don't hold 3 x {layout.heads} heads over {len(shards)} ranks")
        size = shard.shape[0] // (3 * local_heads)
        shape = [local_heads, size]
        shape.insert(axis, 3)
        for part, tensor in zip(parts, shard.reshape(*shape, *shard.shape[1:]).unbind(axis), strict=True):
            part.append(tensor.reshape(local_heads * size, *shard.shape[1:]))
    return tuple(torch.cat(part) for part in parts)


TRANSFORMS: dict[str, Callable[[Shards, Layout], Shards]] = {
    function.__name__: function for function in (same, rows, columns, token_rows, query_key_value)
}


def _concatenate(shards: Shards, dimension: int) -> Tensor:
    shapes = {shard.shape[:dimension] + shard.shape[dimension + 1 :] for shard in shards}
    if len(shapes) > 1 or shards[0].ndim <= dimension:
        raise CheckpointError(f"the ranks' shapes don't fit together: {[tuple(shard.shape) for shard in shards]}")
    return shards[0] if len(shards) == 1 else torch.cat(shards, dimension)


def token_rows_by_name(source_tokens: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """For each TAPE token its row in a source with these tokens; and the source's unused tokens, which stay behind.

    Raises:
        VocabularyMismatchError: a TAPE token is missing, a token is there twice, or one has no counterpart in TAPE.
    """
    names = [MEGATRON_SPECIAL_TOKENS.get(token, token) for token in source_tokens]
    unused = tuple(token for token in names if token.startswith("[unused") or not token)  # "": a blank line
    foreign = [token for token in names if token not in IUPAC_VOCAB and token not in unused]
    missing = [token for token in IUPAC_VOCAB if token not in names]
    doubled = sorted({token for token in names if token and names.count(token) > 1})
    for problem, tokens in (("lacks", missing), ("has without a counterpart", foreign), ("has twice", doubled)):
        if tokens:
            raise VocabularyMismatchError(f"the source's vocabulary {problem}: {', '.join(tokens)}")
    return tuple(names.index(token) for token in IUPAC_VOCAB), unused


def apply_rules(
    rules: Sequence[Rule],
    drops: Mapping[str, str],
    shards: Mapping[str, Shards],
    layers: int,
    layout: Layout,
) -> Mapped:
    """Consume every source key once and produce the model's tensors (in the source's dtypes).

    Args:
        shards: each source key's tensors by tensor-parallel rank.

    Raises:
        CheckpointError: a key is unknown or missing, or a tensor doesn't fit its transform; names it.
    """
    known = {rule.group for rule in rules if rule.source in shards and rule.source != WORD_EMBEDDINGS}
    state: dict[str, Tensor] = {}
    consumed: set[str] = set()
    for rule in rules:
        if rule.group and rule.group not in known:
            continue
        for layer in range(layers) if "{i}" in rule.source else (0,):
            source = rule.source.replace("{i}", str(layer))
            if source not in shards:
                wanted = ", ".join(target.replace("{i}", str(layer)) for target in rule.targets)
                raise CheckpointError(f"{source} is missing (it would become {wanted})")
            state |= _produce(rule, source, layer, shards[source], layout)
            consumed.add(source)
    return Mapped(state, _drop(drops, [key for key in shards if key not in consumed]))


def _produce(rule: Rule, source: str, layer: int, shards: Shards, layout: Layout) -> dict[str, Tensor]:
    try:
        tensors = TRANSFORMS[rule.transform](shards, layout)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    except (IndexError, RuntimeError) as error:  # what torch raises on a tensor without the dimensions needed
        shapes = [tuple(shard.shape) for shard in shards]
        raise CheckpointError(f"{source}: has shapes {shapes}, which can't become {rule.targets[0]}") from error
    targets = (target.replace("{i}", str(layer)) for target in rule.targets)
    return dict(zip(targets, tensors, strict=True))


def _drop(drops: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """Reason for each key that stays behind.

    Raises:
        CheckpointError: a key isn't in the list of drops.
    """
    dropped = {}
    for key in keys:
        reason = next((reason for pattern, reason in drops.items() if fnmatchcase(key, pattern)), None)
        if reason is None:
            raise CheckpointError(f"{key}: no rule knows this key, and it isn't among the deliberate drops")
        dropped[key] = reason
    return dropped


def map_megatron(shards: Mapping[str, Shards], layers: int, layout: Layout, token_types: int) -> Mapped:
    """State dict of ``ProteinBertForMaskedLM`` (or, without an LM head in the source, of its encoder alone)."""
    mapped = apply_rules(MEGATRON_RULES, MEGATRON_DROPS, shards, layers, layout)
    _check_tied(shards)
    filled = {}
    if _TOKEN_TYPES not in mapped.state:
        word = mapped.state["bert.embeddings.word_embeddings.weight"]
        mapped.state[_TOKEN_TYPES] = word.new_zeros(token_types, word.shape[1])
        filled[_TOKEN_TYPES] = "zeros: the source was trained without token types"
    return Mapped(mapped.state, mapped.dropped, filled)


def _check_tied(shards: Mapping[str, Shards]) -> None:
    """The last pipeline stage's copy of the embeddings is the first stage's."""
    for rank, copy in enumerate(shards.get(HEAD_EMBEDDINGS, ())):
        original = shards[WORD_EMBEDDINGS][rank]
        if copy.shape != original.shape or not torch.equal(copy, original):
            raise CheckpointError(f"{HEAD_EMBEDDINGS}: rank {rank} differs from {WORD_EMBEDDINGS}, to which it is tied")


def map_proteinlm(state: Mapping[str, Tensor], layout: Layout) -> Mapped:
    """Our own names already; embedding rows still go by token name."""
    dropped = _drop(PROTEINLM_DROPS, [key for key in state if key.startswith("bert.bert_tail_dense.")])
    vocabulary_keys = {"bert.embeddings.word_embeddings.weight", "mlm.decoder.weight", "mlm.bias"}
    mapped = {}
    for key, tensor in state.items():
        if key in dropped:
            continue
        if key in vocabulary_keys:
            (mapped[key],) = _produce(Rule(key, "token_rows", (key,)), key, 0, (tensor,), layout).values()
        else:
            mapped[key] = tensor
    return Mapped(mapped, dropped)


def check_total(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Every parameter of the model is produced, none beside, each with its shape.

    Raises:
        CheckpointError: names the first key that is missing, unknown or of another shape.
    """
    for key in expected:
        if key not in state:
            raise CheckpointError(f"{key}: the model needs it, but the source doesn't produce it")
    for key, tensor in state.items():
        if key not in expected:
            raise CheckpointError(f"{key}: the source has it, but the model has no such parameter")
        if tensor.shape != expected[key]:
            raise CheckpointError(f"{key}: has shape {tuple(tensor.shape)}, the model's is {tuple(expected[key])}")

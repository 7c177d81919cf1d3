"""The rule tables: the keys of every format with their TAPE names, and the keys that are dropped deliberately.

``MEGATRON_RULES`` use the spelling of Megatron-LM of 2020. ``HUGGINGFACE_RULES`` are for
``transformers.MegatronBertForMaskedLM``, which has the same architecture as ours. ``POST_LN_RULES`` are for
``BertForMaskedLM``, whose blocks are post-layer-norm like those of tape-proteins 0.5 and of our post-layer-norm models.
"""

from __future__ import annotations

from .rules import Rule

# ProteinLM's iupac_vocab.txt with 31 lines; a token's id is its line number
MEGATRON_VOCABULARY = ("[PAD]", "[MASK]", "[CLS]", "[SEP]", "[UNK]", "[unused1]", *"ABCDEFGHIKLMNOPQRSTUVWXYZ")

HEAD = "head"  # the masked-language-model head
POOLER = "pooler"

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"
DECODER = "mlm.decoder.weight"

_EMBEDDING = "language_model.embedding."
MEGATRON_LAYER = "language_model.transformer.layers.{i}."
MEGATRON_WORDS = _EMBEDDING + "word_embeddings.weight"
MEGATRON_POSITIONS = _EMBEDDING + "position_embeddings.weight"
MEGATRON_TYPES = _EMBEDDING + "tokentype_embeddings.weight"
MEGATRON_HEAD_WORDS = "word_embeddings_for_head.weight"
MEGATRON_HEAD_BIAS = "lm_head.bias"
_LAYER = "bert.encoder.layer.{i}."


def _pair(source: str, target: str, transform: str = "same", bias: str = "same", group: str = "") -> tuple[Rule, Rule]:
    """The rules of a layer's weight and bias."""
    return (
        Rule(f"{source}.weight", transform, (f"{target}.weight",), group),
        Rule(f"{source}.bias", bias, (f"{target}.bias",), group),
    )


def _attention_targets(kind: str) -> tuple[str, ...]:
    return tuple(f"{_LAYER}attention.self.{name}.{kind}" for name in ("query", "key", "value"))


MEGATRON_RULES: tuple[Rule, ...] = (
    Rule(MEGATRON_WORDS, "token_rows", (WORD_EMBEDDINGS,)),
    Rule(MEGATRON_WORDS, "token_rows", (DECODER,), HEAD),
    Rule(MEGATRON_POSITIONS, "same", (POSITIONS,)),
    Rule(MEGATRON_TYPES, "same", (TOKEN_TYPES,), "token types"),
    *_pair(MEGATRON_LAYER + "input_layernorm", _LAYER + "input_ln"),
    Rule(MEGATRON_LAYER + "attention.query_key_value.weight", "query_key_value", _attention_targets("weight")),
    Rule(MEGATRON_LAYER + "attention.query_key_value.bias", "query_key_value", _attention_targets("bias")),
    *_pair(MEGATRON_LAYER + "attention.dense", _LAYER + "attention.dense", "columns"),
    *_pair(MEGATRON_LAYER + "post_attention_layernorm", _LAYER + "post_attn_ln"),
    *_pair(MEGATRON_LAYER + "mlp.dense_h_to_4h", _LAYER + "mlp.dense_h_4h", "rows", bias="rows"),
    *_pair(MEGATRON_LAYER + "mlp.dense_4h_to_h", _LAYER + "mlp.dense_4h_h", "columns"),
    *_pair("language_model.transformer.final_layernorm", "bert.encoder.final_ln"),
    Rule(MEGATRON_HEAD_BIAS, "token_biases", ("mlm.bias",), HEAD),
    *_pair("lm_head.dense", "mlm.transform.dense", group=HEAD),
    *_pair("lm_head.layernorm", "mlm.transform.LayerNorm", group=HEAD),
)

MEGATRON_DROPS: dict[str, str] = {
    "language_model.pooler.*": "TAPE pools by the state of the first token",
    "binary_head.*": "next-sentence head, unused with proteins",
    MEGATRON_HEAD_WORDS: "the last pipeline stage's copy of the word embeddings, checked to be equal",
}

HUGGINGFACE_RULES: tuple[Rule, ...] = (
    Rule(WORD_EMBEDDINGS, "token_rows", (WORD_EMBEDDINGS,)),
    Rule(POSITIONS, "same", (POSITIONS,)),
    Rule(TOKEN_TYPES, "same", (TOKEN_TYPES,)),
    *_pair(_LAYER + "attention.ln", _LAYER + "input_ln"),
    *(
        rule
        for name in ("query", "key", "value")
        for rule in _pair(f"{_LAYER}attention.self.{name}", f"{_LAYER}attention.self.{name}")
    ),
    *_pair(_LAYER + "attention.output.dense", _LAYER + "attention.dense"),
    *_pair(_LAYER + "ln", _LAYER + "post_attn_ln"),
    *_pair(_LAYER + "intermediate.dense", _LAYER + "mlp.dense_h_4h"),
    *_pair(_LAYER + "output.dense", _LAYER + "mlp.dense_4h_h"),
    *_pair("bert.encoder.ln", "bert.encoder.final_ln"),
    *_pair("cls.predictions.transform.dense", "mlm.transform.dense", group=HEAD),
    *_pair("cls.predictions.transform.LayerNorm", "mlm.transform.LayerNorm", group=HEAD),
    Rule("cls.predictions.bias", "token_rows", ("mlm.bias",), HEAD),
    Rule("cls.predictions.decoder.bias", "token_rows", ("mlm.bias",), HEAD),
    Rule("cls.predictions.decoder.weight", "token_rows", (DECODER,), HEAD),
)

HUGGINGFACE_DROPS: dict[str, str] = {
    "bert.pooler.*": "TAPE pools by the state of the first token",
    "cls.seq_relationship.*": "next-sentence head, unused with proteins",
    "bert.embeddings.position_ids": "the numbers 0, 1, 2, ...",
    "classifier.*": "head of a finetuning task, of which TAPE's has other layers",
    "qa_outputs.*": "head of question answering",
}

PROTEINLM_DROPS: dict[str, str] = {
    "bert.bert_tail_dense.*": "never used by the original model",
    "predict.*": "head of a finetuning task",
    "classify.*": "head of a finetuning task",
}

# modules of a post-layer-norm block: names in tape-proteins 0.5 and transformers -> names in our model
_POST_PARTS = {
    "attention.self.query": "attention.self.query",
    "attention.self.key": "attention.self.key",
    "attention.self.value": "attention.self.value",
    "attention.output.dense": "attention.dense",
    "attention.output.LayerNorm": "post_attn_ln",
    "intermediate.dense": "mlp.dense_h_4h",
    "output.dense": "mlp.dense_4h_h",
    "output.LayerNorm": "output_ln",
}
_POST_ENCODER: tuple[Rule, ...] = (
    Rule(WORD_EMBEDDINGS, "token_rows", (WORD_EMBEDDINGS,)),
    Rule(POSITIONS, "same", (POSITIONS,)),
    Rule(TOKEN_TYPES, "same", (TOKEN_TYPES,)),
    *_pair("bert.embeddings.LayerNorm", "bert.embeddings.LayerNorm"),
    *(rule for theirs, ours in _POST_PARTS.items() for rule in _pair(_LAYER + theirs, _LAYER + ours)),
    *_pair("bert.pooler.dense", "bert.pooler.dense", group=POOLER),
)
_HEAD_RULES = tuple(rule for rule in HUGGINGFACE_RULES if rule.group == HEAD)


def _own_names(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules from TAPE's names to themselves, for sources in which only the order of the tokens may differ."""
    return tuple(
        {rule.targets[0]: Rule(rule.targets[0], rule.transform, rule.targets, rule.group) for rule in rules}.values()
    )


PROTEINLM_RULES = _own_names(HUGGINGFACE_RULES)
POST_LN_RULES = _POST_ENCODER + _HEAD_RULES
TAPE_05_RULES = _POST_ENCODER + _own_names(_HEAD_RULES)
PROTEINLM_POST_RULES = _own_names(POST_LN_RULES)
POST_LN_DROPS = {key: reason for key, reason in HUGGINGFACE_DROPS.items() if "pooler" not in key}

"""Configurations of the built-in architectures that are small enough for tests, with all their parts."""

from __future__ import annotations

from typing import Any

from tape.tokenizers import IUPAC_VOCAB

_HEADS: dict[str, Any] = {"head_hidden_size": 16, "contact_num_blocks": 2}

SMALL_CONFIGS: dict[str, dict[str, Any]] = {
    "transformer": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "type_vocab_size": 1,
        **_HEADS,
    },
    "lstm": {"input_size": 6, "hidden_size": 16, "num_hidden_layers": 2, **_HEADS},
    "resnet": {"hidden_size": 16, "num_hidden_layers": 3, **_HEADS},
    "unirep": {"input_size": 6, "hidden_size": 16, **_HEADS},
    "onehot": _HEADS,
    "huggingface": {
        "encoder": {
            "model_type": "esm",
            "vocab_size": len(IUPAC_VOCAB),
            "pad_token_id": IUPAC_VOCAB["<pad>"],
            "mask_token_id": IUPAC_VOCAB["<mask>"],
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "position_embedding_type": "rotary",
            "token_dropout": True,
        },
        "token_ids": IUPAC_VOCAB,
        "hidden_size": 16,
        **_HEADS,
    },
    "trrosetta": {"num_features": 8, "num_layers": 6},
}

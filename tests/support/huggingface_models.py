"""Tiny encoders of ``transformers`` with random weights, saved with their tokenizers as the published ones are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ESM_TOKENS = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYCMHWXBUZO.-", "<null_1>", "<mask>")
PROTBERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"LAGVESIKRDTPNQFYMHCWXUBZO")
KINDS = ("esm", "esm-1b", "bert", "megatron-bert")

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
_ESM_IDS: dict[str, Any] = {"vocab_size": len(ESM_TOKENS), "pad_token_id": 1, "mask_token_id": len(ESM_TOKENS) - 1}


def small_config(kind: str) -> Any:
    """The configuration object of one of ``KINDS``."""
    import transformers

    if kind == "esm":  # ESM-2
        return transformers.EsmConfig(**_SIZES, **_ESM_IDS, position_embedding_type="rotary", token_dropout=True)
    if kind == "esm-1b":
        return transformers.EsmConfig(**_SIZES, **_ESM_IDS, position_embedding_type="absolute", token_dropout=True)
    classes = {"bert": transformers.BertConfig, "megatron-bert": transformers.MegatronBertConfig}
    return classes[kind](**_SIZES, vocab_size=len(PROTBERT_TOKENS), pad_token_id=0)


def save_model(folder: Path, kind: str, tokens: Sequence[str] | None = None, **options: Any) -> Any:
    """Save a masked language model of one of ``KINDS`` and its tokenizer; return the model in evaluation mode.

    Args:
        folder: where to.
        kind: the architecture.
        tokens: tokens of the tokenizer, by default those of the published models.
        options: of ``save_pretrained``.
    """
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForMaskedLM.from_config(small_config(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases of 0 would hide that they are not loaded
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder, **options)
    write_tokenizer(folder, kind, tokens)
    return model


def write_tokenizer(folder: Path, kind: str, tokens: Sequence[str] | None = None) -> None:
    """Write ``vocab.txt`` and ``tokenizer_config.json`` as beside ESM-2 or ProtBert."""
    is_esm = kind.startswith("esm")
    names = tokens or (ESM_TOKENS if is_esm else PROTBERT_TOKENS)
    (folder / "vocab.txt").write_text("\n".join(names) + "\n")
    settings = {"tokenizer_class": "EsmTokenizer"} if is_esm else {"tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))


def logits_of_transformers(folder: Path, model: Any, protein: str) -> tuple[Any, Any]:
    """The tokenizer of a directory, and what a model of ``transformers`` computes for its ids of one protein."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = protein if "<eos>" in tokenizer.get_vocab() else " ".join(protein)
    with torch.no_grad():
        inputs = tokenizer(text, return_tensors="pt")
        return tokenizer, model(**inputs, output_hidden_states=True)

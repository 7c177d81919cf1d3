"""Writes directories that ``transformers`` loads without this project's code.

They contain configuration, weights, tokenizer and model card. Writing these JSON and safetensors files doesn't need
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from converter.mapping.rules import invert_rules
from converter.mapping.tables import HUGGINGFACE_RULES, POST_LN_RULES
from converter.mapping.transforms import TransformSettings
from tape.configs import CONFIG_NAME, ProteinBertConfig
from tape.errors import ConfigError
from tape.io.atomic import atomic_write, write_json, write_text
from tape.models.lazy_tensors import LazyState, write_safetensors
from tape.models.model_directory import SAFETENSORS_NAME
from tape.tokenizers import IUPAC_VOCAB, SPECIAL_TOKENS

from .source import POST_LN_TYPE, PRE_LN_TYPE, TAPE_SETTINGS

CARD_NAME = "README.md"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
FILES = frozenset({CONFIG_NAME, SAFETENSORS_NAME, CARD_NAME, *TOKENIZER_FILES})

# gelu_pytorch_tanh is the torch function that our model calls
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "swish": "silu"}
_TRANSLATED = ("hidden_act", "mlm_hidden_act", "apply_final_ln", "layer_norm_position")
_SAME_NAMES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
)


@dataclass(frozen=True)
class HuggingFaceTarget:
    """``MegatronBertForMaskedLM``, or ``BertForMaskedLM`` for post-layer-norm models such as tape-proteins 0.5's.

    Args:
        approximate_head: write a head whose activation differs from the blocks' with that of the blocks.
    """

    approximate_head: bool = False

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """Make sure that transformers can represent the model.

        Raises:
            ConfigError: if it cannot; the message gives the reason.
        """
        if config.pruned_heads:
            raise ConfigError(
                "--to huggingface: this model has pruned heads, which the format does not support; use --to tape"
            )
        if not config.apply_final_ln and config.layer_norm_position == "pre":
            raise ConfigError(
                "--to huggingface: MegatronBert always applies the final layer norm, which this model does not"
            )
        head = config.mlm_hidden_act or config.hidden_act
        if has_head and head != config.hidden_act and not self.approximate_head:
            raise ConfigError(
                f"--to huggingface: MegatronBert has one activation, this model has {config.hidden_act} in its"
                f" blocks and {head} in its LM head; give --lm-head drop (encoder alone, exact) or --lm-head"
                " approximate (head with the blocks' activation, logits differ by about 1e-3)"
            )

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        """Write all files but ``conversion.json``."""
        rules = POST_LN_RULES if config.layer_norm_position == "post" else HUGGINGFACE_RULES
        layout = TransformSettings(
            config.num_attention_heads, 3.0, tuple(range(config.vocab_size)), embedding_rows=config.vocab_size
        )
        tensors = {key: one for key, (one,) in invert_rules(rules, state, config.num_hidden_layers, layout).items()}
        has_head = "mlm.bias" in state
        (dtype,) = {tensor.dtype for tensor in tensors.values()}
        values = configuration(config, has_head, dtype)
        write_json(folder / CONFIG_NAME, values)
        write_tokenizer(folder, config.max_position_embeddings)
        write_text(folder / CARD_NAME, model_card(values, source, has_head))
        with atomic_write(folder / SAFETENSORS_NAME) as stream:
            write_safetensors(stream, tensors)


def configuration(config: ProteinBertConfig, has_head: bool, dtype: torch.dtype) -> dict[str, Any]:
    """Content of ``config.json``; settings that transformers lacks are kept under a key of ours."""
    post = config.layer_norm_position == "post"
    name = "Bert" if post else "MegatronBert"
    values = config.to_dict()
    return {
        **{key: values[key] for key in _SAME_NAMES},
        "architectures": [name + ("ForMaskedLM" if has_head else "Model")],
        "model_type": POST_LN_TYPE if post else PRE_LN_TYPE,
        "hidden_act": _ACTIVATIONS[config.hidden_act],
        "pad_token_id": IUPAC_VOCAB["<pad>"],
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
        TAPE_SETTINGS: {key: value for key, value in values.items() if key not in (*_SAME_NAMES, *_TRANSLATED)},
    }


def write_tokenizer(folder: Path, longest: int) -> None:
    """Write a tokenizer with one token per letter between ``<cls>`` and ``<sep>``, which normalizes as TAPE's does."""
    write_json(folder / "tokenizer.json", tokenizer())
    names = {f"{token.strip('<>')}_token": token for token in SPECIAL_TOKENS}
    write_json(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    inputs = {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {**settings, **inputs, **names})


def tokenizer() -> dict[str, Any]:
    """``tokenizer.json`` of the ``tokenizers`` library, format 1.0."""
    upper = [_replace({"String": letter}, letter.upper()) for letter in "abcdefghijklmnopqrstuvwxyz"]
    rest = [_replace({"String": "J"}, "X"), _replace({"Regex": r"\s"}, "")]
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<cls>", "<sep>"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token) for token in SPECIAL_TOKENS],
        "normalizer": {"type": "Sequence", "normalizers": upper + rest},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, second, sep],
            "special_tokens": {
                token: {"id": token, "ids": [IUPAC_VOCAB[token]], "tokens": [token]} for token in ("<cls>", "<sep>")
            },
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": dict(IUPAC_VOCAB), "unk_token": "<unk>"},
    }


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _added(token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": IUPAC_VOCAB[token], "content": token, "special": True, **flags}


def model_card(values: Mapping[str, Any], source: Mapping[str, Any], has_head: bool) -> str:
    """``README.md``: what the model is, where it comes from, how to call it."""
    order = "after" if values["model_type"] == POST_LN_TYPE else "before"
    loader = "AutoModelForMaskedLM" if has_head else "AutoModel"
    task = "\npipeline_tag: fill-mask" if has_head else ""
    iteration = f", iteration {source['iteration']}" if source.get("iteration") else ""
    head = "With its masked-language-model head." if has_head else "The encoder alone, without a language-model head."
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings")
    count = values["vocab_size"]
    sizes = " | ".join(str(values[name]) for name in names)
    return f"""---
library_name: transformers{task}
tags: [protein, masked-language-model]
---
# Protein language model

A BERT over amino-acid sequences, layer norms {order} its sub-layers; one token per residue, {count} tokens.
{head}

| layers | hidden size | attention heads | positions, with `<cls>` and `<sep>` |
|--:|--:|--:|--:|
| {sizes} |

```python
from transformers import AutoTokenizer, {loader}

tokenizer = AutoTokenizer.from_pretrained("THIS DIRECTORY")
model = {loader}.from_pretrained("THIS DIRECTORY")
output = model(**tokenizer("MKTAYIAKQR<mask>ISFVK", return_tensors="pt"))
```

The tokenizer produces the ids of TAPE's `iupac` vocabulary. Lower case is read as upper case, J as X, and white space
is ignored; any other character becomes `<unk>`.

## Origin

Converted from a `{source["kind"]}` checkpoint{iteration}. `conversion.json` contains the hashes of the source's files
and the largest difference between the outputs of source and result for each layer. Training data, license and intended
use are those of the source and are not known to the converter.
"""

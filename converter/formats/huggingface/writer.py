"""Writes directories that ``transformers`` loads without this project's code.

They contain configuration, weights, tokenizer and model card. Writing these JSON and safetensors files doesn't need
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.mapping.rules import POOLER_WEIGHT, invert_rules
from converter.mapping.tables import HUGGINGFACE_RULES, POST_LN_RULES
from converter.mapping.transforms import TransformSettings
from tape.configs import CONFIG_NAME, ProteinBertConfig
from tape.errors import ConfigError
from tape.io.checksums import SUMS_NAME, HashingStream, sha256_of, write_sums
from tape.io.writing import atomic_write, write_json, write_text
from tape.models.lazy_tensors import LazyState, stored_bytes, write_safetensors
from tape.models.model_directory import SAFETENSORS_NAME, architecture_metadata

from .configuration import POST_LN_TYPE, configuration
from .tokenizer import TOKENIZER_FILES, write_tokenizer

CARD_NAME = "README.md"
FILES = frozenset({CONFIG_NAME, SAFETENSORS_NAME, CARD_NAME, SUMS_NAME, *TOKENIZER_FILES})

_NO_POOLER = """**`pooler_output` is untrained**: the model has no pooler, and `AutoModel` adds one with random weights.
Load it with `AutoModel.from_pretrained("THIS DIRECTORY", add_pooling_layer=False)`, and use `last_hidden_state`."""
_SOURCE_POOLER = """`pooler_output` is that of the source's pooler, which masked-language-model pretraining **does not
train**. Unless the source was finetuned with it, use `last_hidden_state`."""


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
        write_text(folder / CARD_NAME, model_card(values, source, has_head, POOLER_WEIGHT in tensors))
        with atomic_write(folder / SAFETENSORS_NAME, needed=stored_bytes(tensors)) as stream:
            hashed = HashingStream(stream)
            write_safetensors(hashed, tensors, architecture_metadata(_without_own_head(config)))
        sums = {name: sha256_of(folder / name) for name in (CONFIG_NAME, *TOKENIZER_FILES)}
        write_sums(folder, {SAFETENSORS_NAME: hashed.hexdigest(), **sums})


def _without_own_head(config: ProteinBertConfig) -> ProteinBertConfig:
    """The configuration as it is read again: transformers has one activation."""
    return ProteinBertConfig.from_dict({**config.to_dict(), "mlm_hidden_act": None})


def model_card(values: Mapping[str, Any], source: Mapping[str, Any], has_head: bool, has_pooler: bool) -> str:
    """``README.md``: what the model is, where it comes from, how to call it."""
    order = "after" if values["model_type"] == POST_LN_TYPE else "before"
    loader = "AutoModelForMaskedLM" if has_head else "AutoModel"
    task = "\npipeline_tag: fill-mask" if has_head else ""
    iteration = f", iteration {source['iteration']}" if source.get("iteration") else ""
    head = "With its masked-language-model head." if has_head else "The encoder alone, without a language-model head."
    pooler = _SOURCE_POOLER if has_pooler else _NO_POOLER
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

{pooler}

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

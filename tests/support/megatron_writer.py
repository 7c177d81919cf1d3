"""Writes checkpoints as Megatron-LM does, in any version, layout and spelling of keys, from weights per head.

Implements the description of the format without code of the converter: rows are placed one by one.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SPECIAL = ["[PAD]", "[MASK]", "[CLS]", "[SEP]", "[UNK]", "[unused1]"]
LETTERS = list("ABCDEFGHIKLMNOPQRSTUVWXYZ")
TAPE_TOKENS = ["<pad>", "<mask>", "<cls>", "<sep>", "<unk>", *LETTERS]


@dataclass
class Truth:
    """A model's weights in the simplest form: one (head size, H) matrix per head, word embeddings by token."""

    hidden: int = 32
    heads: int = 4
    layers: int = 2
    positions: int = 40
    arguments: dict[str, Any] = field(default_factory=dict)
    words: dict[str, Tensor] = field(default_factory=dict)
    word_bias: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Tensor] = field(default_factory=dict)  # by TAPE name
    per_head: dict[tuple[int, str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.hidden // self.heads

    @property
    def wide(self) -> int:
        return 4 * self.hidden


def make_truth(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: int) -> Truth:
    """Random weights, all different, also in the layer norms."""
    truth = Truth(**sizes)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, mean: float = 0.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 0.2 + mean).to(dtype)

    hidden, wide = truth.hidden, truth.wide
    for token in SPECIAL + LETTERS:
        truth.words[token], truth.word_bias[token] = draw(hidden), draw(1)[0]
    plain = truth.plain
    plain["bert.embeddings.position_embeddings.weight"] = draw(truth.positions, hidden)
    for layer in range(truth.layers):
        name = f"bert.encoder.layer.{layer}."
        for norm in ("input_ln", "post_attn_ln"):
            plain[f"{name}{norm}.weight"], plain[f"{name}{norm}.bias"] = draw(hidden, mean=1.0), draw(hidden)
        for part in ("query", "key", "value"):
            for head in range(truth.heads):
                truth.per_head[layer, part, head] = draw(truth.size, hidden), draw(truth.size)
        for dense, rows, columns in (
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_4h", wide, hidden),
            ("mlp.dense_4h_h", hidden, wide),
        ):
            plain[f"{name}{dense}.weight"], plain[f"{name}{dense}.bias"] = draw(rows, columns), draw(rows)
    for norm in ("bert.encoder.final_ln", "mlm.transform.LayerNorm"):
        plain[f"{norm}.weight"], plain[f"{norm}.bias"] = draw(hidden, mean=1.0), draw(hidden)
    plain["mlm.transform.dense.weight"], plain["mlm.transform.dense.bias"] = draw(hidden, hidden), draw(hidden)
    return truth


def expected_state(truth: Truth, head: bool = True) -> dict[str, Tensor]:
    """The TAPE state dict of an exact conversion of ``truth``."""
    state = {name: value for name, value in truth.plain.items() if head or not name.startswith("mlm.")}
    for layer in range(truth.layers):
        for part in ("query", "key", "value"):
            chosen = [truth.per_head[layer, part, number] for number in range(truth.heads)]
            name = f"bert.encoder.layer.{layer}.attention.self.{part}"
            state[f"{name}.weight"] = torch.cat([weight for weight, _ in chosen])
            state[f"{name}.bias"] = torch.cat([bias for _, bias in chosen])
    in_order = [token if len(token) == 1 else f"[{token[1:-1].upper()}]" for token in TAPE_TOKENS]
    words = torch.stack([truth.words[token] for token in in_order])
    state["bert.embeddings.word_embeddings.weight"] = words
    state["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(1, truth.hidden, dtype=words.dtype)
    if head:
        state["mlm.decoder.weight"] = words
        state["mlm.bias"] = torch.stack([truth.word_bias[token] for token in in_order])
    return state


def arguments_of(truth: Truth, tp: int, pp: int, version: float, **changes: Any) -> argparse.Namespace:
    values: dict[str, Any] = {
        "num_layers": truth.layers,
        "hidden_size": truth.hidden,
        "num_attention_heads": truth.heads,
        "max_position_embeddings": truth.positions,
        "layernorm_epsilon": 1e-12,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "bias_gelu_fusion": False,
        "openai_gelu": False,
        "onnx_safe": None,
        "params_dtype": torch.float16,
        "padded_vocab_size": 128 * tp,
        "make_vocab_size_divisible_by": 128,
        "seq_length": truth.positions,
    }
    if version >= 3:
        values |= {"tensor_model_parallel_size": tp, "pipeline_model_parallel_size": pp, "ffn_hidden_size": truth.wide}
    else:
        values["model_parallel_size"] = tp
    return argparse.Namespace(**{**values, **changes})


def fused(truth: Truth, layer: int, heads: list[int], version: float, kind: int) -> Tensor:
    """A rank's query_key_value weight (kind 0) or bias (kind 1), row after row."""
    parts = {part: [truth.per_head[layer, part, head][kind] for head in heads] for part in ("query", "key", "value")}
    rows = []
    numbers, sizes = range(len(heads)), range(truth.size)
    if version == 0:
        rows = [parts[part][head][row] for part in parts for head in numbers for row in sizes]
    elif version == 1:
        rows = [parts[part][head][row] for head in numbers for row in sizes for part in parts]
    else:
        rows = [parts[part][head][row] for head in numbers for part in parts for row in sizes]
    return torch.stack(rows)


def share(tensor: Tensor, rank: int, ranks: int, dimension: int) -> Tensor:
    """A rank's shard of a tensor, with its own storage as in a training process."""
    return tensor.chunk(ranks, dimension)[rank].clone()


def transformer(truth: Truth, layers: range, rank: int, tp: int, version: float, last: bool) -> dict[str, Tensor]:
    per_rank = truth.heads // tp
    heads = list(range(rank * per_rank, (rank + 1) * per_rank))
    out: dict[str, Tensor] = {}
    for local, layer in enumerate(layers):
        source, name = f"bert.encoder.layer.{layer}.", f"layers.{local}."
        for old, new in (("input_ln", "input_layernorm"), ("post_attn_ln", "post_attention_layernorm")):
            for kind in ("weight", "bias"):
                out[f"{name}{new}.{kind}"] = truth.plain[f"{source}{old}.{kind}"].clone()
        out[name + "attention.query_key_value.weight"] = fused(truth, layer, heads, version, 0)
        out[name + "attention.query_key_value.bias"] = fused(truth, layer, heads, version, 1)
        out[name + "attention.dense.weight"] = share(truth.plain[source + "attention.dense.weight"], rank, tp, 1)
        out[name + "attention.dense.bias"] = truth.plain[source + "attention.dense.bias"].clone()
        out[name + "mlp.dense_h_to_4h.weight"] = share(truth.plain[source + "mlp.dense_h_4h.weight"], rank, tp, 0)
        out[name + "mlp.dense_h_to_4h.bias"] = share(truth.plain[source + "mlp.dense_h_4h.bias"], rank, tp, 0)
        out[name + "mlp.dense_4h_to_h.weight"] = share(truth.plain[source + "mlp.dense_4h_h.weight"], rank, tp, 1)
        out[name + "mlp.dense_4h_to_h.bias"] = truth.plain[source + "mlp.dense_4h_h.bias"].clone()
    if last:
        for kind in ("weight", "bias"):
            out[f"final_layernorm.{kind}"] = truth.plain[f"bert.encoder.final_ln.{kind}"].clone()
    return out


def padded(values: dict[str, Tensor], tp: int) -> Tensor:
    """Rows in the order of iupac_vocab.txt, padded with noise to 128 per rank."""
    real = torch.stack([values[token] for token in SPECIAL + LETTERS])
    noise = torch.full((128 * tp - len(real), *real.shape[1:]), 7.5, dtype=real.dtype)
    return torch.cat([real, noise])


def rank_model(truth: Truth, rank: int, tp: int, stage: int, pp: int, version: float, head: bool) -> dict[str, Any]:
    """The ``model`` entry of one rank's file."""
    per_stage = truth.layers // pp
    first, last = stage == 0, stage == pp - 1
    words = share(padded(truth.words, tp), rank, tp, 0)
    language_model: dict[str, Any] = {}
    if first:
        positions = truth.plain["bert.embeddings.position_embeddings.weight"].clone()
        language_model["embedding"] = {
            "word_embeddings": {"weight": words},
            "position_embeddings": {"weight": positions},
        }
    layers = range(stage * per_stage, (stage + 1) * per_stage)
    language_model["transformer"] = transformer(truth, layers, rank, tp, version, last)
    model: dict[str, Any] = {"language_model": language_model}
    if last and head:
        model["lm_head"] = {
            "bias": share(padded(truth.word_bias, tp), rank, tp, 0),
            **{
                f"{new}.{kind}": truth.plain[f"mlm.transform.{old}.{kind}"].clone()
                for old, new in (("dense", "dense"), ("LayerNorm", "layernorm"))
                for kind in ("weight", "bias")
            },
        }
    if last and not first:
        model["word_embeddings_for_head"] = {"weight": words.clone()}
    return model


def modern_names(model: dict[str, Any]) -> dict[str, Any]:
    """The spelling of Megatron-LM after June 2021."""
    language_model = dict(model["language_model"])
    layers = language_model.pop("transformer")
    language_model["encoder"] = {key.replace(".attention.", ".self_attention."): layers[key] for key in layers}
    return {**model, "language_model": language_model}


def training_state() -> dict[str, Any]:
    """Optimizer and random states as in a training checkpoint."""
    return {
        "optimizer": {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}},
        "lr_scheduler": {"start_lr": 1e-4, "num_steps": 12},
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.get_state(),
        "torch_rng_state": torch.get_rng_state(),
        "cuda_rng_state": torch.get_rng_state(),
        "rng_tracker_states": {"model-parallel-rng": torch.get_rng_state()},
    }


def write_megatron(
    folder: Path,
    truth: Truth,
    *,
    version: float = 3.0,
    tp: int = 1,
    pp: int = 1,
    modern: bool = False,
    head: bool = True,
    iteration: int | None = 1000,
    zip_file: bool = True,
    **argument_changes: Any,
) -> Path:
    """A ``--save`` directory; ``iteration`` None writes ``release/``. Version 0 is not recorded, as in old files."""
    name = "release" if iteration is None else f"iter_{iteration:07d}"
    for stage in range(pp):
        for rank in range(tp):
            model = rank_model(truth, rank, tp, stage, pp, version, head)
            numbers = {"rank": stage * tp + rank, "world_size": tp * pp}
            content = {
                "args": arguments_of(truth, tp, pp, version, **{**numbers, **argument_changes}),
                "iteration": iteration or 0,
                "model": modern_names(model) if modern else model,
                **training_state(),
            }
            if version:
                content["checkpoint_version"] = version
            place = folder / name / (f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if pp > 1 else ""))
            place.mkdir(parents=True)
            torch.save(content, place / "model_optim_rng.pt", _use_new_zipfile_serialization=zip_file)
    (folder / "latest_checkpointed_iteration.txt").write_text("release" if iteration is None else str(iteration))
    return folder


def edit(path: Path, change: Any) -> None:
    """Load a file written by this module, apply ``change`` to its content in place, and write it again."""
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


def only_rank(folder: Path) -> Path:
    """The file of a single-rank checkpoint."""
    (found,) = folder.glob("*/mp_rank_00*/model_optim_rng.pt")
    return found

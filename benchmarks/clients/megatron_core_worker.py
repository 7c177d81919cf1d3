"""Worker of Megatron Core on one CPU process, run in the environment of the clients with a folder as its argument.

The model is its own; only three functions that look for a GPU are replaced. Rows of the embedding are in the order of
ProteinLM's vocabulary, as the converter writes them.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .inputs import SIZES, read_inputs, write_outputs

# TAPE's ids -> rows of ProteinLM's vocabulary, which has [unused1] between [UNK] and A
_ROWS = [*range(5), *range(6, 31)]
_PADDED_ROWS = 128


def open_core(folder: Path) -> None:
    """Start a process group of one, without a GPU."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    setattr(torch.cuda, "current_device", lambda: torch.device("cpu"))  # noqa: B010
    setattr(torch.cuda, "synchronize", lambda: None)  # noqa: B010
    import_module("megatron.core.parallel_state").initialize_model_parallel(1, 1)
    tracker = import_module("megatron.core.tensor_parallel.random").CudaRNGStatesTracker
    tracker.fork = lambda self, name="": nullcontext()  # of dropout, which is off


def build() -> Any:
    """A BERT with local layers and random weights."""
    config = import_module("megatron.core.transformer.transformer_config").TransformerConfig(
        num_layers=SIZES["num_hidden_layers"],
        hidden_size=SIZES["hidden_size"],
        num_attention_heads=SIZES["num_attention_heads"],
        ffn_hidden_size=SIZES["intermediate_size"],
        layernorm_epsilon=1e-12,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        use_cpu_initialization=True,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        bias_dropout_fusion=False,
    )
    torch.manual_seed(1)
    model = import_module("megatron.core.models.bert.bert_model").BertModel(
        config,
        num_tokentypes=2,
        transformer_layer_spec=import_module("megatron.core.models.bert.bert_layer_specs").bert_layer_local_spec,
        vocab_size=_PADDED_ROWS,
        max_sequence_length=SIZES["max_position_embeddings"],
        add_binary_head=False,
        share_embeddings_and_output_weights=True,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@torch.no_grad()
def logits(model: Any, folder: Path) -> np.ndarray:
    """Logits (B, S, tokens) of TAPE's tokens in float64."""
    ids, mask = read_inputs(folder, "iupac")
    rows, types = torch.tensor(_ROWS)[torch.from_numpy(ids)], torch.zeros(ids.shape, dtype=torch.int64)
    output = model.double()(rows, torch.from_numpy(mask), types)
    result: np.ndarray = (output[0] if isinstance(output, tuple) else output)[..., _ROWS].numpy()
    return result


def save(model: Any, folder: Path) -> None:
    """A ``--save`` directory in the format ``torch_dist``, with the arguments that Megatron-LM stores."""
    place = folder / "iter_0000007"
    place.mkdir(parents=True)
    arguments = argparse.Namespace(
        num_layers=SIZES["num_hidden_layers"],
        hidden_size=SIZES["hidden_size"],
        num_attention_heads=SIZES["num_attention_heads"],
        ffn_hidden_size=SIZES["intermediate_size"],
        max_position_embeddings=SIZES["max_position_embeddings"],
        layernorm_epsilon=1e-12,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bias_gelu_fusion=False,
        padded_vocab_size=_PADDED_ROWS,
        make_vocab_size_divisible_by=_PADDED_ROWS,
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=1,
    )
    content = {"args": arguments, "checkpoint_version": 3.0, "iteration": 7, "model": model.sharded_state_dict()}
    import_module("megatron.core.dist_checkpointing").save(content, str(place))
    (folder / "latest_checkpointed_iteration.txt").write_text("7")


def main(folder: Path) -> None:
    open_core(folder)
    (file,) = (folder / "core").glob("release/mp_rank_00/*.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(file, weights_only=True)["model"]
    converted = build()
    converted.load_state_dict(state, strict=True)
    saved = build()
    save(saved, folder / "distributed")
    write_outputs(folder, {"converted": logits(converted, folder), "saved": logits(saved, folder)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

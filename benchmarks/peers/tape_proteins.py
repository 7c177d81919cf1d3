"""Worker of tape-proteins 0.5. Runs in the environment of the peers, where ``tape`` is that package."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .padded_training import Batch, MaskedProteins, PaddedTrainer, pretraining_answers
from .protocol import ROOT, Answer, Message, serve


def models() -> Any:
    """The module ``tape.models.modeling_bert`` of tape-proteins: this repository's own ``tape`` must not be found."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
    return import_module("tape.models.modeling_bert")


def build(setup: Message, name: str, **fields: Any) -> Any:
    """A model with random weights."""
    module = models()
    config = module.ProteinBertConfig(
        hidden_size=setup["hidden"],
        num_hidden_layers=setup["layers"],
        num_attention_heads=setup["heads"],
        intermediate_size=4 * setup["hidden"],
        max_position_embeddings=setup["positions"],
        hidden_dropout_prob=setup["dropout"],
        attention_probs_dropout_prob=setup["dropout"],
        type_vocab_size=1,
        **fields,
    )
    torch.manual_seed(0)
    return getattr(module, name)(config)


def open_pretraining(setup: Message) -> tuple[Message, Answer]:
    model = build(setup, "ProteinBertForMaskedLM")

    def loss_of(batch: Batch) -> Tensor:
        (loss, _), *_ = model(batch["input_ids"], batch["attention_mask"], batch["labels"])
        result: Tensor = loss
        return result

    trainer = PaddedTrainer(model, loss_of, setup["precision"])
    proteins = MaskedProteins(Path(setup["data"]), ignored=-1)
    return describe(model), pretraining_answers(trainer, proteins)


def describe(model: nn.Module) -> Message:
    return {
        "version": f"tape-proteins {version('tape-proteins')}",
        "attention": "eager",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
    }


WORK = {"pretraining": open_pretraining}


if __name__ == "__main__":
    serve(lambda setup: WORK[setup["work"]](setup))

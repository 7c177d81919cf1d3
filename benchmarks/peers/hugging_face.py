"""Worker of transformers: BERT, ESM and Megatron BERT. Runs in the environment of the peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from .inference import TEST, WARM_UP, inference_answers
from .padded_training import Batch, LabeledProteins, MaskedProteins, PaddedTrainer, answers, autocast
from .protocol import Answer, Message, model_sizes, serve

_VOCABULARY = {"vocab_size": 30, "pad_token_id": 0, "mask_token_id": 1}


def config_of(setup: Message) -> Any:
    """The configuration of the model family ``setup["tool"]`` with these sizes; everything else as it is by default."""
    family = setup["tool"].removesuffix("ForMaskedLM")
    own: dict[str, Any] = {"type_vocab_size": 1}
    if family == "Esm":  # as in the published ESM-2 models
        own = {"position_embedding_type": "rotary", "token_dropout": True, "emb_layer_norm_before": False}
    return getattr(transformers, f"{family}Config")(**_VOCABULARY, **model_sizes(setup), **own)


def attention_of(model_class: Any) -> str:
    """The fastest attention that the class supports on a CPU."""
    return "sdpa" if model_class._supports_sdpa else "eager"


def build(setup: Message, suffix: str = "ForMaskedLM", **fields: Any) -> Any:
    """A model with random weights and the head of this name; ``fields`` replace values of its configuration."""
    family = setup["tool"].removesuffix("ForMaskedLM")
    model_class = getattr(transformers, family + suffix)
    torch.manual_seed(0)
    config = config_of(setup)
    config.update(fields)
    return model_class._from_config(config, attn_implementation=attention_of(model_class))


def open_pretraining(setup: Message) -> tuple[Message, Answer]:
    model = build(setup)
    forward = torch.compile(model, dynamic=True) if setup["compile"] else model

    def loss_of(batch: Batch) -> Tensor:
        loss: Tensor = forward(**batch).loss
        return loss

    trainer = PaddedTrainer(model, loss_of, setup["precision"])
    proteins = MaskedProteins(Path(setup["data"]), ignored=-100)
    return describe(model), answers(trainer, proteins.batches)


# head and fields of its configuration; contacts have none
_HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "secondary_structure": ("ForTokenClassification", {"num_labels": 3}),
    "remote_homology": ("ForSequenceClassification", {"num_labels": 1195}),
    "fluorescence": ("ForSequenceClassification", {"num_labels": 1, "problem_type": "regression"}),
    "stability": ("ForSequenceClassification", {"num_labels": 1, "problem_type": "regression"}),
}


def open_finetuning(setup: Message) -> tuple[Message, Answer]:
    if setup["task"] not in _HEADS:
        raise ValueError(f"transformers has no head for {setup['task']}")
    head, fields = _HEADS[setup["task"]]
    model = build(setup, head, **fields)

    def loss_of(batch: Batch) -> Tensor:
        loss: Tensor = model(batch["input_ids"], batch["attention_mask"], labels=batch["targets"]).loss
        return loss

    trainer = PaddedTrainer(model, loss_of, setup["precision"])
    proteins = LabeledProteins(Path(setup["data"]) / "proteins.npz", ignored=-100)
    return describe(model), answers(trainer, proteins.batches)


def open_inference(setup: Message) -> tuple[Message, Answer]:
    """Embedding (mean over the residues) or accuracy of secondary structure, in batches of similar length."""
    is_embedding = setup["command"] == "embed"
    head, fields = ("Model", {}) if is_embedding else _HEADS["secondary_structure"]
    model = build(setup, head, **fields)
    saved = f"{setup['scratch']}/model"
    model.save_pretrained(saved)
    passes = {split: LabeledProteins(Path(setup["data"]) / f"{split}.npz", ignored=-100) for split in (WARM_UP, TEST)}

    def run(split: str, batch_size: int, target: Path) -> None:
        model_class = type(model)
        loaded = model_class.from_pretrained(saved, attn_implementation=attention_of(model_class)).eval()
        batches = passes[split].batches(batch_size)
        results = [part for batch in batches for part in result_of(loaded, batch)]
        np.savez(target, **{str(number): result for number, result in enumerate(results)})

    @torch.inference_mode()
    def result_of(loaded: Any, batch: Batch) -> list[np.ndarray]:
        mask = batch["attention_mask"]
        with autocast(setup["precision"]):
            output = loaded(batch["input_ids"], mask)
        if not is_embedding:
            return [labels.numpy() for labels in output.logits.float().argmax(-1)]
        summed = (output.last_hidden_state.float() * mask[:, :, None]).sum(1)
        return [mean.numpy() for mean in summed / mask.sum(1, keepdim=True)]

    return describe(model), inference_answers(setup, run)


def describe(model: nn.Module) -> Message:
    config: Any = model.config
    return {
        "version": f"transformers {transformers.__version__}",
        "attention": config._attn_implementation,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
    }


WORK = {"pretraining": open_pretraining, "finetuning": open_finetuning, "inference": open_inference}


if __name__ == "__main__":
    serve(lambda setup: WORK[setup["work"]](setup))

"""Worker of tape-proteins 0.5. Runs in the environment of the peers, where ``tape`` is that package.

``python -m benchmarks.peers.tape_proteins train ARGUMENTS`` is its ``tape-train``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .inference import inference_answers
from .padded_training import Batch, LabeledProteins, MaskedProteins, PaddedTrainer, answers
from .protocol import ROOT, Answer, Message, model_sizes, serve


def models() -> Any:
    """The module ``tape.models.modeling_bert`` of tape-proteins: this repository's own ``tape`` must not be found."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
    return import_module("tape.models.modeling_bert")


def training() -> Any:
    """The module ``tape.training`` with the two changes without which it doesn't run on a CPU with a current torch."""
    models()
    setattr(torch.cuda, "IntTensor", torch.IntTensor)  # noqa: B010  # of a buffer that only apex needs
    sampler = import_module("tape.utils._sampler").SortedSampler.__mro__[1]
    sampler.__init__ = lambda self, data_source=None: None  # torch removed the argument
    return import_module("tape.training")


def build(setup: Message, name: str, **fields: Any) -> Any:
    """A model with random weights."""
    module = models()
    config = module.ProteinBertConfig(
        **model_sizes(setup),
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
    return describe(model), answers(trainer, proteins.batches)


class ConvolutionalHead(nn.Module):
    """ProteinLM's contact head over the pair features as that repository computes them: L x L x 2H values.

    Dropout, a 1 x 1 convolution to 64 channels, 30 residual blocks and a linear map; with the loss alone.
    """

    def __init__(self, hidden: int, channels: int = 64, blocks: int = 30) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.project = nn.Conv2d(2 * hidden, channels, 1)
        self.blocks = nn.ModuleList(self._block(channels) for _ in range(blocks))
        self.linear = nn.Linear(channels, 2)

    @staticmethod
    def _block(channels: int) -> nn.Sequential:
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        return nn.Sequential(*parts[:-1])

    def forward(self, states: Tensor, lengths: Tensor, targets: Tensor) -> tuple[tuple[Tensor, dict[str, Tensor]]]:
        left, right = states[:, :, None], states[:, None]
        pairs = self.project(self.dropout(torch.cat((left * right, left - right), -1)).permute(0, 3, 1, 2))
        for block in self.blocks:
            pairs = functional.relu(pairs + block(pairs))
        logits = self.linear(pairs.permute(0, 2, 3, 1))
        logits = ((logits + logits.transpose(1, 2)) / 2)[:, 1:-1, 1:-1]
        loss = functional.cross_entropy(logits.reshape(-1, 2), targets.view(-1), ignore_index=-1)
        return ((loss, {}),)


# class and fields of its configuration
_HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "secondary_structure": ("ProteinBertForSequenceToSequenceClassification", {"num_labels": 3}),
    "remote_homology": ("ProteinBertForSequenceClassification", {"num_labels": 1195}),
    "fluorescence": ("ProteinBertForValuePrediction", {}),
    "stability": ("ProteinBertForValuePrediction", {}),
    "contact_prediction": ("ProteinBertForContactPrediction", {}),
}


def open_finetuning(setup: Message) -> tuple[Message, Answer]:
    name, fields = _HEADS[setup["task"]]
    model = build(setup, name, **fields)
    is_contacts = setup["task"] == "contact_prediction"
    if is_contacts and setup["contact_head"] == "resnet":
        model.predict = ConvolutionalHead(setup["hidden"])

    def loss_of(batch: Batch) -> Tensor:
        inputs = {"input_ids": batch["input_ids"], "input_mask": batch["attention_mask"], "targets": batch["targets"]}
        if is_contacts:
            inputs["protein_length"] = batch["protein_length"]
        first = model(**inputs)[0]
        loss: Tensor = first[0] if isinstance(first, tuple) else first
        return loss

    trainer = PaddedTrainer(model, loss_of, setup["precision"])
    proteins = LabeledProteins(Path(setup["data"]) / "proteins.npz")
    return describe(model), answers(trainer, proteins.batches)


def open_inference(setup: Message) -> tuple[Message, Answer]:
    """``tape-embed`` or ``tape-eval``, which compute in fp32 only."""
    module, folder, saved = training(), setup["data"], Path(setup["scratch"]) / "model"
    name, fields = ("ProteinBertModel", {}) if setup["command"] == "embed" else _HEADS["secondary_structure"]
    model = build(setup, name, **fields)
    saved.mkdir()
    model.save_pretrained(saved)

    def run(split: str, batch_size: int, target: Path) -> None:
        options = {"batch_size": batch_size, "no_cuda": True, "num_workers": 0, "log_level": "ERROR"}
        if setup["command"] == "embed":
            module.run_embed("transformer", f"{folder}/{split}.fasta", f"{target}.npz", str(saved), **options)
        else:
            data = {"split": split, "data_dir": folder, "metrics": ("accuracy",)}
            module.run_eval("transformer", "secondary_structure", str(saved), **data, **options)

    return describe(model), inference_answers(setup, run)


def train(words: Sequence[str]) -> None:
    """``tape-train`` with the changes of :func:`training`."""
    training()
    sys.argv[1:] = words
    import_module("tape.main").run_train()


def describe(model: nn.Module) -> Message:
    return {
        "version": f"tape-proteins {version('tape-proteins')}",
        "attention": "eager",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
    }


WORK = {"pretraining": open_pretraining, "finetuning": open_finetuning, "inference": open_inference}


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2:])
    else:
        serve(lambda setup: WORK[setup["work"]](setup))

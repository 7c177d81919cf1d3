"""Worker of tape-proteins 0.5, run in the environment of the peers with a folder as its argument."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.tape_proteins import models, training

from .inputs import RUN, RUN_STEPS, SIZES, single_proteins, write_outputs

# name -> module, class, its configuration and settings
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "transformer": ("bert", "ProteinBertModel", "ProteinBertConfig", SIZES),
    "lstm": ("lstm", "ProteinLSTMModel", "ProteinLSTMConfig", {"input_size": 16, "hidden_size": 32}),
    "resnet": ("resnet", "ProteinResNetModel", "ProteinResNetConfig", {"hidden_size": 32, "num_hidden_layers": 2}),
    "unirep": ("unirep", "UniRepModel", "UniRepConfig", {"input_size": 10, "hidden_size": 32}),
    "masked_language_modeling": ("bert", "ProteinBertForMaskedLM", "ProteinBertConfig", SIZES),
    "secondary_structure": (
        "bert",
        "ProteinBertForSequenceToSequenceClassification",
        "ProteinBertConfig",
        {**SIZES, "num_labels": 3},
    ),
    "remote_homology": (
        "bert",
        "ProteinBertForSequenceClassification",
        "ProteinBertConfig",
        {**SIZES, "num_labels": 1195},
    ),
    "fluorescence": ("bert", "ProteinBertForValuePrediction", "ProteinBertConfig", SIZES),
    "contact_prediction": ("bert", "ProteinBertForContactPrediction", "ProteinBertConfig", {**SIZES, "num_labels": 2}),
}


def build(name: str) -> Any:
    """A model with noise in all parameters, so that no two are equal."""
    module, kind, config, settings = MODELS[name]
    classes = import_module(f"tape.models.modeling_{module}")
    torch.manual_seed(0)
    model = getattr(classes, kind)(getattr(classes, config)(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@torch.no_grad()
def outputs_of(model: Any, name: str, folder: Path) -> dict[str, Any]:
    """The tensors among a model's outputs, by protein."""
    outputs = {}
    for protein, ids in enumerate(single_proteins(folder, "unirep" if name.endswith("unirep") else "iupac")):
        pairs = {"protein_length": torch.tensor([ids.shape[1] - 2])} if name == "contact_prediction" else {}
        values = [value for value in model(torch.from_numpy(ids), **pairs) if isinstance(value, torch.Tensor)]
        outputs |= {f"{name}_{protein}_{place}": value.numpy() for place, value in enumerate(values)}
    return outputs


def losses_of_run(folder: Path) -> list[float]:
    """Save a run after half of its steps; returns the losses of the others. Gradients are cleared before each step."""
    module, model = training(), build(str(RUN["task"]))
    optimizer = import_module("tape.utils").setup_optimizer(model, RUN["learning_rate"])
    steps = {"warmup_steps": RUN["warmup_steps"], "num_train_optimization_steps": 2 * RUN_STEPS}
    runner = module.BackwardRunner(model, optimizer, device=torch.device("cpu"), **steps)
    ids = torch.from_numpy(single_proteins(folder, "iupac")[0])
    batch, losses = {"input_ids": ids, "input_mask": torch.ones_like(ids), "targets": ids % 3}, []
    for step in range(2 * RUN_STEPS):
        if step == RUN_STEPS:
            runner.save_state(folder / "run", 0)
            (folder / "run" / "args.json").write_text(json.dumps(RUN), encoding="utf-8")
        loss, _ = runner.forward(batch)
        optimizer.zero_grad()
        runner.backward(loss)
        runner.step()
        losses.append(loss.item())
    return losses[RUN_STEPS:]


def main(folder: Path) -> None:
    models()  # before any import of tape, which must not be this repository's
    outputs: dict[str, Any] = {}
    for name in MODELS:
        model, place = build(name), folder / "theirs" / name
        place.mkdir(parents=True)
        model.save_pretrained(place)
        outputs |= outputs_of(model, name, folder)
    for place in sorted((folder / "ours").iterdir()):
        module, kind, *_ = MODELS[place.name]
        model = getattr(import_module(f"tape.models.modeling_{module}"), kind).from_pretrained(place)
        outputs |= outputs_of(model.eval(), f"ours_{place.name}", folder)
    write_outputs(folder, {**outputs, "run": losses_of_run(folder)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""tape-proteins 0.5: its models load here, and it loads those of this project whose parameters have its names.

Proteins are computed one by one, because its LSTM, its ResNet and its heads of residue classes read the padding of a
batch (docs/compatibility.md).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tape.errors import ConfigError
from tape.finetuning.config import AdamWConfig
from tape.finetuning.optimizer import make_optimizer
from tape.finetuning.tape_runs import find_tape_run
from tape.finetuning.tape_state import load_tape_state
from tape.registry import registry

from .client import Check, Client, largest_difference, random_model
from .inputs import RUN, RUN_STEPS, Outputs, single_proteins

# name -> model type and task here, and vocabulary; the worker has the names of the classes
THEIR_MODELS = {
    "transformer": ("transformer", "embed", "iupac"),
    "lstm": ("lstm", "embed", "iupac"),
    "resnet": ("resnet", "embed", "iupac"),
    "unirep": ("unirep", "embed", "unirep"),
    "masked_language_modeling": ("transformer", "masked_language_modeling", "iupac"),
    "secondary_structure": ("transformer", "secondary_structure", "iupac"),
    "remote_homology": ("transformer", "remote_homology", "iupac"),
    "fluorescence": ("transformer", "fluorescence", "iupac"),
    "contact_prediction": ("transformer", "contact_prediction", "iupac"),
}
ENCODERS = ("transformer", "lstm", "resnet", "unirep")
HEADS = tuple(name for name in THEIR_MODELS if name not in ENCODERS)
# the transformer here has other names of parameters, which 0.5 doesn't know
OUR_MODELS = {
    "lstm": {"input_size": 16, "hidden_size": 32, "num_hidden_layers": 2},
    "resnet": {"hidden_size": 32, "num_hidden_layers": 2, "resnet_pooler": "sum"},
    "unirep": {"input_size": 10, "hidden_size": 32},
}


def prepare(folder: Path) -> None:
    """Models of this project in the form that 0.5 reads."""
    for name, settings in OUR_MODELS.items():
        random_model(name, "embed", **settings).save_pretrained(folder / "ours" / name, weights="pytorch_model.bin")


def _their_models(names: tuple[str, ...], folder: Path, outputs: Outputs) -> float:
    return max(_their_model(name, folder, outputs) for name in names)


def _their_model(name: str, folder: Path, outputs: Outputs) -> float:
    model_type, task, vocabulary = THEIR_MODELS[name]
    spec = registry.get_task_spec(task)
    classes = {} if spec.num_labels < 0 else {"num_labels": spec.num_labels}
    model = registry.get_task_model(model_type, task, load_dir=folder / "theirs" / name, **classes)
    return _difference(name, model, single_proteins(folder, vocabulary), outputs)


def _our_models(folder: Path, outputs: Outputs) -> float:
    found = []
    for name in OUR_MODELS:
        model = registry.get_task_model(name, "embed", load_dir=folder / "ours" / name)
        proteins = single_proteins(folder, "unirep" if name == "unirep" else "iupac")
        found.append(_difference(f"ours_{name}", model, proteins, outputs))
    return max(found)


@torch.no_grad()
def _difference(name: str, model: Any, proteins: list[np.ndarray], outputs: Outputs) -> float:
    """The largest difference of a model's outputs."""
    found = []
    for protein, ids in enumerate(proteins):
        pairs = {"protein_length": torch.tensor([ids.shape[1] - 2])} if name == "contact_prediction" else {}
        values = model(torch.from_numpy(ids), **pairs)
        ours = [value.numpy() for value in values if isinstance(value, torch.Tensor)]
        found += [largest_difference(own, outputs[f"{name}_{protein}_{place}"]) for place, own in enumerate(ours)]
    return max(found)


def _their_run(folder: Path, outputs: Outputs) -> float:
    """The losses of the steps that a run had left, with the weights and the optimizer's state of its directory."""
    run = find_tape_run(folder / "run")
    if run is None:
        raise ConfigError(f"{folder / 'run'}: not recognized as a run of tape-proteins 0.5")
    config = AdamWConfig(RUN["learning_rate"], warmup_steps=RUN["warmup_steps"])
    model = registry.get_task_model(RUN["model_type"], RUN["task"], load_dir=run.model, num_labels=3)
    optimizer, schedule = make_optimizer(model, config, 2 * RUN_STEPS)
    state = load_tape_state(run, model, config)
    optimizer.load_state_dict(state.training_state["optimizer"])
    ids, losses = torch.from_numpy(single_proteins(folder, "iupac")[0]), []
    for step in range(state.progress.global_step, 2 * RUN_STEPS):
        schedule.set_step(step)
        (loss, _), *_ = model(ids, torch.ones_like(ids), ids % 3)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    return largest_difference(np.array(losses), outputs["run"])


TAPE_PROTEINS = Client(
    name="tape-proteins 0.5",
    worker="benchmarks.clients.tape_proteins_worker",
    requirements="peers_requirements.txt",
    prepare=prepare,
    checks=(
        Check(
            "their model directories, read here",
            "states and pooled outputs of transformer, LSTM, ResNet and UniRep",
            partial(_their_models, ENCODERS),
        ),
        Check(
            "their model directories, read here",
            "predictions of the transformer's heads of all task types",
            partial(_their_models, HEADS),
        ),
        Check("their run, resumed here", "losses of the next four steps", _their_run),
        Check(
            "model directories of ours, read there", "states and pooled outputs of LSTM, ResNet and UniRep", _our_models
        ),
    ),
)

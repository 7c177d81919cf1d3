"""``checkpoint.bin`` of tape-proteins 0.5 and ProteinLM: the state of the optimizer for a model of this project.

It has ``optimizer``, ``scheduler`` and ``epoch``, and with apex also ``master params`` and ``amp``. The optimizer's
state is stored by position: first the parameters with weight decay, then those without, in the order of the weights
file. Which ones have none depends on their names there (bug 6 in docs/compatibility.md), so positions differ from those
here, and the state is assigned by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tape.errors import CheckpointError, listed, quoted
from tape.io.json_files import read_json_object
from tape.models.model_directory import BIN_NAME, StateDict, load_state_dict, load_weights_only
from tape.models.modeling_utils import ProteinModel

from .checkpoint import CHECKPOINT_NAME, TrainerState
from .config import AdamWConfig
from .optimizer import parameter_groups, untrained_state
from .tape_runs import TapeRun

_NO_DECAY = ("bias", "gamma", "beta", "LayerNorm")  # in names of parameters without weight decay there
_BUFFERS = frozenset({"onehot._buffer"})  # in weights files there, which the models here lack
_MASTER = "master params"
_MOST_STEPS = 2**31
_INSTEAD = "start a new run from this model without --resume_from_checkpoint"


@dataclass(frozen=True)
class TapeState:
    """What is known of the training.

    Attributes:
        training_state: ``optimizer``, as in our own ``checkpoint.bin``.
        progress: epoch and number of optimizer steps; the best loss is unknown.
        notices: lines on what the resumed run can't take over.
    """

    training_state: dict[str, Any]
    progress: TrainerState
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Parameter:
    """A parameter of the other program: its name there, its name here (None: unused), and its shape."""

    name: str
    own_name: str | None
    shape: torch.Size


def load_tape_state(run: TapeRun, model: nn.Module, config: AdamWConfig, *, verify: bool = True) -> TapeState:
    """Read the ``checkpoint.bin`` of another program's run, and give ``model`` its fp32 master weights, if it has any.

    Args:
        run: the run.
        model: the model with the weights of ``run.model``.
        config: optimizer of the resumed run, of which all parameters are trained at one learning rate.
        verify: compare the records of the files with their CRCs.

    Raises:
        CheckpointError: the file is damaged, or its state can't be assigned to the parameters of the model.
    """
    file = run.model / CHECKPOINT_NAME
    content = load_weights_only(file, verify=verify)
    progress, moments = assign_by_name(content, file, model)
    notices = [
        f"{run.model}: of a run of {run.program}, whose order of proteins and dropout masks can't be continued; from"
        " here on, they are those of --seed",
        f"{file}: has no validation loss, so --patience and the best epoch count from here",
    ]
    if not _cleared_gradients(run):
        notices.append(
            f"{file}: its moments are those of gradients that were never cleared (bug 1 in docs/compatibility.md)"
        )
    if _MASTER in content:
        notices.append(f"{file}: the weights are its {_MASTER} in fp32, which {BIN_NAME} may have rounded")
    if "amp" in content:
        notices.append(f"{file}: the loss scale of apex (amp) is not used")
    return TapeState({"optimizer": _optimizer_state(model, config, moments)}, progress, tuple(notices))


def assign_by_name(content: Any, file: Path, model: nn.Module) -> tuple[TrainerState, dict[str, dict[str, Any]]]:
    """Assign the optimizer's state to the parameters of ``model``, and give it the fp32 master weights, if any.

    Args:
        content: what ``file`` holds.
        file: ``checkpoint.bin``, beside the ``pytorch_model.bin`` of which the model has the weights.
        model: the model.

    Returns:
        The progress; and ``step``, ``exp_avg`` and ``exp_avg_sq`` by name of the parameter, without parameters that
        never had a gradient.

    Raises:
        CheckpointError: the state can't be assigned to the parameters of the model.
    """
    progress = _progress(content, file)
    stored = load_state_dict(file.parent, verify=False)  # as the model was, which has verified it
    stored = {name: value for name, value in stored.items() if name not in _BUFFERS}
    parameters = _parameters(stored, model, file.parent / BIN_NAME)
    groups = _by_decay(parameters)
    found = _saved_groups(content["optimizer"])
    if len(found) == 1 and len(found[0]) == len(parameters):  # an optimizer over model.parameters()
        groups = (parameters,)
    ordered = [parameter for group in groups for parameter in group]
    keys = _keys(found, [len(group) for group in groups], file)
    moments = _moments(content["optimizer"], dict(zip(keys, ordered, strict=True)), file)
    if _MASTER in content:
        _set_master_weights(content[_MASTER], ordered, model, file)
    return progress, moments


def _cleared_gradients(run: TapeRun) -> bool:
    """Whether the run cleared its gradients after a step: both programs did so in distributed fp16 training only."""
    arguments = read_json_object(run.arguments)
    return arguments.get("fp16") is True and arguments.get("local_rank", -1) != -1


def _refusal(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{file}: {reason}; {_INSTEAD}")


def _progress(content: Any, file: Path) -> TrainerState:
    if not isinstance(content, dict):
        raise _refusal(file, f"holds a {type(content).__name__}, not the state of a run")
    if "progress" in content:
        raise CheckpointError(f"{file}: of a run of this program, whose other files are missing in {file.parent}")
    missing = [name for name in ("optimizer", "scheduler", "epoch") if name not in content]
    if missing:
        raise _refusal(file, f"lacks {listed(missing)}")
    schedule = content["scheduler"]
    epoch: Any = content["epoch"]
    steps: Any = schedule.get("last_epoch") if isinstance(schedule, dict) else None
    for name, value in (("epoch", epoch), ("last_epoch of its scheduler", steps)):
        if type(value) is not int or value < 0:
            raise _refusal(file, f"{name} must be a number of at least 0, not {quoted(value)}")
    # The best epoch is unknown; --patience counts from the last one.
    return TrainerState(epoch=epoch, global_step=steps, best_epoch=epoch)


def _parameters(stored: StateDict, model: nn.Module, file: Path) -> list[_Parameter]:
    """The parameters in the order of the weights file, which is that of the modules; tied ones once."""
    own = {name for name, _ in model.named_parameters()}
    known = own | {name for name, _ in model.named_buffers()}
    known |= {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names = model.own_names(stored) if isinstance(model, ProteinModel) else {name: name for name in stored}
    unknown = [name for name, own_name in names.items() if own_name not in known]
    missing = own - set(names.values())
    if unknown or missing:
        which = (
            f"has weights that the model lacks: {listed(unknown)}" if unknown else f"lacks {listed(sorted(missing))}"
        )
        raise _refusal(file, f"{which}, so the parameters of the optimizer's state are unknown")
    # Unused weights are parameters in both programs, which their optimizer has.
    kept = [name for name in stored if name not in names or names[name] in own]
    return [_Parameter(name, names.get(name), stored[name].shape) for name in kept]


def _by_decay(parameters: list[_Parameter]) -> tuple[list[_Parameter], ...]:
    """The groups of their optimizer: the parameters with weight decay, and those without."""
    groups: tuple[list[_Parameter], list[_Parameter]] = ([], [])
    for parameter in parameters:
        groups[any(part in parameter.name for part in _NO_DECAY)].append(parameter)
    return groups


def _saved_groups(optimizer: Any) -> list[list[Any]]:
    """The keys of the parameters in the groups of a saved optimizer."""
    saved = optimizer.get("param_groups") if isinstance(optimizer, dict) else None
    found_keys = [group.get("params") for group in saved if isinstance(group, dict)] if isinstance(saved, list) else []
    return [group if isinstance(group, list) else [] for group in found_keys]


def _keys(groups: list[list[Any]], sizes: list[int], file: Path) -> list[int]:
    """The keys of the optimizer's state, by position of the parameter in groups of these sizes."""
    if [len(group) for group in groups] != sizes:
        found = " and ".join(str(len(group)) for group in groups) or "no"
        raise _refusal(
            file,
            f"its optimizer has groups of {found} parameters, but those of {BIN_NAME} are {sizes[0]} with weight decay"
            f" and {sizes[-1]} without, so its state can't be assigned to them",
        )
    keys = [key for group in groups for key in group]
    if not all(type(key) is int for key in keys) or len(set(keys)) < len(keys):
        raise _refusal(file, "the parameters of its optimizer are not numbered")
    return keys


def _moments(optimizer: dict[str, Any], parameters: Mapping[int, _Parameter], file: Path) -> dict[str, dict[str, Any]]:
    """The state of the optimizer by our names of the parameters; those that never had a gradient have none."""
    state = optimizer.get("state")
    if not isinstance(state, dict) or not state.keys() <= parameters.keys():
        raise _refusal(file, "its optimizer has a state of other parameters than those of its groups")
    moments = {}
    for key, values in state.items():
        parameter = parameters[key]
        _check_moments(values, parameter, file)
        if parameter.own_name is not None:
            moments[parameter.own_name] = {name: values[name] for name in ("step", "exp_avg", "exp_avg_sq")}
    return moments


def _check_moments(values: Any, parameter: _Parameter, file: Path) -> None:
    name = parameter.name
    step = values.get("step") if isinstance(values, dict) else None
    if type(step) is not int or not 0 <= step <= _MOST_STEPS:
        raise _refusal(file, f"the optimizer's state of {name} has no number of steps")
    for moment in ("exp_avg", "exp_avg_sq"):
        _check_values(values.get(moment), f"{moment} of {name}", parameter, file)
    if (values["exp_avg_sq"] < 0).any():
        raise _refusal(file, f"exp_avg_sq of {name} is negative")


def _check_values(value: Any, what: str, parameter: _Parameter, file: Path) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise _refusal(file, f"{what} is missing")
    if value.shape != parameter.shape:
        raise _refusal(
            file, f"{what} has the shape {tuple(value.shape)}, and the weight in {BIN_NAME} {tuple(parameter.shape)}"
        )
    if not torch.isfinite(value).all():
        raise _refusal(file, f"{what} is not finite")


@torch.no_grad()
def _set_master_weights(masters: Any, parameters: list[_Parameter], model: nn.Module, file: Path) -> None:
    """Give the model the fp32 weights of apex, whose fp16 copies may be what the weights file has.

    Raises:
        CheckpointError: they are not those of the weights file. Nothing is changed.
    """
    if not isinstance(masters, list) or len(masters) != len(parameters):
        raise _refusal(file, f"{_MASTER} are not one for each of the {len(parameters)} parameters")
    own, new = dict(model.named_parameters()), {}
    for parameter, master in zip(parameters, masters, strict=True):
        _check_values(master, f"{_MASTER} of {parameter.name}", parameter, file)
        if parameter.own_name is None:
            continue
        weight = own[parameter.own_name]
        full = master.to(weight.device, weight.dtype)
        if not torch.equal(full, weight) and not torch.equal(full.half(), weight.half()):
            raise _refusal(file, f"{_MASTER} of {parameter.name} are not the weights in {BIN_NAME} before rounding")
        new[parameter.own_name] = full
    for name, value in new.items():
        own[name].copy_(value)


def _optimizer_state(model: nn.Module, config: AdamWConfig, moments: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The state as our own optimizer saves it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [names[id(p)] for group in parameter_groups(model, config.weight_decay) for p in group["params"]]
    state = {place: moments[name] for place, name in enumerate(ordered) if name in moments}
    optimizer: dict[str, Any] = untrained_state(model, config)["optimizer"]
    return {**optimizer, "state": state}

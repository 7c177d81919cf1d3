"""Resuming a run: the saved epoch to start from, and the options of the interrupted run.

Options that are given again hold; the others are those of the run's ``args.json``. Defaults in place of the run's own
batch size, seed or learning rate would silently change the schedule and the order of the proteins (bug 9 in
docs/compatibility.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError, ConfigError, listed, quoted
from tape.hub.cache import local_model
from tape.io.json_files import read_json_object
from tape.io.run_layout import ARGUMENTS_NAME, LATEST_NAME, resolve_model_directory
from tape.runtime.precision_choice import AUTO

from .best_epoch import LOSS
from .tape_runs import WEIGHT_DECAY, check_weights_file, find_tape_run, missing_files

TRAIN_SAMPLES = "train_samples"  # digest of the numbers of the proteins to train on, beside those of the splits' files
_BEST_METRIC = "metric_for_best_model"
_NONE = type(None)  # null in args.json: an option without a value by default
# Options taken from args.json, unless they are given again -> their types.
_RESUMED_OPTIONS: dict[str, tuple[type, ...]] = {
    "data_dir": (str,),
    "data": (str, _NONE),
    "labels": (str, _NONE),
    "target": (str, list, _NONE),
    "task_type": (str, _NONE),
    "split": (str, _NONE),
    "split_by": (str, _NONE),
    "split_identity": (int, float, _NONE),
    "split_column": (str, _NONE),
    "standardize": (bool, _NONE),
    "atom": (str, _NONE),
    "log_dir": (str,),
    "tokenizer": (str,),
    "sequence_column": (str, _NONE),
    "id_column": (str, _NONE),
    "model_config_file": (str, _NONE),
    "contact_head": (str, _NONE),
    "class_weights": (str, _NONE),
    "pooling": (str, _NONE),
    "pooled_norm": (str, _NONE),
    "freeze": (bool,),
    "lora": (int, _NONE),
    "max_length": (int, _NONE),
    "max_train_samples": (int, _NONE),
    "max_tokens": (int, _NONE),
    "length": (str,),
    "eval_splits": (list,),
    "seed": (int,),
    "precision": (str, _NONE),
    "fp16": (bool,),
    "bf16": (bool,),
    "loss_scale": (int, float),
    "learning_rate": (int, float),
    "head_learning_rate": (int, float, _NONE),
    "weight_decay": (int, float),
    "max_grad_norm": (int, float),
    "warmup_steps": (int, _NONE),
    "batch_size": (int, _NONE),
    "gradient_accumulation_steps": (int,),
    "num_train_epochs": (int,),
    "num_log_iter": (int,),
    "eval_freq": (int,),
    "save_freq": (int, str),
    "patience": (int,),
    _BEST_METRIC: (str,),
}
_OPTION_TYPES = _RESUMED_OPTIONS | {"given_options": (list,), "config": (dict, _NONE)}
# Options that may differ without a word: device and logging of this process, and the names of the run itself. All
# others are taken from the run or announced.
SILENT_OPTIONS = frozenset(
    {
        "allow_other_samples",
        "debug",
        "exp_name",
        "force_save",
        "from_pretrained",
        "local_rank",
        "log_level",
        "no_cuda",
        "num_workers",
        "output_dir",
        "overwrite",
        "resume_from_checkpoint",
        "seeds",
        "time_or_name",
        "verify",
        "vocab_file",
    }
)
_COMPARED_APART = frozenset({"config", "given_options", "model_type", "task"})
_SWITCHES = ("fp16", "bf16")
_PRECISION_OPTIONS = ("precision", *_SWITCHES)
# The optimizer state and the saved weights depend on these, so a resumed run can't change them.
_FIXED_OPTIONS = (
    *("contact_head", "pooling", "pooled_norm", "freeze", "lora", "head_learning_rate", "class_weights"),
    _BEST_METRIC,  # the best epoch so far is that of one metric
    *("target", "task_type", "split", "split_by", "split_identity", "split_column", "standardize", "atom"),
)
# Their values in runs of tape-proteins 0.5 and ProteinLM, which lack these options.
_FIXED_THERE = {**dict.fromkeys(_FIXED_OPTIONS), "freeze": False, _BEST_METRIC: LOSS}


def initial_weights(from_pretrained: str | None, is_resumed: bool) -> Path | None:
    """The model directory of ``--from_pretrained``: the best epoch of a run, or the latest one to resume.

    Raises:
        ProteinLMError: the model can't be downloaded, or there is no epoch to resume.
    """
    if from_pretrained is None:
        return None
    path = local_model(from_pretrained)
    return epoch_to_resume(path) if is_resumed else resolve_model_directory(path)


def epoch_to_resume(path: Path) -> Path:
    """The saved epoch to resume after: ``path`` itself, or the latest one of a run directory.

    Raises:
        CheckpointError: it is not a saved epoch in the directory of a run, or one of another program with two files
            of weights.
    """
    theirs = find_tape_run(path)
    if theirs is not None:
        check_weights_file(theirs.model, theirs.program)
        return theirs.model
    source = resolve_model_directory(path, (LATEST_NAME,))
    if not source.is_dir():
        raise CheckpointError(f"{path}: no such directory, so training can't be resumed from it")
    missing = missing_files(source)
    if missing:
        raise CheckpointError(
            f"{path}: a run of another program without {' and '.join(map(str, missing))}, so training can't be resumed"
            " from it; restore what is missing, or start a new run from its model without --resume_from_checkpoint"
        )
    arguments = source.resolve().parent / ARGUMENTS_NAME
    if not arguments.is_file():
        raise CheckpointError(
            f"{path}: neither a run with saved epochs nor one of them ({arguments} is missing), so training can't be"
            " resumed from it; start a new run from this model without --resume_from_checkpoint"
        )
    return source


def run_to_resume(path: Path) -> Path | None:
    """The directory of the run to resume, in which it continues; None: in a new one, as with runs of other programs.

    Raises:
        CheckpointError: see :func:`epoch_to_resume`.
    """
    epoch = epoch_to_resume(path).resolve()
    return epoch.parent if find_tape_run(epoch) is None else None


def complete_options(options: Mapping[str, Any], given: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Complete the options of a resumed run with those of the interrupted run.

    Args:
        options: all options by name; ``from_pretrained`` is the run, or one of its saved epochs.
        given: names of the options on the command line.

    Returns:
        All options, and a line for each one that differs from the interrupted run's.

    Raises:
        CheckpointError: ``--from_pretrained`` names no run, or its ``args.json`` is damaged.
        ConfigError: the run trains another model or task, or an option can't be changed on resume.
    """
    epoch = epoch_to_resume(Path(options["from_pretrained"])).resolve()
    theirs = find_tape_run(epoch)
    file = epoch.parent / ARGUMENTS_NAME if theirs is None else theirs.arguments
    saved = read_json_object(file)
    model_config = read_json_object(epoch / CONFIG_NAME) if (epoch / CONFIG_NAME).is_file() else {}
    _check_types(saved, file)
    for name in ("model_type", "task"):
        if options[name] is not None and saved.get(name, options[name]) != options[name]:
            raise ConfigError(f"{file}: the run's {name} is {quoted(saved[name])}, not {options[name]}")
    given, changes = set(given), list[str]()
    if theirs is not None:
        if options.get("data") is not None:
            raise ConfigError(f"{file}: the run was started without --data, which can't be given on resume")
        changes = [_taken_options(saved, given, file)]
        unknown = sorted(saved.keys() - options.keys())
        if unknown:
            changes.append(f"{file}: has options without effect here: {listed(unknown)}")
        saved = _as_given(saved)
    saved.setdefault(_BEST_METRIC, LOSS)  # runs of earlier versions lack this option
    _check_fixed(options, given & saved.keys(), saved, model_config, file)
    if given & {"freeze", "lora"}:
        given |= {"freeze", "lora"}
    saved, values = _with_one_precision(saved), _with_one_precision(options)
    if given & set(_PRECISION_OPTIONS):
        given = given.difference(_PRECISION_OPTIONS) | ({"precision"} if values["precision"] != AUTO else set())
    resumed = _saved_options(saved)
    for name in sorted(values.keys() - SILENT_OPTIONS - _COMPARED_APART):
        if name not in given and name in resumed:
            values[name] = saved[name]
        elif name in given and name not in saved:
            changes.append(f"--{name} is {_shown(values[name])}, which the run was started without")
        elif name in saved and values[name] != saved[name] and (name in given or name not in _RESUMED_OPTIONS):
            before = f" from {_shown(saved[name])}" if saved[name] is not None else ""
            changes.append(f"--{name} changes{before} to {_shown(values[name])}")
    config = dict(saved.get("config") or {})
    changes += [
        f"--config {name} changes to {_shown(value)}" for name, value in options["config"] if config.get(name) != value
    ]
    values["config"] = [*config.items(), *options["config"]]
    values |= {name: values["precision"] == name for name in _SWITCHES if name in options}
    values["given_options"] = sorted({*options["given_options"], *saved.get("given_options", ())})
    return values, changes


def _taken_options(saved: Mapping[str, Any], given: set[str], file: Path) -> str:
    """A line with the options of another program's run that hold, because they are not given again."""
    replaced = given | set(_PRECISION_OPTIONS if given & set(_PRECISION_OPTIONS) else ())
    taken = {name: saved[name] for name in _RESUMED_OPTIONS if name in saved and name not in replaced}
    shown = [
        f"--{name}" if value is True else f"--{name} {_shown(value)}"  # a switch has no value
        for name, value in taken.items()
        if value is not None and value is not False
    ]
    return f"options that are not given are those of {file}: {', '.join(shown)}"


def _as_given(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The options of another program's run as if all had been given here, so that a later resume keeps them, too."""
    names = sorted(_RESUMED_OPTIONS.keys() & saved.keys())
    return {**_FIXED_THERE, "weight_decay": WEIGHT_DECAY, **saved, "given_options": names}


def _with_one_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the precision under one name; ``--fp16`` and ``--bf16`` are short for ``--precision``."""
    if not options.keys() & set(_PRECISION_OPTIONS):
        return dict(options)
    switched_on = next((name for name in _SWITCHES if options.get(name)), "fp32")
    others = {name: value for name, value in options.items() if name not in _PRECISION_OPTIONS}
    return {**others, "precision": options.get("precision") or switched_on}


def check_data(
    epoch: Path, provenance: Mapping[str, Any], digests: Mapping[str, str | None], allow_other_samples: bool
) -> list[str]:
    """Compare the data of a resumed run with those that it was trained on.

    Args:
        epoch: the saved epoch to resume after, for messages.
        provenance: its provenance.
        digests: see :func:`tape.finetuning.data.data_digests`.
        allow_other_samples: whether other data are allowed.

    Returns:
        Lines for the user.

    Raises:
        ConfigError: the data differ and are not allowed to. Names the split.
    """
    saved = provenance.get("data_sha256")
    if not isinstance(saved, Mapping):
        return [
            f"{epoch}: saved without digests of its data, as by earlier versions and TAPE, so they are not compared"
        ]
    lines = []
    for split, digest in digests.items():
        own = saved.get(split)
        if None in (own, digest) or own == digest:
            continue
        difference = f"SHA-256 {str(own)[:16]} of {split} then, {str(digest)[:16]} now"
        advice = "Resume with the data of the run"
        if split == TRAIN_SAMPLES:
            difference = "it had other proteins of train"
            advice = "Resume with its --max_train_samples, --max_length and --seed"
        if not allow_other_samples:
            raise ConfigError(
                f"{epoch}: the run was trained with other data: {difference}. {advice}, or give --allow_other_samples"
            )
        lines.append(f"from here on, the data differ from those before: {difference}")
    return lines


def _check_fixed(
    options: Mapping[str, Any], names: set[str], saved: dict[str, Any], model_config: dict[str, Any], file: Path
) -> None:
    """Refuse a change of the fixed options. If the run had a default, the model's configuration has its value."""
    for name in (name for name in _FIXED_OPTIONS if name in names):
        own = model_config.get(name) if saved[name] is None else saved[name]
        if options[name] != own:
            before = f"with --{name} {_shown(saved[name])}" if saved[name] else f"without --{name}"
            raise ConfigError(f"{file}: the run was started {before}, which can't be changed on resume")


def _shown(value: object) -> str:
    """A value as on the command line, shortened like other values in messages."""
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return value if isinstance(value, str) and len(value) <= 80 and value.isprintable() else quoted(value)


def _check_types(saved: Mapping[str, Any], file: Path) -> None:
    """Check the types of the options in ``args.json``, which no parser has checked.

    Raises:
        CheckpointError: a value has another type; names the file and the option.
    """
    for name, types in _OPTION_TYPES.items():
        if name not in saved:
            continue
        value = saved[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            kinds = " or ".join(kind.__name__ for kind in types if kind is not _NONE)
            raise CheckpointError(f"{file}: {name} must be of type {kinds}, not {quoted(value)}")
        if isinstance(value, str) and "\0" in value:
            raise CheckpointError(f"{file}: {name} must be text as on a command line, not {quoted(value)}")
    for name in ("eval_splits", "given_options", "target"):
        if not all(isinstance(entry, str) for entry in saved.get(name) or ()):
            raise CheckpointError(f"{file}: {name} must contain texts only, not {quoted(saved[name])}")


def _saved_options(saved: dict[str, Any]) -> set[str]:
    """Names of the options to take from ``args.json``. A default warm-up is computed again from the run's steps."""
    names = _RESUMED_OPTIONS.keys() & saved.keys()
    if "warmup_steps" not in saved.get("given_options", ("warmup_steps",)):
        names.discard("warmup_steps")
    return names

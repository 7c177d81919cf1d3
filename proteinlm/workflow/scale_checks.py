"""Checks of a scale's settings before anything runs: options together, as their commands check them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proteinlm.workflow.measure_iterations import LONG_SCHEDULE
from proteinlm.workflow.random_weights import random_weights_options
from proteinlm.workflow.scale_settings import VARIANTS, Scale
from tape.configs import CONFIG_NAME, ProteinBertConfig
from tape.errors import ConfigError, ProteinLMError
from tape.evaluation.config import EvalConfig
from tape.finetuning.config import ModelConfig
from tape.hub.cache import local_model
from tape.io.run_layout import resolve_model_directory
from tape.io.writing import scratch_directory
from tape.registry import registry
from tape.similarity.mmseqs import INSTALL, find_mmseqs
from tape.tokenizers import TAPETokenizer


def run_title(task: str, variant: str, seed: int) -> str:
    """A finetuning run, for progress and messages."""
    return f"{task} from {VARIANTS[variant]}, seed {seed}"


def model_type_of(variant: str) -> str:
    """The model type of a variant, as commands name it."""
    return "onehot" if variant == "onehot" else "transformer"


def model_directory(scale: Scale, out: Path) -> Path | None:
    """The directory of ``run.model``, of a run that of its best epoch; None if the scale pretrains a model.

    Args:
        scale: the settings.
        out: directory of the results, which moves those of other settings.

    Raises:
        ConfigError: it is no directory of a model that can be finetuned, or within ``out``. Names the file.
    """
    if not scale.model:
        return None
    from tape.evaluation import model_type  # imports torch
    from tape.models.model_directory import weights_file

    try:
        directory = resolve_model_directory(local_model(os.path.expanduser(scale.model)))
        if directory.is_file():
            raise ConfigError(f"{directory} is a file; give the directory of the model")
        name = model_type.model_type_of(directory)
        if name != "transformer":
            raise ConfigError(
                f"{directory} is a model of the type {name}; scales finetune those of the type transformer"
            )
        ProteinBertConfig.from_pretrained(directory)
        weights_file(directory)
        if directory.resolve().is_relative_to(out.resolve()):
            raise ConfigError(
                f"{directory} is in the output directory {out}, where results of other settings are moved; give another"
                " --out"
            )
    except ProteinLMError as error:
        raise ConfigError(f"{scale.file}: run.model: {error}") from error
    return directory.resolve()


def pretrained_config(scale: Scale) -> ProteinBertConfig:
    """The configuration of the model that pretraining makes; checks all of its options, as its command does.

    Raises:
        ConfigError: they contradict each other, or the model to start from can't be read. Names the file.
    """
    from pretrain.config.arguments import parse_arguments
    from pretrain.config.flags import make_parser as make_pretrain_parser

    length = () if scale.measure is None else ("--train-iters", str(LONG_SCHEDULE))
    words = [*scale.pretrain, *length, "--data-path", "corpus"]
    try:
        options = make_pretrain_parser().parse_args(words)
        ranks = options.tensor_model_parallel_size * options.pipeline_model_parallel_size
        return parse_arguments(words, ranks).model
    except ProteinLMError as error:
        raise ConfigError(f"{scale.file}: pretrain: {error}") from error


def check_finetuning(scale: Scale, data: Path, out: Path, model: ProteinBertConfig) -> None:
    """Check the options of each finetuning run together, as its command does, and build its model without weights.

    Args:
        scale: the settings.
        data, out: existing or new directories, as for :func:`plan`.
        model: configuration of the model that is finetuned.

    Raises:
        ConfigError: options contradict each other, the task or the variant, or change the shape of weights that are
            pretrained. Names the file and the run.
    """
    from tape.cli.train import finetune_config

    with scratch_directory("scale") as scratch:
        model.save_pretrained(scratch)
        file = scratch / CONFIG_NAME
        for (task, variant), words in scale.finetune.items():
            for seed in scale.seeds:
                own = ("--seed", str(seed), *(("--freeze",) if variant == "frozen" else ()))
                places = ("--data_dir", str(data), "--output_dir", str(out))
                words_of_run = [model_type_of(variant), task, *own, *places, *_start(variant, file, model), *words]
                try:
                    config = finetune_config(words_of_run, raises_errors=True)
                    if seed == scale.seeds[0]:  # the model is the same for all
                        _check_model(config.model, task, None if variant in ("onehot", "random") else model)
                except ConfigError as error:
                    raise ConfigError(f"{scale.file}: finetune: {run_title(task, variant, seed)}: {error}") from error


def _start(variant: str, file: Path, model: ProteinBertConfig) -> tuple[str, ...]:
    """Options for a model of a variant's architecture, without its weights."""
    if variant == "onehot":
        return ()
    return random_weights_options(file, model.initial_attention if variant == "random" else "random")


def _check_model(config: ModelConfig, task: str, pretrained: ProteinBertConfig | None) -> None:
    from tape.finetuning.model import build_model, build_trained_model  # imports torch
    from tape.models.meta_device import on_meta_device
    from tape.models.modeling_bert import ProteinBertModel

    tokenizer = TAPETokenizer(config.tokenizer)
    with on_meta_device():
        build_trained_model(config, task, tokenizer, None)
        if pretrained is None:
            return
        given = ProteinBertModel(pretrained).state_dict()
        encoder: Any = build_model(config, task, tokenizer, None).base_model
        wanted = encoder.state_dict()
    for name in dict.fromkeys((*given, *wanted)):
        shapes = [tuple(state[name].shape) if name in state else None for state in (wanted, given)]
        if shapes[0] != shapes[1]:
            raise ConfigError(f"config changes {name} of the pretrained model: {shapes[0]} instead of {shapes[1]}")


def check_evaluation(scale: Scale, data: Path, out: Path) -> None:
    """Check the options of evaluation with each task, as its command does: it runs after pretraining and finetuning.

    Args:
        scale, data, out: as for :func:`check_finetuning`.

    Raises:
        ConfigError: a value is out of range, or a task lacks a metric. Names the file and the task.
    """
    from tape.cli.evaluate import eval_config

    for task in scale.tasks:
        places = ("--data_dir", str(data), "--output_dir", str(out))
        try:
            config = eval_config(["transformer", task, str(out / "model"), *places, *scale.evaluate])
            if isinstance(config, EvalConfig) and config.metrics:
                _check_metrics(config.metrics, task)
        except ConfigError as error:
            raise ConfigError(f"{scale.file}: evaluate: {task}: {error}") from error


def _check_metrics(names: Sequence[str], task: str) -> None:
    from tape.evaluation.evaluate import check_metrics  # imports torch

    task_type = registry.get_task_spec(task).task_type
    if task_type is not None:  # else it is that of the data
        check_metrics(names, task, task_type)


def check_leakage(scale: Scale) -> None:
    """Check that the program for the search for relatives is installed: the search runs after pretraining.

    Raises:
        ConfigError: it is not. Says how to install it, and how to do without.
    """
    if scale.leakage_tasks and "exact" not in scale.leakage and find_mmseqs() is None:
        raise ConfigError(
            f"{scale.file}: leakage: MMseqs2 is not installed: {INSTALL}; or search for the relatives of no task with"
            " [leakage] tasks = []"
        )

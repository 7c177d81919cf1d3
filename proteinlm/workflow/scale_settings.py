"""The settings of a scale of ``scripts/reproduce.sh``: a TOML file whose options are those of the commands.

    extends = SCALE           optional, before the tables: another scale, or a TOML file relative to this one, which has
                              all settings that this file does not have
    [run]                     tasks, variants, seeds, data, and optionally splits = {TASK = [...]}, jobs, launcher;
                              model: a model to finetune instead of pretraining one
    [pretrain]                options of pretrain/pretrain_tape.py
    [measure]                 instead of pretrain.train-iters: minutes of training, and steps to measure the speed with
    [finetune]                options of tape_train.py, for all runs
    [finetune.TASK]           for the runs of a task
    [finetune.TASK.VARIANT]   for those of a task and variant
    [groups]                  TASK = METHOD of tape-groups: intervals of the task are over groups of its proteins
    [leakage]                 options of tape-leakage, and optionally tasks, by default all; without the table,
                              identities to training data are not searched
    [evaluate]                options of tape_eval.py
    [time-limit]              seconds per stage

Options have the names of the command line without the leading dashes. Lists are several values, true is an option
without a value, and false leaves out an option that would be inherited. Everything is compared with the commands' own
parsers before anything runs.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, quoted
from tape.evaluation.groups_config import METHODS

SCALES = Path(__file__).with_name("scales")
STAGES = ("prepare", "pretrain", "convert", "finetune", "leakage", "evaluate", "report", "card")
VARIANTS = {
    "onehot": "one-hot",
    "random": "random weights",
    "frozen": "pretrained, frozen",
    "pretrained": "pretrained, finetuned",
}
_EXTENDS = "extends"
_PRETRAINING = ("pretrain", "measure")  # run.model stands instead of them
_TABLES = ("run", "pretrain", "measure", "finetune", "groups", "leakage", "evaluate", "time-limit")
# Set by the plan of the steps.
_PLANNED = {
    "pretrain": {"data-path", "train-data-path", "valid-data-path", "test-data-path", "save", "load", "dry-run"},
    "finetune": {
        *("data_dir", "output_dir", "log_dir", "exp_name", "time_or_name", "overwrite", "resume_from_checkpoint"),
        *("from_pretrained", "model_config_file", "force_save", "freeze", "seed", "seeds", "eval_splits"),
    },
    "leakage": {"task", "split", "data_dir", "against", "corpus", "output"},
    "evaluate": {
        *("data_dir", "data", "labels", "split", "output_dir", "predict", "predict_out", "leakage", "groups"),
    },
}


@dataclass(frozen=True)
class Measure:
    """How the number of iterations is found: ``minutes`` of training at the speed of a run of ``steps`` iterations."""

    minutes: float
    steps: int = 50


@dataclass(frozen=True)
class Scale:
    """The settings of one scale.

    Attributes:
        file: where they were read.
        tasks: names of the tasks.
        variants: some of VARIANTS.
        seeds: seeds of the finetuning runs.
        data: directory of the input files.
        splits: task -> test splits; a task without an entry is evaluated on all.
        jobs: number of finetuning runs at the same time.
        launcher: words before the command of pretraining, such as those of ``srun`` or ``torchrun``.
        model: name or directory of the model to finetune; empty: one is pretrained.
        pretrain: command-line words of pretraining.
        measure: how the number of iterations is found; None: it is in ``pretrain``.
        finetune: (task, variant) -> command-line words.
        epochs: (task, variant) -> values of ``--num_train_epochs``, ``--patience`` and ``--metric_for_best_model``.
        groups: task -> method of ``tape-groups``.
        leakage: command-line words of the search for relatives.
        leakage_tasks: tasks with this search.
        evaluate: command-line words.
        time_limits: stage -> seconds.
    """

    file: Path
    tasks: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    data: Path
    splits: Mapping[str, tuple[str, ...]]
    jobs: int
    launcher: tuple[str, ...]
    model: str
    pretrain: tuple[str, ...]
    measure: Measure | None
    finetune: Mapping[tuple[str, str], tuple[str, ...]]
    epochs: Mapping[tuple[str, str], tuple[int, int, str]]
    groups: Mapping[str, str]
    leakage: tuple[str, ...]
    leakage_tasks: tuple[str, ...]
    evaluate: tuple[str, ...]
    time_limits: Mapping[str, float]

    @property
    def name(self) -> str:
        """The name of the file without its suffix."""
        return self.file.stem

    @property
    def argument(self) -> str:
        """The scale on a command line: the name of a committed one, or the path of another."""
        return self.name if self.file.parent == SCALES else str(self.file)

    @property
    def iterations(self) -> int | None:
        """The value of ``--train-iters``; None if it is measured."""
        option = "--train-iters"
        return int(self.pretrain[self.pretrain.index(option) + 1]) if option in self.pretrain else None


def committed_scales() -> dict[str, Path]:
    """The files of the scales in this package by name."""
    return {path.stem: path for path in sorted(SCALES.glob("*.toml"), key=lambda path: path.stem)}


def scale_file(name: str, directory: Path = Path()) -> Path:
    """The file of a scale: one of SCALES by its name, or a TOML file.

    Args:
        name: of a scale, or a path that ends in .toml.
        directory: the path is relative to it.

    Raises:
        ConfigError: there is no such scale.
    """
    committed = committed_scales()
    file = Path(os.path.normpath(directory / name)) if name.endswith(".toml") else committed.get(name)
    if file is None or not file.is_file():
        known = ", ".join(committed)
        raise ConfigError(f"{file or name}: no such file; scales are {known}, or a file whose name ends in .toml")
    return file


def read_scale(file: Path, tasks: Collection[str]) -> Scale:
    """Read and check the settings of a scale.

    Args:
        file: the TOML file.
        tasks: names of the known tasks.

    Raises:
        ConfigError: the file is not TOML, or a table, an option or a value is not known. Names the key and what is
            allowed.
    """
    content, files = _content(file)
    tables = _Tables(file, " extends ".join(map(str, files)))
    tables.check_names("", content, (_EXTENDS, *_TABLES))
    for name in content:
        if not isinstance(content[name], dict):
            raise tables.error(name, "must be a table")
    return tables.scale(content, tuple(tasks))


def _content(file: Path, extended_by: Sequence[Path] = ()) -> tuple[dict[str, Any], list[Path]]:
    """The tables of a file with those of the files that it extends, and all these files."""
    content = _parse(file)
    name = content.pop(_EXTENDS, None)
    if name is None:
        return content, [file]
    if not isinstance(name, str):
        raise ConfigError(f"{file}: extends must be the name of a scale or of a TOML file, not {quoted(name)}")
    try:
        base_file = scale_file(name, file.parent)
    except ConfigError as error:
        raise ConfigError(f"{file}: extends {quoted(name)}: {error}") from None
    if base_file.resolve() in (path.resolve() for path in (*extended_by, file)):
        raise ConfigError(f"{file}: extends {quoted(name)}, which extends this file")
    base, files = _content(base_file, (*extended_by, file))
    _adapt(base, content)
    return _merged(base, content), [file, *files]


def _adapt(base: dict[str, Any], content: Mapping[str, Any]) -> None:
    """Remove from ``base`` what settings of ``content`` stand instead of, or exclude."""
    if _table(content, "run").get("model"):
        for name in _PRETRAINING:
            base.pop(name, None)
    elif any(name in content for name in _PRETRAINING):
        _table(base, "run").pop("model", None)
    if "measure" in content:
        _table(base, "pretrain").pop("train-iters", None)
    if "train-iters" in _table(content, "pretrain"):
        base.pop("measure", None)
    tasks, leakage, groups = _table(content, "run").get("tasks"), _table(base, "leakage"), _table(base, "groups")
    if isinstance(tasks, list):
        if isinstance(leakage.get("tasks"), list):
            leakage["tasks"] = [task for task in leakage["tasks"] if task in tasks]
        for task in [task for task in groups if task not in tasks]:
            del groups[task]


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A table, or an empty one."""
    table = content.get(name)
    return table if isinstance(table, dict) else {}


def _merged(base: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``content``; tables in both are merged, other values replaced."""
    both = {name for name in content if isinstance(content[name], dict) and isinstance(base.get(name), dict)}
    return {**base, **content, **{name: _merged(base[name], content[name]) for name in both}}


def _parse(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error


class _Tables:
    """Converts and checks the tables of one file.

    Args:
        file: the scale's file.
        source: where the settings are from, for messages.
    """

    def __init__(self, file: Path, source: str) -> None:
        from pretrain.config.flags import make_parser
        from tape.cli.evaluate import create_eval_parser
        from tape.cli.leakage import create_leakage_parser
        from tape.cli.train import create_train_parser

        self.file = file
        self.source = source
        self.parsers = {
            "pretrain": make_parser(),
            "finetune": _raising(create_train_parser()),
            "leakage": _raising(create_leakage_parser()),
            "evaluate": _raising(create_eval_parser()),
        }

    def error(self, key: str, text: str) -> ConfigError:
        return ConfigError(f"{self.source}: {key} {text}")

    def check_names(self, where: str, table: Mapping[str, Any], allowed: Collection[str]) -> None:
        for name in table:
            if name not in allowed:
                close = difflib.get_close_matches(name, list(allowed), n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise self.error(f"{where}{name}", f"is not known{hint}; allowed: {', '.join(allowed)}")

    def _check_place(self, tables: Mapping[str, Any], where: str = "") -> None:
        """Refuse ``extends`` in a table."""
        for name, table in tables.items():
            if isinstance(table, dict):
                if _EXTENDS in table:
                    raise self.error(f"{where}{name}.{_EXTENDS}", "belongs before the first table")
                self._check_place(table, f"{where}{name}.")

    def scale(self, content: Mapping[str, Any], tasks: Sequence[str]) -> Scale:
        self._check_place(content)
        run = self._run(content.get("run", {}), tasks)
        measure = self._measure(content.get("measure"))
        pretrain = self._given("pretrain", content.get("pretrain", {}))
        if not run["model"]:
            self._check_required(pretrain, measure)
        elif pretrain or measure is not None:
            raise self.error("run.model", "leaves nothing to pretrain; leave out it, or [pretrain] and [measure]")
        finetune = {
            key: self.words("finetune", table, f"finetune.{'.'.join(key)}")
            for key, table in self._finetune(content.get("finetune", {}), run["tasks"], run["variants"], tasks).items()
        }
        limits = content.get("time-limit", {})
        self.check_names("time-limit.", limits, STAGES)
        limits = {name: value for name, value in limits.items() if value is not False}
        for name, value in limits.items():
            self._check_positive(f"time-limit.{name}", value, (int, float), "a number of seconds")
        leakage_tasks, leakage = self._leakage(content.get("leakage"), run["tasks"])
        self._parsed("leakage", "leakage", leakage)
        evaluate = self.words("evaluate", self._given("evaluate", content.get("evaluate", {})))
        self._parsed("evaluate", "evaluate", ["transformer", run["tasks"][0], "run", *evaluate])
        return Scale(
            file=self.file,
            **run,
            pretrain=self.words("pretrain", pretrain),
            measure=measure,
            finetune=finetune,
            epochs={key: self._epochs(key, words) for key, words in finetune.items()},
            groups=self._groups(content.get("groups", {}), run["tasks"]),
            leakage=leakage,
            leakage_tasks=leakage_tasks,
            evaluate=evaluate,
            time_limits=limits,
        )

    def _run(self, table: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
        self.check_names("run.", table, ("tasks", "variants", "seeds", "data", "splits", "jobs", "launcher", "model"))
        tasks = self._list("run.tasks", table.get("tasks", list(known)), str, known)
        variants = self._list("run.variants", table.get("variants", list(VARIANTS)), str, tuple(VARIANTS))
        splits = table.get("splits", {})
        self._check_type("run.splits", splits, (dict,), "a table of lists by task")
        self.check_names("run.splits.", splits, known)
        data, jobs, model = table.get("data", "data"), table.get("jobs", 1), table.get("model", False)
        model = "" if model is False else model
        self._check_type("run.data", data, (str,), "the name of a directory")
        self._check_type("run.model", model, (str,), "the name or the directory of a model")
        self._check_positive("run.jobs", jobs, (int,), "a number")
        return {
            "tasks": tasks,
            "variants": variants,
            "seeds": self._list("run.seeds", table.get("seeds", [42]), int),
            "data": Path(data),
            "splits": {task: self._list(f"run.splits.{task}", names, str) for task, names in splits.items()},
            "jobs": jobs,
            "launcher": self._list("run.launcher", table.get("launcher", []), str, may_be_empty=True),
            "model": model,
        }

    def _list(
        self, key: str, value: Any, kind: type, allowed: Sequence[str] = (), may_be_empty: bool = False
    ) -> tuple[Any, ...]:
        if not isinstance(value, list) or not (value or may_be_empty) or any(type(one) is not kind for one in value):
            raise self.error(key, f"must be a list of {kind.__name__}, not {quoted(value)}")
        if len(set(value)) < len(value) and not may_be_empty:
            raise self.error(key, f"must have each value once, not {quoted(value)}")
        if any(allowed and one not in allowed for one in value):
            raise self.error(key, f"must be out of {', '.join(allowed)}, not {quoted(value)}")
        return tuple(value)

    def _check_type(self, key: str, value: Any, kinds: tuple[type, ...], meaning: str) -> None:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.error(key, f"must be {meaning}, not {quoted(value)}")

    def _check_positive(self, key: str, value: Any, kinds: tuple[type, ...], meaning: str) -> None:
        self._check_type(key, value, kinds, meaning)
        if not value > 0:
            raise self.error(key, f"must be positive, not {value}")

    def _measure(self, table: Mapping[str, Any] | None) -> Measure | None:
        if table is None:
            return None
        self.check_names("measure.", table, ("minutes", "steps"))
        for name, value in table.items():
            self._check_positive(f"measure.{name}", value, (int, float) if name == "minutes" else (int,), "a number")
        if "minutes" not in table:
            raise self.error("measure.minutes", "is missing")
        return Measure(**table)

    def _groups(self, table: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, str]:
        """The method of each task with groups."""
        self.check_names("groups.", table, tasks)
        methods = {task: method for task, method in table.items() if method is not False}
        for task, method in methods.items():
            if method not in METHODS:
                raise self.error(f"groups.{task}", f"is {quoted(method)}; allowed: {', '.join(METHODS)}, or false")
        return methods

    def _leakage(
        self, table: Mapping[str, Any] | None, tasks: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tasks with a search for relatives, and its command-line words."""
        if table is None:
            return (), ()
        chosen = table.get("tasks", list(tasks))
        searched = () if chosen == [] else self._list("leakage.tasks", chosen, str, tasks)
        options = {name: value for name, value in table.items() if name != "tasks"}
        return searched, self.words("leakage", self._given("leakage", options))

    def _check_required(self, pretrain: Mapping[str, Any], measure: Measure | None) -> None:
        for action in self.parsers["pretrain"]._actions:
            if action.required and not any(name.lstrip("-") in pretrain for name in action.option_strings):
                raise self.error(f"pretrain.{action.option_strings[0].lstrip('-')}", "is missing")
        if ("train-iters" in pretrain) == (measure is not None):
            raise self.error("pretrain.train-iters", "is needed, unless there is a table [measure], and only then")

    def _finetune(
        self, table: Mapping[str, Any], tasks: Sequence[str], variants: Sequence[str], known: Sequence[str]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """(task, variant) -> options; those of a variant replace those of the task, and these the common ones."""
        self._check_tables("finetune.", table, known)
        common = {name: value for name, value in table.items() if not isinstance(value, dict)}
        by_task = {name: value for name, value in table.items() if isinstance(value, dict)}
        self.check_names("finetune.", by_task, known)
        for task, options in by_task.items():
            self._check_tables(f"finetune.{task}.", options, tuple(VARIANTS))
            nested = {name: value for name, value in options.items() if isinstance(value, dict)}
            self.check_names(f"finetune.{task}.", nested, tuple(VARIANTS))
        found = {}
        for task in tasks:
            own = by_task.get(task, {})
            for variant in variants:
                of_task = {name: value for name, value in own.items() if not isinstance(value, dict)}
                found[task, variant] = self._given("finetune", {**common, **of_task, **own.get(variant, {})})
        return found

    def _epochs(self, key: tuple[str, str], words: Sequence[str]) -> tuple[int, int, str]:
        """``--num_train_epochs``, ``--patience`` and ``--metric_for_best_model`` of a task and variant."""
        options = self._parsed("finetune", f"finetune.{'.'.join(key)}", ["transformer", key[0], *words])
        return options.num_train_epochs, options.patience, options.metric_for_best_model

    def _parsed(self, command: str, where: str, words: Sequence[str]) -> argparse.Namespace:
        """Parse words together: options may exclude each other."""
        try:
            options: argparse.Namespace = self.parsers[command].parse_args(words)
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {where}: {error}") from error
        return options

    def _check_tables(self, where: str, table: Mapping[str, Any], names: Collection[str]) -> None:
        for name in names:
            if name in table and not isinstance(table[name], dict):
                raise self.error(f"{where}{name}", f"must be a table, [{where}{name}]")

    def _given(self, command: str, table: Mapping[str, Any]) -> dict[str, Any]:
        """The table without options that take a value and are false, as in a scale that leaves out an inherited one."""
        actions = self.parsers[command]._option_string_actions
        takes_value = {name for name in table if f"--{name}" in actions and actions[f"--{name}"].nargs != 0}
        return {name: value for name, value in table.items() if not (value is False and name in takes_value)}

    def words(self, command: str, table: Mapping[str, Any], where: str = "") -> tuple[str, ...]:
        """The options of a table as words of a command line."""
        where = where or command
        actions = self.parsers[command]._option_string_actions
        words: list[str] = []
        for name, value in table.items():
            action = actions.get(f"--{name}")
            if action is None or action.help == argparse.SUPPRESS:
                known = sorted(option.lstrip("-") for option in actions if option.startswith("--"))
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise self.error(f"{where}.{name}", f"is not an option of {self.parsers[command].prog}{hint}")
            if name in _PLANNED[command]:
                raise self.error(f"{where}.{name}", "is set by reproduce.sh, not by the scale")
            words += self._option(f"{where}.{name}", f"--{name}", action, value, f"--no-{name}" in actions)
        return tuple(words)

    def _option(self, key: str, option: str, action: argparse.Action, value: Any, negatable: bool) -> list[str]:
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise self.error(key, f"must be true or false, not {quoted(value)}")
            return [option] if value else [f"--no-{option[2:]}"] if negatable else []
        values = value if isinstance(value, list) else [value]
        repeated = isinstance(action, argparse._AppendAction)
        if not (values or repeated) or any(isinstance(one, bool | dict | list) for one in values):
            raise self.error(key, f"must be a value of {option}, not {quoted(value)}")
        if isinstance(value, list) and not repeated and action.nargs is None:
            raise self.error(key, f"must be one value of {option}, not {quoted(value)}")
        texts = [str(one) for one in values]
        for text in texts:
            self._check_value(key, action, text)
        return [word for text in texts for word in (option, text)] if repeated else [option, *texts]

    def _check_value(self, key: str, action: argparse.Action, text: str) -> None:
        try:
            parsed = action.type(text) if callable(action.type) else text
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, argparse.ArgumentTypeError) else "is of the wrong type"
            raise self.error(key, f"{quoted(text)}: {reason}") from None
        if action.choices is not None and parsed not in action.choices:
            raise self.error(key, f"must be one of {', '.join(map(str, action.choices))}, not {quoted(text)}")


def _raising(parser: ArgumentParser) -> ArgumentParser:
    """The parser, with errors in the words of a command line as exceptions."""
    parser.raises_errors = True
    return parser

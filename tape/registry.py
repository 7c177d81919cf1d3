"""The table of tasks, models and metrics, open to third parties.

``registry`` refers to the built-in tasks by name only (``"module:Class"``), so importing this module imports neither
torch nor a model. Third-party code registers classes by decorator or plain call, in any order, before ``run_train()``::

    @registry.register_task("my_task", num_labels=4)
    class MyDataset(Dataset): ...

    registry.register_task_model("my_task", "transformer", ProteinBertForSequenceClassification)
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tape.hub.cache import local_model, no_such_model

from .compatibility.names import names_of
from .errors import ConfigError, did_you_mean, listed, quoted
from .targets import Target, target_of
from .tasks import BUILT_IN_TASKS, LABELED_MODELS, Task, TaskType

__getattr__ = names_of(__name__)  # of tape-proteins 0.5

Registered = TypeVar("Registered", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

_BUILT_IN_METRICS = {
    "mse": "tape.metrics:mean_squared_error",
    "mae": "tape.metrics:mean_absolute_error",
    "rmse": "tape.metrics:root_mean_squared_error",
    "r2": "tape.metrics:r_squared",
    "spearmanr": "tape.metrics:spearmanr",
    "pearsonr": "tape.metrics:pearsonr",
    "accuracy": "tape.metrics:accuracy",
    "balanced_accuracy": "tape.metrics:balanced_accuracy",
    "macro_f1": "tape.metrics:macro_f1",
    "micro_f1": "tape.metrics:micro_f1",
    "mcc": "tape.metrics:matthews_correlation",
    "auroc": "tape.metrics:auroc",
    "auprc": "tape.metrics:auprc",
    "L5": "tape.metrics:precision_at_l5",
}


def _resolve(entry: Any) -> Any:
    """The object behind ``"module:name"``; anything else is the object itself."""
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def _may_replace(old: Any, new: Any, name: str) -> bool:
    """Whether ``new`` may be registered where ``old`` is: it is the same, or ``old`` is built in, which is logged."""
    if _same_definition(old, new):
        return True
    if isinstance(old, str):
        logger.warning("the built-in %s is replaced by %s", name, getattr(new, "__qualname__", new))
    return isinstance(old, str)


def _same_definition(old: Any, new: Any) -> bool:
    """Whether two entries are the same definition (of a notebook cell run again, or a script imported twice)."""
    if old is new or isinstance(old, str) or isinstance(new, str):
        return old is new or old == new
    return getattr(old, "__qualname__", old) == getattr(new, "__qualname__", new)


# Set by the commands, whether or not a third party's configuration has them.
_ALWAYS_ALLOWED = frozenset({"class_weights", "finetuning_task", "num_labels", "target", "value_scale"})


def _load_config(config_class: Any, config_file: Any, load_dir: Any) -> Any:
    """The configuration without overrides.

    Raises:
        CheckpointError: there is no such directory or weights file.
        ConfigError: neither file nor directory is given, and the class has no defaults.
    """
    if load_dir is not None:
        path = Path(load_dir)
        if not path.exists():
            raise no_such_model(path)
        return config_class.from_pretrained(path if path.is_dir() else path.parent)
    if config_file is not None:
        return config_class.from_json_file(config_file)
    try:
        return config_class()
    except TypeError as error:
        raise ConfigError(
            f"{config_class.__name__} has no default configuration ({error}); give one in a file"
        ) from error


def _check_known(config: Any, overrides: Mapping[str, Any]) -> None:
    """Refuse a value that the configuration does not have, since it would have no effect."""
    known = set(config.to_dict())
    unknown = sorted(set(overrides) - known - _ALWAYS_ALLOWED)
    if unknown:
        raise ConfigError(f"{type(config).__name__} has no {listed(unknown)}; it has {', '.join(sorted(known))}")


@dataclass
class TaskSpec:
    """A registered task with its dataset class and the models that have its head.

    Attributes:
        task: name, number of classes and type.
        dataset_entry: the dataset class, or the ``"module:Class"`` of a built-in one; None or empty without any.
        models: model type -> class or ``"module:Class"``.
        target: the target of a user's table; None for all other tasks.
    """

    task: Task
    dataset_entry: Any = None
    models: dict[str, Any] = field(default_factory=dict)
    target: Target | None = None

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def num_labels(self) -> int:
        return self.task.num_labels

    @property
    def task_type(self) -> TaskType | None:
        return self.task.task_type

    @property
    def is_available(self) -> bool:
        """False for a task of the original system that has neither data nor models here."""
        return bool(self.dataset_entry != "")

    @property
    def dataset_class(self) -> Any:
        """The dataset class.

        Raises:
            ConfigError: none was registered.
        """
        if self.dataset_entry is None or self.dataset_entry == "":
            raise ConfigError(f"task {self.name} has no dataset: register one with registry.register_task")
        return _resolve(self.dataset_entry)

    @property
    def dataset(self) -> Any:
        """TAPE's name of :attr:`dataset_class`."""
        return self.dataset_class

    def register_model(self, model_name: str, model_cls: Any = None) -> Any:
        """Register a model class, also instead of a built-in one; without a class, returns a decorator.

        Raises:
            ConfigError: the name is taken by another class that was registered.
        """
        if model_cls is None:
            return lambda cls: self.register_model(model_name, cls)
        old = self.models.get(model_name, model_cls)
        if not _may_replace(old, model_cls, f"model {model_name} of task {self.name}"):
            raise ConfigError(f"task {self.name} has a model named {quoted(model_name)} already; choose another name")
        self.models[model_name] = model_cls
        return model_cls

    def get_model(self, model_name: str) -> Any:
        """The model class of a model type.

        Raises:
            ConfigError: unknown model type; the message lists those of the task.
        """
        if model_name not in self.models:
            known = ", ".join(sorted(self.models)) or "none"
            near = did_you_mean([model_name], self.models)
            raise ConfigError(f"task {self.name} has no model {quoted(model_name)}; registered: {known}{near}")
        return _resolve(self.models[model_name])


class Registry:
    """Tasks by name (each with its models) and metrics by name."""

    def __init__(self) -> None:
        self.task_name_mapping: dict[str, TaskSpec] = {}
        self.metric_name_mapping: dict[str, Any] = dict(_BUILT_IN_METRICS)
        for task in BUILT_IN_TASKS:
            self.task_name_mapping[task.name] = TaskSpec(task, task.dataset, dict(task.model_references))

    def register_task(
        self,
        task_name: str,
        num_labels: int = -1,
        dataset: Any = None,
        models: Mapping[str, Any] | None = None,
        task_type: TaskType | str | None = None,
    ) -> Any:
        """Register a task and its dataset class; without ``dataset``, returns a decorator for that class.

        A task of the name of a built-in one replaces it, but for the models that are not registered again.

        Args:
            task_name: name of the task on the command line.
            num_labels: number of classes; -1 if the task has none.
            dataset: class with ``__init__(data_path, split, tokenizer, in_memory)``, ``__getitem__``, ``collate_fn``.
            models: model_type -> class.
            task_type: what is predicted (``"residue class"`` ...); None infers it from the targets of the first batch.

        Raises:
            ConfigError: the name is taken by another task that was registered.
        """
        if dataset is None:
            return lambda cls: self.register_task(task_name, num_labels, cls, models, task_type)
        task = Task(task_name, num_labels=num_labels, task_type=None if task_type is None else TaskType(task_type))
        self.register_task_spec(task_name, TaskSpec(task, dataset, dict(models or {})))
        return dataset

    def register_task_spec(self, task_name: str, task_spec: TaskSpec | None = None) -> Any:
        """Register a :class:`TaskSpec`; without one, returns a decorator for a function or class that makes it."""
        if task_spec is None:
            return lambda make: self._register_made(task_name, make)
        old = self.task_name_mapping.get(task_name)
        if (
            old is not None
            and old.is_available
            and not _may_replace(old.dataset_entry, task_spec.dataset_entry, f"task {task_name}")
        ):
            raise ConfigError(f"a task named {quoted(task_name)} is registered already; choose another name")
        if old is not None:
            task_spec.models = {**old.models, **task_spec.models}
        self.task_name_mapping[task_name] = task_spec
        return task_spec

    def register_target(self, target: Target, dataset: Any = None) -> TaskSpec:
        """Register the task of a user's table, in place of an earlier one of its name.

        Args:
            target: name, type and classes of the task.
            dataset: called as a data set class; None: the model is used for predictions only.

        Raises:
            ConfigError: another kind of task has this name.
        """
        old = self.task_name_mapping.get(target.task)
        if old is not None and old.target is None:
            raise ConfigError(f"a task named {quoted(target.task)} is registered already; rename the table")
        task = Task(
            target.task,
            num_labels=target.num_labels,
            task_type=target.task_type,
            models=LABELED_MODELS,
            class_names=target.classes,
        )
        spec = TaskSpec(task, dataset, dict(task.model_references), target)
        self.task_name_mapping[target.task] = spec
        return spec

    def _register_made(self, task_name: str, make: Callable[[], TaskSpec]) -> Callable[[], TaskSpec]:
        self.register_task_spec(task_name, make())
        return make

    def register_task_model(self, task_name: str, model_name: str, model_cls: Any = None) -> Any:
        """Register a model class for a task; without a class, returns a decorator.

        Raises:
            ConfigError: unknown task, or the name is taken.
        """
        return self.get_task_spec(task_name).register_model(model_name, model_cls)

    def register_metric(self, name: str) -> Callable[[Registered], Registered]:
        """Decorator for a function ``(target, prediction) -> float``, which ``--metrics name`` calls."""

        def register(function: Registered) -> Registered:
            old = self.metric_name_mapping.get(name)
            if old is not None and not _may_replace(old, function, f"metric {name}"):
                raise ConfigError(f"a metric named {quoted(name)} is registered already; choose another name")
            self.metric_name_mapping[name] = function
            return function

        return register

    def get_task_spec(self, task_name: str) -> TaskSpec:
        """The spec of a task.

        Raises:
            ConfigError: unknown task; the message lists the registered ones.
        """
        if task_name not in self.task_name_mapping:
            known = ", ".join(sorted(self.task_name_mapping))
            raise ConfigError(f"unknown task {quoted(task_name)}; registered: {known}")
        return self.task_name_mapping[task_name]

    def finetuned_task_type(self, config: Any) -> TaskType | None:
        """The type of the task that a model was finetuned on; None for a pretrained model and an unknown task.

        Args:
            config: the model's configuration.
        """
        target = target_of(config)
        if target is not None:
            return target.task_type
        name = getattr(config, "finetuning_task", None)
        spec = self.task_name_mapping.get(name) if isinstance(name, str) else None
        return None if spec is None else spec.task_type

    def get_metric(self, name: str) -> Callable[[Any, Any], float]:
        """The function of a metric.

        Raises:
            ConfigError: unknown metric; the message lists the registered ones.
        """
        if name not in self.metric_name_mapping:
            known = ", ".join(sorted(self.metric_name_mapping))
            raise ConfigError(f"unknown metric {quoted(name)}; registered: {known}")
        metric: Callable[[Any, Any], float] = _resolve(self.metric_name_mapping[name])
        return metric

    def get_task_model(
        self,
        model_name: str,
        task_name: str,
        config_file: str | os.PathLike[str] | None = None,
        load_dir: str | os.PathLike[str] | None = None,
        *,
        verify: bool = True,
        **config_overrides: Any,
    ) -> Any:
        """A model with the task's head: loaded from ``load_dir``, or with random weights from ``config_file``.

        Args:
            model_name: model type registered for the task.
            task_name: a registered task.
            config_file: JSON configuration; None: the defaults of the class. Ignored with ``load_dir``.
            load_dir: model directory, bundled or published name, or URL (:func:`tape.hub.cache.local_model`).
            verify: compare the files in ``load_dir`` with their checksums.
            config_overrides: configuration values that replace those of the file, directory or defaults.

        Raises:
            ConfigError: unknown task, model or configuration value.
        """
        spec = self.get_task_spec(task_name)
        model_class = spec.get_model(model_name)
        config_class = model_class.config_class
        overrides = {"num_labels": spec.num_labels, **config_overrides}
        if load_dir is not None:
            load_dir = local_model(load_dir)
        if load_dir is not None and overrides.keys() <= _ALWAYS_ALLOWED:
            return model_class.from_pretrained(load_dir, verify=verify, **overrides)
        config = _load_config(config_class, config_file, load_dir)
        _check_known(config, overrides)
        if load_dir is not None:
            return model_class.from_pretrained(load_dir, verify=verify, **overrides)
        return model_class(config_class.from_dict({**config.to_dict(), **overrides}))


registry = Registry()

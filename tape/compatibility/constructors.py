"""Construction of configurations, also of classes that third parties have written for tape-proteins 0.5.

TAPE sets the values of a file as attributes, whatever the constructor takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any, TypeVar

from tape.errors import ConfigError, quoted

Config = TypeVar("Config")

# In early versions of transformers, and in TAPE: a size, or the name of a file; -1 if the values come from elsewhere.
_FIRST_ARGUMENT = "vocab_size_or_config_json_file"


def construct(constructor: type[Config], values: Mapping[str, Any]) -> Config:
    """An object with these settings: those that the constructor does not take become attributes.

    Raises:
        ConfigError: see :func:`set_attributes`.
        TypeError: the constructor lacks an argument.
    """
    parameters = inspect.signature(constructor).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = {name: value for name, value in values.items() if takes_any or name in parameters}
    if _FIRST_ARGUMENT in parameters:
        arguments.setdefault(_FIRST_ARGUMENT, -1)
    made = constructor(**arguments)
    set_attributes(made, {name: value for name, value in values.items() if name not in arguments})
    return made


def set_attributes(config: object, values: Mapping[str, Any]) -> None:
    """Set settings as attributes.

    Raises:
        ConfigError: the name of a setting is that of a method, or special to Python.
    """
    for name, value in values.items():
        if name.startswith("__") or callable(getattr(type(config), name, None)):
            raise ConfigError(f"{quoted(name)} can't be the name of a setting: the configuration's class uses it")
        setattr(config, name, value)

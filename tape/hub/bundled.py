"""Models that are installed with the package: a name -> its directory in ``tape/pretrained``, without network.

``scripts/bundle_model.py`` writes these directories. ``PROTEINLM_PRETRAINED`` names another folder to use instead, such
as one that all users of a machine share.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tape.errors import CheckpointError, ConfigError
from tape.io.checksums import SUMS_NAME

DEFAULT_MODEL = "proteinlm-mini"
DEFAULT_MODEL_TYPE = "transformer"
CARD_NAME, LOG_NAME = "README.md", "training_log.jsonl"
FOLDER_VARIABLE = "PROTEINLM_PRETRAINED"
_PACKAGED = Path(__file__).resolve().parents[1] / "pretrained"
_REQUIRED = ("config.json", "model.safetensors", SUMS_NAME)
_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_LONGEST_NAME = 64


def bundled_folder() -> Path:
    """The folder of the bundled models: ``PROTEINLM_PRETRAINED``, or ``tape/pretrained``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _PACKAGED)


def is_model_name(name: str) -> bool:
    """Whether a bundled model can have this name: lower-case letters and digits, with dots and hyphens between them."""
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def bundled_names() -> tuple[str, ...]:
    """Names of the bundled models, sorted; complete or not."""
    try:
        children = list(bundled_folder().iterdir())
    except OSError:  # no such folder, or the package is in a zip file
        return ()
    return tuple(sorted(child.name for child in children if is_model_name(child.name) and child.is_dir()))


def bundled_model(name: str) -> Path:
    """Directory of a bundled model.

    Raises:
        CheckpointError: a file is missing, so the installation is damaged. Names it.
    """
    directory = bundled_folder() / name
    missing = [file for file in _REQUIRED if not (directory / file).is_file()]
    if missing:
        raise CheckpointError(f"{directory}: has no {', '.join(missing)}; install the package again")
    return directory


def default_model(model_type: str) -> str:
    """Name of the model that commands use if none is given.

    Args:
        model_type: the model type of the command line; the bundled model is a transformer.

    Raises:
        ConfigError: there is no such model. Names what to give.
    """
    give = (
        "give one as from_pretrained: a model directory, a run directory, a published name such as bert-base, or a URL"
    )
    if model_type != DEFAULT_MODEL_TYPE:
        raise ConfigError(f"no model is given, and the default one is a {DEFAULT_MODEL_TYPE}, not {model_type}; {give}")
    if DEFAULT_MODEL not in bundled_names():
        raise ConfigError(
            f"no model is given, and the default one, {DEFAULT_MODEL}, is not installed in {bundled_folder()}; {give}"
        )
    return DEFAULT_MODEL

"""A fitted regression of contacts on attention maps, and its file ``contact_regression.json`` beside the model.

The file is {schema "proteinlm-contact-regression", version, model_sha256, weights, intercept, proteins, pairs, c}.
``model_sha256`` is that of the weights file of the model, whose maps the regression belongs to.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import CheckpointError, OutputError, quoted
from tape.io.checksums import read_sums, sha256_of, verify_sums, write_sums
from tape.io.json_files import read_json_object
from tape.io.run_layout import REGRESSION_NAME
from tape.io.writing import write_json

SCHEMA = "proteinlm-contact-regression"
SCHEMA_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContactRegression:
    """A fitted regression.

    Attributes:
        weights: (layers * heads) weight of each head's map, ordered by layer.
        intercept: b.
        proteins: ids of the proteins of the fit.
        pairs: number of residue pairs of the fit.
        c: weight of the loss relative to the penalty.
    """

    weights: np.ndarray
    intercept: float
    proteins: tuple[str, ...]
    pairs: int
    c: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits (...) of features (..., layers * heads)."""
        return np.asarray(features @ self.weights.astype(features.dtype) + self.intercept)


def write_regression(path: Path, regression: ContactRegression, model_sha256: str | None) -> None:
    """Write a regression.

    Args:
        path: the file.
        regression: the regression.
        model_sha256: SHA-256 of the weights file of its model; None if the model has none.
    """
    content = {**asdict(regression), "weights": regression.weights.tolist(), "proteins": list(regression.proteins)}
    write_json(path, {"schema": SCHEMA, "version": SCHEMA_VERSION, "model_sha256": model_sha256, **content})


def keep_with_model(directory: Path, regression: ContactRegression, model_sha256: str | None) -> Path | None:
    """Write a regression into the directory of its model, and its sum into ``SHA256SUMS``, if there is one.

    Returns:
        The file; None if the directory can't be written.
    """
    path = directory / REGRESSION_NAME
    try:
        write_regression(path, regression, model_sha256)
        if sums := read_sums(directory):
            write_sums(directory, {**sums, path.name: sha256_of(path)})
    except (OutputError, OSError) as error:
        logger.warning("%s", error)
        return None
    return path


def read_regression(path: Path, model_sha256: str | None, *, verify: bool = True) -> ContactRegression:
    """Read a regression of the model with this sum of its weights file.

    Args:
        path: the file.
        model_sha256: SHA-256 of the weights file; None if the model has none.
        verify: compare the file with ``SHA256SUMS`` beside it, if that lists it.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or of another model. Names it.
    """
    if verify:
        verify_sums(path.parent, [path.name])
    content = read_json_object(path)
    if content.get("schema") != SCHEMA or content.get("version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: not a regression of contacts of version {SCHEMA_VERSION}; fit it again with tape-contacts"
        )
    if model_sha256 is not None and content.get("model_sha256") != model_sha256:
        raise CheckpointError(
            f"{path}: was fitted to a model with other weights (SHA-256 {quoted(content.get('model_sha256'))}, not"
            f" {model_sha256}); fit it again with tape-contacts"
        )
    return ContactRegression(
        np.array(_numbers(path, content, "weights")),
        _numbers(path, {"intercept": [content.get("intercept")]}, "intercept")[0],
        tuple(map(str, content.get("proteins") or ())),
        int(_numbers(path, {"pairs": [content.get("pairs")]}, "pairs")[0]),
        _numbers(path, {"c": [content.get("c")]}, "c")[0],
    )


def _numbers(path: Path, content: dict[str, Any], name: str) -> list[float]:
    values = content.get(name)
    if not isinstance(values, list) or not values or not all(map(_is_number, values)):
        raise CheckpointError(f"{path}: damaged: {name} must be finite numbers, not {quoted(values)}")
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

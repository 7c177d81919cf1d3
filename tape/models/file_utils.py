"""Compatibility: tape-proteins 0.5's ``tape.models.file_utils``, over :mod:`tape.hub.cache`."""

from __future__ import annotations

import os
from pathlib import Path

from tape.errors import DataError
from tape.hub.cache import PUBLISHED_MODELS, cache_directory, is_remote, local_model

from .model_directory import BIN_NAME, SAFETENSORS_NAME

__all__ = ["cached_path", "get_cache"]

_CONFIG_OF = {model.config: name for name, model in PUBLISHED_MODELS.items()}
_NAME_OF = {model.weights: name for name, model in PUBLISHED_MODELS.items()}


def get_cache() -> str:
    """The directory of downloaded models."""
    return str(cache_directory())


def cached_path(
    url_or_filename: str | os.PathLike[str],
    force_download: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> str:
    """Local path of a file, which is downloaded with its model to the cache if it is remote.

    Args:
        url_or_filename: a path; or the address of a model's weights, or of the configuration of a published model.
        force_download: download it even if it is cached.
        cache_dir: replaces :func:`get_cache`.

    Raises:
        DataError: there is no such file, or it can't be downloaded.
    """
    if not is_remote(url_or_filename):
        if not Path(url_or_filename).exists():
            raise DataError(f"{os.fspath(url_or_filename)}: no such file")
        return os.fspath(url_or_filename)
    address = str(url_or_filename)
    directory = local_model(_CONFIG_OF.get(address) or _NAME_OF.get(address, address), cache_dir, force_download)
    if address in _CONFIG_OF:
        return str(directory / "config.json")
    weights = [directory / name for name in (SAFETENSORS_NAME, BIN_NAME) if (directory / name).is_file()]
    return str(weights[0])

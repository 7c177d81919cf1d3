#!/usr/bin/env python
"""Add a pretrained model to those that are installed with the package.

    python scripts/bundle_model.py MODEL_DIR NAME --card CARD.md --log metrics.jsonl

MODEL_DIR is a directory that converter/megatron-converter.py has written, with the head of masked language modeling.
Its weights are rounded to bfloat16 and may take 16 MiB. The model card's text must contain {sha256}, which is replaced
by the SHA-256 of the written weights, and may contain {parameters} and {bytes}. The log is the metrics.jsonl of the
pretraining run. The directory tape/pretrained/NAME appears complete and verified, or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import torch

from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_int
from tape.errors import CheckpointError, ConfigError, DataError, quoted, run_cli
from tape.evaluation.config import ModelSource
from tape.evaluation.load_model import load_finetuned_model
from tape.evaluation.results import model_hash
from tape.hub.bundled import CARD_NAME, DEFAULT_MODEL_TYPE, LOG_NAME, bundled_folder, is_model_name
from tape.hub.cache import PUBLISHED_MODELS
from tape.io.checksums import read_sums, sha256_of, write_sums
from tape.io.json_files import read_json_lines
from tape.io.timestamps import utc_now
from tape.io.writing import atomic_directory, write_text
from tape.models.model_directory import (
    PROVENANCE_NAME,
    SAFETENSORS_NAME,
    UNTRAINED,
    StateDict,
    directory_provenance,
    load_state_dict,
    save_model_directory,
)
from tape.registry import registry
from tape.version import __version__

LARGEST_WEIGHTS = 16 << 20  # bytes
LARGEST_LOG = 2 << 20
LOG_EVERY = 20  # training steps per line of the log
_SHA256 = "{sha256}"
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])/[^\s'\",\[\]]+")  # alone or in the text of a list; not in an address


def bundle_model(
    source: Path, name: str, card: Path, log: Path, overwrite: bool = False, log_every: int = LOG_EVERY
) -> Path:
    """Write the directory of a bundled model; returns it.

    Args:
        source: the model directory.
        name: name of the bundled model.
        card: text of the model card, in Markdown.
        log: metrics of the pretraining run, as JSON lines.
        overwrite: replace a bundled model of this name.
        log_every: training steps per line of the bundled log.

    Raises:
        ConfigError: the name can't be used, or the model exists.
        CheckpointError: the model can't be loaded, is not pretrained, has no provenance, or is too large.
        DataError: card or log can't be used.
    """
    if not is_model_name(name) or name in PUBLISHED_MODELS:
        raise ConfigError(
            f"{quoted(name)} can't be the name of a bundled model: it has lower-case letters and digits, with dots and"
            f" hyphens between them, and is none of {', '.join(PUBLISHED_MODELS)}"
        )
    text, lines = read_card(card), read_log(log, log_every)
    spec = registry.get_task_spec("masked_language_modeling")
    model: Any = load_finetuned_model(ModelSource(DEFAULT_MODEL_TYPE, str(source)), spec, source)
    origin = checked_provenance(source)
    state = {key: value.bfloat16() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    record = {"date": utc_now(), "code_version": __version__, "dtype": "bfloat16", "source_sha256": model_hash(source)}
    target = bundled_folder() / name
    with atomic_directory(target, overwrite=overwrite) as folder:
        save_model_directory(folder, state, model.config, provenance={**without_folders(origin), "bundled": record})
        weights = folder / SAFETENSORS_NAME
        check_size(weights, source)
        numbers = {_SHA256: sha256_of(weights), "{bytes}": f"{weights.stat().st_size:,}"}
        numbers["{parameters}"] = f"{sum(parameter.numel() for parameter in model.parameters()):,}"
        for placeholder, value in numbers.items():
            text = text.replace(placeholder, value)
        write_text(folder / CARD_NAME, text)
        write_text(folder / LOG_NAME, lines)
        write_sums(folder, {**read_sums(folder), **{file: sha256_of(folder / file) for file in (CARD_NAME, LOG_NAME)}})
        check_written(folder, state)
    return target


def read_card(path: Path) -> str:
    """The text of a model card.

    Raises:
        DataError: it can't be read, or has no place for the SHA-256.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if _SHA256 not in text:
        raise DataError(f"{path}: a model card shows the SHA-256 of its weights; write {_SHA256} in its place")
    return text


def read_log(path: Path, every: int) -> str:
    """The lines of a training log: of the training steps every one that is divisible by ``every``, and all others.

    Raises:
        DataError: it is not a file of JSON lines, is empty, or is too large.
    """
    records = read_json_lines(path, DataError)
    if not records:
        raise DataError(f"{path}: empty; give the metrics.jsonl of the pretraining run")
    kept = [record for record in records if record.get("kind") != "train" or record.get("iteration", 0) % every == 0]
    text = "".join(f"{json.dumps(record)}\n" for record in kept)
    if len(text) > LARGEST_LOG:
        raise DataError(
            f"{path}: {len(text):,} bytes, more than the {LARGEST_LOG:,} of a bundled log; give a larger --log-every"
        )
    return text


def checked_provenance(source: Path) -> dict[str, Any]:
    """The provenance of a trained model.

    Raises:
        CheckpointError: there is none, or the model was not trained.
    """
    origin = directory_provenance(source)
    if not origin:
        raise CheckpointError(
            f"{source}: has no {PROVENANCE_NAME}, so nothing shows where its weights come from; convert the checkpoint"
            " of the pretraining run with converter/megatron-converter.py"
        )
    if origin.get("kind") == UNTRAINED:
        raise CheckpointError(f"{source}: was saved before any training ({PROVENANCE_NAME}); give a pretrained model")
    return origin


def without_folders(value: Any) -> Any:
    """Provenance without the folders of the machine: of absolute paths, the last part remains.

    Those of a list of files, which are keys, become relative to the folder that has them all.
    """
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if isinstance(value, str):
        return _ABSOLUTE_PATH.sub(lambda match: os.path.basename(match[0].rstrip("/")), value)
    if not isinstance(value, dict):
        return value
    absolute = [key for key in value if os.path.isabs(key)]
    start = os.path.dirname(os.path.commonpath(absolute)) if absolute else ""
    return {os.path.relpath(key, start) if key in absolute else key: without_folders(value[key]) for key in value}


def check_size(weights: Path, source: Path) -> None:
    """Refuse weights that are too large for the package.

    Raises:
        CheckpointError: names the model and both sizes.
    """
    size = weights.stat().st_size
    if size > LARGEST_WEIGHTS:
        raise CheckpointError(
            f"{source}: {size:,} bytes in bfloat16, more than the {LARGEST_WEIGHTS:,} of a bundled model; pretrain a"
            " smaller one"
        )


def check_written(folder: Path, state: StateDict) -> None:
    """Compare the written weights with those in memory, and all files with their sums.

    Raises:
        CheckpointError: they differ, so disk or memory is failing.
    """
    found = load_state_dict(folder)
    if found.keys() != state.keys() or not all(torch.equal(found[key], value) for key, value in state.items()):
        raise CheckpointError(f"{folder / SAFETENSORS_NAME}: differs from what was written; check the disk")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="model directory with provenance.json")
    parser.add_argument("name", help="name for from_pretrained, such as proteinlm-mini")
    parser.add_argument("--card", type=Path, required=True, help="model card, with {sha256} in the place of the sum")
    parser.add_argument("--log", type=Path, required=True, help="metrics.jsonl of the pretraining run")
    parser.add_argument(
        "--log-every", type=positive_int, default=LOG_EVERY, help="training steps per line (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundled model of this name")
    options = parser.parse_args(arguments)
    target = bundle_model(
        options.model_dir, options.name, options.card, options.log, options.overwrite, options.log_every
    )
    print(f"wrote {target}: {(target / SAFETENSORS_NAME).stat().st_size:,} bytes of weights")


if __name__ == "__main__":
    sys.exit(run_cli(main))

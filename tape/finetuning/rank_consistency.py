"""What the ranks of a run must see alike before training: options, data, weights, and the directory to write to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tape.datasets.own_table import table_of
from tape.datasets.sources import file_of
from tape.io.sampled_digest import describe_file
from tape.io.text_files import data_file
from tape.models.model_directory import BIN_NAME, SAFETENSORS_NAME
from tape.registry import registry
from tape.runtime.distributed import DistributedContext, all_gather_lists
from tape.runtime.rank_consistency import Observation, check_observations, check_shared_directory

from .checkpoint import CHECKPOINT_NAME
from .config import FinetuneConfig
from .data import TrainingData
from .resume import run_to_resume

# Options that may differ between hosts; what they name is compared by its content instead.
_LOCAL_OPTIONS = frozenset(
    {"data", "data_dir", "labels", "output_dir", "log_dir"}
    | {"from_pretrained", "model_config_file", "local_rank", "num_workers"}
)
_COPY = "Copy the data to all hosts, or read them from a file system that all hosts share"


def check_rank_consistency(
    config: FinetuneConfig, data: TrainingData, source: Path | None, context: DistributedContext
) -> None:
    """Compare options, data and weights of all ranks, and try the directory; called by all ranks together.

    Args:
        config: the configuration of the run.
        data: its data.
        source: the model directory to start or resume from; None for new weights.
        context: the ranks.

    Raises:
        ConfigError: on all ranks, if they differ. Names the ranks, their hosts and what each of them sees.
    """
    if not context.is_distributed:
        return
    directory = Path(config.output.output_dir)
    option = "--output_dir"
    resumed = None if config.resume is None or source is None else run_to_resume(source)
    if resumed is not None:
        directory, option = resumed, "--from_pretrained"

    def gather(value: Any) -> list[Any]:
        return all_gather_lists([value], context)

    check_observations([*_options(config), *_data(config, data), *_table(config), *_weights(source)], gather)
    if context.is_main:
        directory.mkdir(parents=True, exist_ok=True)
    check_shared_directory(option, directory, context.rank, gather)


def _options(config: FinetuneConfig) -> Iterator[Observation]:
    for name, value in config.output.arguments.items():
        if name not in _LOCAL_OPTIONS:
            yield Observation(f"--{name}", str(value), "Start all ranks with the same options")


def _data(config: FinetuneConfig, data: TrainingData) -> Iterator[Observation]:
    table = table_of(registry.get_task_spec(config.task))
    source = f"--data_dir {config.data.data_dir}" if table is None else f"--data {table.path}"
    for split, dataset in (("train", data.train), ("valid", data.valid)):
        path = file_of(dataset)
        if path is not None:
            file = data_file(path)
            seen = describe_file(file) if file.exists() else f"files with SHA-256 {dataset.data.sha256}"
            yield Observation(f"{source}, {split}", seen, _COPY)


def _table(config: FinetuneConfig) -> Iterator[Observation]:
    """The labels of a user's own table, and its splits, which depend on the program that finds related proteins."""
    table = table_of(registry.get_task_spec(config.task))
    if table is not None and table.labels_file is not None:
        yield Observation(f"--labels {table.labels_file}", describe_file(table.labels_file), _COPY)
    if table is not None and table.division is not None:
        clusters = table.division.clusters
        method = "" if clusters is None else f" by {clusters.method}"
        seen = hashlib.sha256("\n".join(table.splits).encode()).hexdigest()[:16]
        remedy = "Install the same version of MMseqs2 on all hosts, or read the splits from a --split-column"
        yield Observation(f"splits of --data {table.path}", f"SHA-256 {seen}{method}", remedy)


def _weights(source: Path | None) -> Iterator[Observation]:
    if source is None:
        return
    names = (CHECKPOINT_NAME, BIN_NAME, SAFETENSORS_NAME)
    files = [source / name for name in names if (source / name).exists()] if source.is_dir() else [source]
    seen = ", ".join(f"{source.name}/{file.name} {describe_file(file)}" for file in files) or "no weights"
    yield Observation(
        f"--from_pretrained {source}", seen, "All hosts must see the same model; copy it, or share its disk"
    )

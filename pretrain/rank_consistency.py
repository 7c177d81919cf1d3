"""What the ranks of a run must see alike before anything is trained: options, corpora, checkpoint and ``--save``.

Each rank reads its own disk and command line. Ranks that read different corpora or resume from different checkpoints
would train on something that is neither, or wait for each other forever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrain.checkpointing import CheckpointConfig, describe_latest
from pretrain.config.arguments import PretrainConfig
from pretrain.data.corpus import describe_corpus_files
from pretrain.data.splits import DataConfig
from pretrain.parallel import ControlGroup
from tape.io.sampled_digest import describe_file
from tape.runtime.rank_consistency import Observation, check_observations, check_shared_directory

# Options that may have different values on different hosts, as long as all of them are given, or none.
_LOCAL_OPTIONS = frozenset(
    {
        "data_path",
        "train_data_path",
        "valid_data_path",
        "test_data_path",
        "vocab_file",
        "save",
        "load",
        "pretrained_checkpoint",
        "tensorboard_dir",
        "num_workers",
    }
)


def check_rank_consistency(config: PretrainConfig, control_group: ControlGroup) -> None:
    """Compare options, corpora, checkpoint and the model to start from, and try ``--save``; called by all ranks
    together.

    Args:
        config: the run's configuration.
        control_group: all ranks.

    Raises:
        ConfigError: on all ranks, if they differ. Names the ranks, their hosts and what each of them sees.
    """
    if control_group.world_size == 1:
        return
    checkpoint = config.checkpoint
    options, files = [*_options(config.given)], [*_corpora(config.data), *_checkpoint(checkpoint), *_pretrained(config)]
    check_observations(options, control_group.gather)  # first, because other options may name other files
    check_observations(files, control_group.gather)
    if checkpoint.save is not None:
        check_shared_directory("--save", Path(checkpoint.save), control_group.rank, control_group.gather)


def _options(given: Mapping[str, Any]) -> Iterator[Observation]:
    for name, value in given.items():
        if name in _LOCAL_OPTIONS:
            value = "not given" if value is None else "given"
        yield Observation(f"--{name.replace('_', '-')}", str(value), "Start all ranks with the same options")


def _corpora(data: DataConfig) -> Iterator[Observation]:
    remedy = "Copy the corpus to all hosts, or read it from a file system that all hosts share"
    blends = {"data-path": data.corpora, "train-data-path": data.train}
    blends |= {"valid-data-path": data.valid, "test-data-path": data.test}
    for option, blend in blends.items():
        for prefix in blend.prefixes if blend is not None else ():
            yield Observation(f"--{option} {prefix}", describe_corpus_files(prefix), remedy)
    if data.vocabulary_file is not None:
        path = Path(data.vocabulary_file)
        yield Observation(f"--vocab-file {path}", describe_file(path), "Copy the file to all hosts")


def _checkpoint(checkpoint: CheckpointConfig) -> Iterator[Observation]:
    if checkpoint.load is not None:
        remedy = "--load must be on a file system that all hosts share, or hold the same checkpoint on each of them"
        yield Observation(f"--load {checkpoint.load}", describe_latest(checkpoint.load), remedy)


def _pretrained(config: PretrainConfig) -> Iterator[Observation]:
    if config.pretrained is not None:
        remedy = "It must be on a file system that all hosts share, or be the same model on each of them"
        yield Observation(f"model to start from {config.pretrained.path}", config.pretrained.digest, remedy)

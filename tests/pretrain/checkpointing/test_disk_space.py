"""A full disk: detected before writing, or the partial checkpoint is removed; the latest good one is kept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.checkpoint_paths import POINTER_NAME
from pretrain.checkpointing import (
    RunDescription,
    RunState,
    find_checkpoint,
    load_full_checkpoint,
    save_checkpoint,
    saving,
)
from pretrain.checkpointing.disk_space import checkpoint_bytes, early_warning, format_bytes
from pretrain.parallel import ControlGroup, ParallelContext, ParallelDims
from pretrain.pretrain_tape import main
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.tokenizers import TAPETokenizer

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
CONFIG = ProteinBertConfig(
    hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256, max_position_embeddings=512
)
DESCRIPTION = RunDescription(CONFIG.to_dict(), {}, TAPETokenizer().tokens, TAPETokenizer().fingerprint)
ONE_CHECKPOINT = ["iter_0000010", "latest_checkpointed_iteration.txt"]


@pytest.fixture
def model() -> ProteinBertForMaskedLM:
    return build_model(CONFIG, InitConfig(), ALONE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB, where one checkpoint of the model fits and two don't."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def save(folder: Path, model: ProteinBertForMaskedLM, iteration: int) -> Path:
    return save_checkpoint(folder, model, {}, RunState(iteration), DESCRIPTION, ALONE)


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_estimated_size_is_close_to_the_size_on_disk(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    estimate = checkpoint_bytes({f"model.{name}": value for name, value in model.state_dict().items()}, ControlGroup())
    written = sum(path.stat().st_size for path in save(tmp_path, model, 10).iterdir())
    assert written <= estimate <= 1.6 * written


def test_too_little_disk_space_is_detected_before_writing(small_disk: Path, model: ProteinBertForMaskedLM) -> None:
    save(small_disk, model, 10)
    with pytest.raises(CheckpointError, match=r"iter_0000020: not saved: the disk is too full: .* needed, .* free"):
        save(small_disk, model, 20)
    assert content(small_disk) == ONE_CHECKPOINT
    load_full_checkpoint(small_disk)  # raises no error


def test_a_disk_that_fills_up_while_saving_keeps_the_last_checkpoint(
    small_disk: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program uses up the space after the check: a real ENOSPC while tensors are written."""
    save(small_disk, model, 10)
    monkeypatch.setattr(saving, "check_free_space", lambda *arguments: None)
    with pytest.raises(CheckpointError) as caught:
        save(small_disk, model, 20)
    text = str(caught.value)
    assert "iter_0000020: not saved" in text
    assert "kB are needed" in text
    assert "kB are free" in text
    assert "the checkpoint of iteration 10 is kept" in text
    assert content(small_disk) == ONE_CHECKPOINT
    assert load_full_checkpoint(small_disk).iteration == 10
    (small_disk / POINTER_NAME).write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="iter_0000020: not saved"):
        save(small_disk, model, 20)


def test_a_truncated_file_is_detected(
    tmp_path: Path, model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems lose the end of a file without an error."""
    save(tmp_path, model, 10)
    write = saving.dcp.save

    def loses_the_end(tensors: dict[str, Tensor], **options: Any) -> Any:
        index = write(tensors, **options)
        (file,) = tmp_path.glob(".iter_0000020.*.tmp/iter_0000020/__0_0.distcp")
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size - 100)
        return index

    monkeypatch.setattr(saving.dcp, "save", loses_the_end)
    with pytest.raises(CheckpointError, match=r"iter_0000020: not saved: __0_0.distcp has .* bytes where .* were"):
        save(tmp_path, model, 20)
    assert content(tmp_path) == ONE_CHECKPOINT


def test_a_full_disk_ends_the_run_with_one_line(
    tmp_path: Path, flags: Callable[..., list[str]], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the asynchronous writer ends the run with exit code 1; the previous checkpoint is kept."""
    enough = shutil.disk_usage(tmp_path)
    free = iter([10**9, 10**9])  # for the early warning and the first checkpoint

    def usage(path: Path) -> Any:
        return enough._replace(free=next(free, 1000))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    line = fails(main, *flags("--save", tmp_path, "--save-interval", 2, "--eval-iters", 0, train_iters=100))
    assert "iter_0000004: not saved: the disk is too full" in line
    assert "1.00 kB are free; the checkpoint of iteration 2 is kept" in line
    assert find_checkpoint(tmp_path) == tmp_path / "iter_0000002"


def test_too_little_space_for_all_kept_checkpoints_is_warned_about_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    missing = tmp_path / "not" / "there" / "yet"
    assert early_warning(missing, 1_000_000, 5) is None
    warning = early_warning(missing, 1_000_000, 6)
    assert warning is not None
    assert "5.00 MB free" in warning
    assert "6 checkpoints of 1.00 MB" in warning
    assert "--keep-last" in warning


@pytest.mark.parametrize(("number", "text"), [(999, "999 bytes"), (2_470_000_000, "2.47 GB"), (10**13, "10.00 TB")])
def test_bytes_are_formatted_with_decimal_prefixes(number: int, text: str) -> None:
    assert format_bytes(number) == text


def test_a_checkpoint_of_the_same_iteration_is_replaced(tmp_path: Path, model: ProteinBertForMaskedLM) -> None:
    save_checkpoint(tmp_path, model, {}, replace(RunState(), iteration=10), DESCRIPTION, ALONE)
    save_checkpoint(tmp_path, model, {}, replace(RunState(), iteration=10), DESCRIPTION, ALONE)
    assert content(tmp_path) == ONE_CHECKPOINT

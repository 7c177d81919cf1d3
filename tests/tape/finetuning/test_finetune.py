"""Finetuning as a whole: one run at a time in a directory, and what --force_save replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tape.errors import ConfigError
from tape.runtime.run_lock import lock_beside
from tests.support.run_locks import locked_by_another

Train = Callable[..., Path]


def test_a_second_run_of_the_same_name_is_refused(train: Train, tmp_path: Path) -> None:
    run = train("transformer", "stability", "--exp_name", "mine", "--num_train_epochs", 1)
    saved = sorted(run.rglob("*"))
    with locked_by_another(lock_beside(run)) as owner:
        with pytest.raises(ConfigError, match=f"mine: in use by process {owner} .*choose another --exp_name"):
            train("transformer", "stability", "--exp_name", "mine", "--num_train_epochs", 1, "--overwrite")
        with pytest.raises(ConfigError, match=f"mine: in use by process {owner} "):
            train("transformer", "stability", "--from_pretrained", run, "--resume_from_checkpoint")
    assert sorted(run.rglob("*")) == saved


def test_the_lock_is_gone_when_the_run_ends(train: Train) -> None:
    run = train("transformer", "stability", "--exp_name", "mine", "--num_train_epochs", 1)
    assert not lock_beside(run).exists()


def test_force_save_replaces_neither_trained_models_nor_other_files(train: Train, tmp_path: Path) -> None:
    run = train("onehot", "stability", "--num_train_epochs", 1, "--exp_name", "run")
    weights = (run / "0" / "pytorch_model.bin").read_bytes()
    with pytest.raises(ConfigError, match=rf"--force_save: {run / '0'} exists, .*--overwrite"):
        train("onehot", "stability", "--force_save", run)
    assert (run / "0" / "pytorch_model.bin").read_bytes() == weights
    saved = train("onehot", "stability", "--force_save", tmp_path / "untrained")
    assert train("onehot", "stability", "--force_save", tmp_path / "untrained") == saved
    (saved / "notes.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        with pytest.raises(ConfigError, match=r"--force_save: .* contains notes\.txt, .* would delete"):
            train("onehot", "stability", "--force_save", tmp_path / "untrained", *more)
    assert (saved / "notes.txt").read_text() == "mine"
    train("onehot", "stability", "--force_save", run, "--overwrite")
    assert (run / "0" / "pytorch_model.bin").read_bytes() != weights

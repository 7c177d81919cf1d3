"""Two ranks that see different disks: one error on rank 0 that names both, before anything is trained or written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tape.cli.train import finetune_config
from tape.datasets.own_table import register_table
from tape.errors import run_cli
from tape.finetuning import rank_consistency
from tape.finetuning.data import load_training_data
from tape.main import run_train
from tape.registry import registry
from tape.tables.table import table_for_training
from tests.support.fake_mmseqs import install_fake_mmseqs
from tests.support.known_identities import mutated, random_sequence
from tests.support.ranks import compute, free_port

Train = Callable[..., Path]

pytestmark = pytest.mark.distributed


def _train(rank: int, folder: str) -> tuple[int, str]:
    """Exit status and messages of the command on one rank."""
    setup = json.loads((Path(folder) / "setup.json").read_text(encoding="utf-8"))
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(setup["port"]), "PATH": setup["paths"][rank]}
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        try:
            code = run_cli(lambda: run_train(setup["words"][rank]))
        except SystemExit as exit_:
            code = int(str(exit_.code))
    return code, shown.getvalue()


@pytest.fixture
def refused(tmp_path: Path, small_data: Path, small_config: Path) -> Callable[..., str]:
    """`refused([words of rank 0], [words of rank 1])`: the error of rank 0; rank 1 must exit quietly."""

    def run(*of_ranks: list[object], task: Sequence[object] = ("stability",), paths: Sequence[str] = ()) -> str:
        common = ["transformer", *task, "--model_config_file", small_config, "--num_train_epochs", 1]
        common += ["--data_dir", small_data, "--output_dir", tmp_path / "out", "--log_dir", tmp_path / "logs"]
        words = [list(map(str, [*common, *own])) for own in of_ranks]
        folder = tmp_path / "setup"
        folder.mkdir()
        setup = {"port": free_port(), "words": words, "paths": [*paths] or [os.environ["PATH"]] * 2}
        (folder / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
        (code, shown), (other_code, other_shown) = compute(_train, folder)
        assert (code, other_code) == (1, 1), shown + other_shown
        assert "error:" not in other_shown
        errors = [line for line in shown.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, shown
        return errors[0]

    return run


def test_other_data_on_one_rank(refused: Callable[..., str], small_data: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(small_data / "stability", tmp_path / "other" / "stability"))
    shutil.copytree(other / "stability_train.lmdb", other / "stability_valid.lmdb", dirs_exist_ok=True)
    error = refused([], ["--data_dir", tmp_path / "other"])
    assert f"--data_dir {small_data}, valid: the ranks see different things: rank 0 on" in error
    assert not (tmp_path / "out").exists()


def test_data_that_one_rank_does_not_have(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    error = refused([], ["--data_dir", tmp_path / "other"])
    assert "error: rank 1 on" in error
    assert str(tmp_path / "other") in error


def test_splits_by_another_program_on_one_rank(refused: Callable[..., str], tmp_path: Path) -> None:
    """The stand-in for MMseqs2 compares without gaps, so it does not find the relatives with an insertion."""
    founders = [random_sequence(60, seed) for seed in range(20)]
    proteins = [*founders, *(f"M{founder}" for founder in founders), *(mutated(founder, 9) for founder in founders)]
    lines = [f"{protein},{number / 2}" for number, protein in enumerate(proteins)]
    (tmp_path / "my.csv").write_text("\n".join(["sequence,Tm", *lines]) + "\n", encoding="utf-8")
    words = ["--data", tmp_path / "my.csv", "--target", "Tm", "--split-by", "identity", "--split-identity", "0.6"]
    paths = [str(tmp_path / "empty"), str(install_fake_mmseqs(tmp_path / "bin").parent)]
    error = refused(words, words, task=(), paths=paths)
    assert f"splits of --data {tmp_path / 'my.csv'}: the ranks see different things: rank 0 on" in error
    assert "by connected components of shared 4-mers" in error
    assert error.endswith("Install the same version of MMseqs2 on all hosts, or read the splits from a --split-column")


def test_the_table_of_a_run_is_named_by_its_option(tmp_path: Path) -> None:
    lines = ["sequence,Tm,split", *(f"MK{'A' * n},{n}.5,{'train' if n % 2 else 'valid'}" for n in range(1, 13))]
    (tmp_path / "my.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["transformer", "--data", str(tmp_path / "my.csv"), "--target", "Tm", "--output_dir", str(tmp_path)]
    config = finetune_config(words)
    assert config.data.table is not None
    register_table(table_for_training(config.data.table))
    spec = registry.get_task_spec(config.task)
    data = load_training_data(config.data, spec.dataset_class, validate=True)
    subjects = [seen.subject for seen in rank_consistency._data(config, data)]
    assert subjects == [f"--data {tmp_path / 'my.csv'}, {split}" for split in ("train", "valid")]


def test_disks_of_their_own_to_write_to(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    error = refused(["--output_dir", tmp_path / "a"], ["--output_dir", tmp_path / "b"])
    assert f"--output_dir {tmp_path}" in error
    assert "does not see the file that rank" in error
    assert error.endswith("--output_dir must be on a file system that all hosts share")


def test_another_epoch_to_resume_on_one_rank(refused: Callable[..., str], train: Train, tmp_path: Path) -> None:
    run = train("transformer", "stability", "--exp_name", "mine", "--num_train_epochs", 2, "--output_dir", tmp_path)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / "latest.json").write_text((other / "latest.json").read_text().replace("1", "0"), encoding="utf-8")
    shutil.rmtree(other / "1")
    words: list[object] = ["--resume_from_checkpoint", "--num_train_epochs", 3, "--from_pretrained"]
    error = refused([*words, run], [*words, other])
    assert f"--from_pretrained {run / '1'}: the ranks see different things: rank 0 on" in error
    assert ": 0/checkpoint.bin" in error

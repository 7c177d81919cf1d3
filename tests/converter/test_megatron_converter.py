"""The converter's command line."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tape.models.model_directory import load_state_dict
from tests.converter.test_safe_load import Runs
from tests.support.megatron_writer import LETTERS, SPECIAL, Truth, expected_state, make_truth, only_rank, write_megatron

SCRIPT = "converter/megatron-converter.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.fixture(scope="module")
def mega(tmp_path_factory: pytest.TempPathFactory, truth: Truth) -> Path:
    return write_megatron(tmp_path_factory.mktemp("cli") / "mega", truth)


def test_the_documented_command_works_in_any_directory(
    tmp_path: Path, mega: Path, truth: Truth, run_script: Run
) -> None:
    shutil.copy(only_rank(mega), tmp_path / "model_optim_rng.pt")
    sizes = ("-hidden", 32, "-heads", 4, "-layers", 2)
    options = ("-src", "model_optim_rng.pt", "-out", "out/pytorch_model.bin", "-dtp", "torch.float16", *sizes)
    result = run_script(SCRIPT, *options, cwd=tmp_path, check=True)
    assert "largest difference" in result.stdout
    assert (
        "not stated, and assumed: initializer_range 0.02; the 31 tokens of ProteinLM's iupac_vocab.txt" in result.stdout
    )
    state = load_state_dict(tmp_path / "out" / "pytorch_model.bin")
    assert state.keys() == expected_state(truth).keys()
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert (tmp_path / "out" / "config.json").is_file()


def call(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: object) -> int:
    """Run the script in this process, which is faster than in another one; returns the exit status."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(root / SCRIPT), run_name="__main__")
    return int(stopped.value.code or 0)


def test_long_option_names_are_accepted(
    tmp_path: Path, mega: Path, repository_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("--src", mega, "--out", tmp_path / "out", "--dtype", "bf16", "--num_heads", 4, "--hidden_dim", 32)
    assert call(monkeypatch, repository_root, *names, "--num_layers", 2) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_malicious_file_is_a_one_line_error_and_does_not_run(
    tmp_path: Path, run_script: Run, assert_clean_error: Callable[..., None]
) -> None:
    evil = tmp_path / "evil.pt"
    torch.save({"model": Runs(exec, f"open({str(tmp_path / 'it_ran')!r}, 'w')")}, evil)
    assert_clean_error(run_script(SCRIPT, "-src", evil, "-out", tmp_path / "out"), "evil.pt", "refused", "exec")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-heads", 8), "error: -heads 8 contradicts"),
        (("-dtp", "torch.int8"), "error: -dtp 'torch.int8' is no known data type"),
        (("--vocab-file", "nowhere.txt"), "error: nowhere.txt: cannot be read as a vocabulary"),
        (("-dst", "nowhere.bin"), "error: nowhere.bin"),
        (
            ("--tensor-model-parallel-size", -1, "--pipeline-model-parallel-size", -1),
            "error: --tensor-model-parallel-size and --pipeline-model-parallel-size require --to megatron",
        ),
    ],
)
def test_user_errors_are_one_line(
    tmp_path: Path,
    mega: Path,
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    words: str,
) -> None:
    assert call(monkeypatch, repository_root, "-src", mega, "-out", tmp_path / "out", *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (("-out", "out"), "-out"),
        (("-dst", "b", "--to", "megatron"), "--to, -dst"),
        (("-dtp", "bf16", "--lm-head", "drop", "--overwrite"), "-dtp, --lm-head, --overwrite"),
    ],
)
def test_verify_only_refuses_output_options(
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    flags: str,
) -> None:
    assert call(monkeypatch, repository_root, "--verify-only", "a", "b", *options) == 2
    assert f"writes nothing; remove {flags}\n" in capsys.readouterr().err


def test_check_prints_the_state_of_every_file(
    tmp_path: Path,
    mega: Path,
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, repository_root, "-src", mega, "-out", tmp_path / "out") == 0
    capsys.readouterr()
    assert call(monkeypatch, repository_root, "--check", tmp_path / "out") == 0
    assert "result: model.safetensors: unchanged\n" in capsys.readouterr().out
    assert call(monkeypatch, repository_root, "--check", tmp_path / "out", "-out", "x") == 2
    assert "--check names the result and writes nothing; remove -out\n" in capsys.readouterr().err


def test_a_truncated_file_is_a_one_line_error(
    tmp_path: Path,
    mega: Path,
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(only_rank(mega).read_bytes()[:5000])
    assert call(monkeypatch, repository_root, "-src", cut, "-out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {cut}: truncated or damaged")


def test_a_vocabulary_file_is_accepted(
    tmp_path: Path, mega: Path, repository_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = tmp_path / "iupac_vocab.txt"
    vocabulary.write_text("\n".join(SPECIAL + LETTERS) + "\n")
    options = ("--vocab-file", vocabulary, "-out", tmp_path / "out")
    assert call(monkeypatch, repository_root, "-src", mega, *options) == 0


def test_assume_neutral_takes_names_and_options_of_megatron(
    tmp_path: Path, truth: Truth, repository_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_megatron(tmp_path / "mega", truth, squared_relu=True, apply_layernorm_1p=True)
    names = ("--assume-neutral", "squared_relu", "--assume-neutral=--apply-layernorm-1p")
    assert call(monkeypatch, repository_root, "-src", folder, "-out", tmp_path / "out", *names) == 0


def test_a_blank_line_of_the_vocabulary_file_shifts_no_ids(
    tmp_path: Path, mega: Path, truth: Truth, repository_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = tmp_path / "iupac_vocab.txt"
    vocabulary.write_text("\n".join(["" if token == "[unused1]" else token for token in SPECIAL + LETTERS]))
    options = ("--vocab-file", vocabulary, "-out", tmp_path / "out")
    assert call(monkeypatch, repository_root, "-src", mega, *options) == 0
    words = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(load_state_dict(tmp_path / "out")[words], expected_state(truth)[words])

"""The command ``proteinlm``: its sub-commands, their help, and shell completion."""

from __future__ import annotations

import builtins
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proteinlm.command import COMMANDS, completion, main, run_command
from tape.errors import ConfigError
from tape.version import __version__


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the words of the command line."""
    return lambda *given: monkeypatch.setattr(sys, "argv", ["proteinlm", *given])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_names_it_and_takes_less_than_a_second(name: str, repository_root: Path) -> None:
    command = [sys.executable, "-m", "proteinlm", name, "--help"]
    fastest = math.inf
    for _ in range(3):  # processor time also rises with other work on the machine
        before = _children_seconds()
        result = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
        assert result.stdout.startswith(f"usage: proteinlm {name} "), result.stderr
        fastest = min(fastest, _children_seconds() - before)
        if fastest < 1.0:
            break
    assert fastest < 1.0


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_knows_the_version(name: str, words: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words(name, "--version")
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().out) == (0, f"proteinlm {__version__}\n")


def test_a_misspelled_command_is_answered_with_the_closest(words: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words("prerpain")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "unknown command 'prerpain'; --help lists them; did you mean pretrain?" in capsys.readouterr().err


def test_without_a_command_the_commands_are_listed(words: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words()
    assert main() == 2
    listed = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in listed] == []


def test_a_misspelled_option_of_a_command_is_answered_with_the_closest(
    words: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words("download", "--targt", "x")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "proteinlm download: error: unrecognized arguments: --targt; did you mean --target?" in (
        capsys.readouterr().err
    )


def test_user_errors_are_one_line_and_exit_code_1(words: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words("download", "absent")
    assert main() == 1
    assert capsys.readouterr().err.startswith("error: unknown data set absent; choose from ")


def test_a_script_of_the_clone_keeps_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/prepare_data.py", "--help"])
    assert run_command("prepare") == 0
    assert capsys.readouterr().out.startswith("usage: prepare_data.py ")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_has_the_commands_and_their_options(shell: str) -> None:
    script = completion(shell)
    assert [name for name in COMMANDS if name not in script] == []
    assert "--tensor-model-parallel-size" in script
    assert "--from_pretrained" in script


def test_the_completion_script_of_bash_is_valid(tmp_path: Path) -> None:
    (tmp_path / "proteinlm").write_text(completion("bash"), encoding="utf-8")
    complete = "COMP_WORDS=(proteinlm emb); COMP_CWORD=1; _shtab_proteinlm; echo ${COMPREPLY[@]}"
    script = f"source {tmp_path / 'proteinlm'}; {complete}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("embed\n", "")


def test_completion_without_shtab_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "shtab":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install shtab"):
        completion("bash")

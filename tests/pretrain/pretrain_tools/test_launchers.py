"""Every launcher hands the same flags to the program that starts the processes, and the flags are understood."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.arguments import PretrainArguments, parse_arguments
from pretrain.pretrain_tape import main
from tape.errors import run_cli

TOOLS = Path(__file__).parents[3] / "pretrain" / "pretrain_tools"
MODELS = {"200m": (1024, 16, 16), "3b": (2560, 36, 40)}
FAKE = '#!/usr/bin/env bash\nprintf "%s\\n" "$(basename "$0")" "$@"\n'
# launcher -> what it needs in the environment, what it calls, words that it must give it
LAUNCHERS: dict[str, tuple[dict[str, str], str, list[str]]] = {
    "one_gpu.sh": ({}, "python", []),
    "one_node.sh": ({"GPUS": "4"}, "torchrun", ["--standalone", "--nproc-per-node", "4"]),
    "nodes_torchrun.sh": (
        {"NODES": "4", "NODE_RANK": "2", "MASTER_ADDR": "node0"},
        "torchrun",
        ["--nnodes", "4", "--node-rank", "2", "--nproc-per-node", "8", "--master-addr", "node0"],
    ),
    "nodes_sbatch.sh": ({"SLURM_SUBMIT_DIR": str(TOOLS.parents[1])}, "srun", ["--kill-on-bad-exit=1"]),
    "nodes_mpirun.sh": (
        {"HOSTFILE": "hosts", "PROCESSES": "32"},
        "mpirun",
        ["-np", "32", "--hostfile", "hosts", "MASTER_ADDR=node7", "MASTER_PORT=29500"],
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a list of hosts and, on its PATH, programs that print their arguments."""
    (tmp_path / "bin").mkdir()
    for name in ("torchrun", "srun", "mpirun", "python"):
        program = tmp_path / "bin" / name
        program.write_text(FAKE)
        program.chmod(0o755)
    (tmp_path / "hosts").write_text("# machines\nnode7 slots=8\nnode8 slots=8\n")
    return tmp_path


def start(folder: Path, launcher: str, *arguments: str, given: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **(LAUNCHERS[launcher][0] if given else {})}
    command = ["bash", str(TOOLS / launcher), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def split(output: str) -> tuple[list[str], list[str]]:
    """Words for the program that starts the processes, and those for pretraining."""
    words = output.splitlines()
    place = next(number for number, word in enumerate(words) if word.endswith("pretrain_tape.py"))
    assert Path(words[place]).resolve() == TOOLS.parent / "pretrain_tape.py"
    return words[:place], words[place + 1 :]


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("model", MODELS)
def test_launchers(folder: Path, launcher: str, model: str) -> None:
    _, program, words = LAUNCHERS[launcher]
    result = start(folder, launcher, model, "0.7 a 0.3 b", "save", "--lr", "2e-4")
    assert result.returncode == 0, result.stderr
    before, flags = split(result.stdout)
    assert before[0] == program
    assert [word for word in before if word in words] == words
    arguments = parse_arguments(flags, 8)
    assert sizes(arguments) == MODELS[model]
    assert arguments.data.corpora is not None
    assert arguments.data.corpora.prefixes == ("a", "b")
    assert arguments.checkpoint.save == arguments.checkpoint.load == "save"
    assert arguments.reporting.tensorboard_directory == "save/tensorboard"
    assert arguments.samples.seq_length == 2176
    assert arguments.schedule.rate(9901) > 1.9e-4  # flags given win over the file's
    assert arguments.notices == ()


def sizes(arguments: PretrainArguments) -> tuple[int, int, int]:
    model = arguments.model
    return model.hidden_size, model.num_hidden_layers, model.num_attention_heads


def test_all_launchers_give_the_same_flags(folder: Path) -> None:
    flags = [split(start(folder, launcher, "200m", "c", "s").stdout)[1] for launcher in LAUNCHERS]
    resolved = [[str(Path(word[1:]).resolve()) if word[0] == "@" else word for word in words] for words in flags]
    assert all(words == resolved[0] for words in resolved)


def test_a_file_of_ones_own(folder: Path) -> None:
    (folder / "mine.txt").write_text((TOOLS / "200m.txt").read_text() + "--num-layers 4\n")
    _, flags = split(start(folder, "one_gpu.sh", "mine.txt", "c", "s").stdout)
    (folder / "s").mkdir()
    flags = [word.replace("@mine.txt", f"@{folder / 'mine.txt'}") for word in flags]
    assert parse_arguments(flags).model.num_hidden_layers == 4


@pytest.mark.parametrize(
    ("launcher", "arguments", "words"),
    [
        ("one_gpu.sh", ["200m"], "usage:"),
        ("one_gpu.sh", ["7t", "c", "s"], "no model 7t"),
        ("nodes_torchrun.sh", ["200m", "c", "s"], "NODES"),
        ("nodes_mpirun.sh", ["200m", "c", "s"], "HOSTFILE"),
    ],
)
def test_mistakes(folder: Path, launcher: str, arguments: list[str], words: str) -> None:
    result = start(folder, launcher, *arguments, given=False)
    assert result.returncode != 0
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("model", MODELS)
def test_a_dry_run_understands_them(
    folder: Path,
    corpus_prefix: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    extra = ["--dry-run", "--world-size", "32", "--device-memory-gib", "80"]
    _, flags = split(start(folder, "one_gpu.sh", model, str(corpus_prefix), "s", *extra).stdout)
    monkeypatch.setattr(sys, "argv", ["pretrain_tape.py", *flags])
    assert run_cli(main) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "32 processes = " in said
    assert "it fits" in said
    count = int(said.split("parameters: ")[1].split(";")[0].replace(",", ""))
    assert round(count / 1e9, 2) == {"200m": 0.2, "3b": 2.84}[model]

"""Every launcher passes the same valid flags to the program that starts the processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.config.arguments import PretrainConfig, parse_arguments
from pretrain.pretrain_tape import main
from pretrain.tools.run_state import main as ask
from pretrain.tools.run_state import state_of
from tape.errors import run_cli
from tests.support.ranks import wait_for

TOOLS = Path(__file__).parents[3] / "pretrain" / "pretrain_tools"
MODELS = {"200m": (1024, 16, 16), "3b": (2560, 36, 40), "3b_sharded": (2560, 36, 40)}
FAKE = """#!/usr/bin/env bash
if [[ "$1" == *run_state.py ]]; then
    echo finished 5
else
    printf "%s\\n" "$(basename "$0")" "$@"
fi
"""
# launcher -> (environment variables that it needs, program that it calls, arguments that it must pass)
LAUNCHERS: dict[str, tuple[dict[str, str], str, list[str]]] = {
    "one_gpu.sh": ({}, "python", []),
    "one_node.sh": ({"GPUS": "4"}, "torchrun", ["--standalone", "--nproc-per-node", "4"]),
    "nodes_torchrun.sh": (
        {"NODES": "4", "NODE_RANK": "2", "MASTER_ADDR": "node0"},
        "torchrun",
        ["--nnodes", "4", "--node-rank", "2", "--nproc-per-node", "8", "--master-addr", "node0"],
    ),
    "nodes_sbatch.sh": (
        {"SLURM_SUBMIT_DIR": str(TOOLS.parents[1]), "SLURM_NTASKS": "8", "SLURM_JOB_ID": "77"},
        "srun",
        ["--kill-on-bad-exit=1"],
    ),
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
def test_each_launcher_starts_its_program_with_the_flags_of_the_model(folder: Path, launcher: str, model: str) -> None:
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
    assert arguments.logging.tensorboard_directory == "save/tensorboard"
    assert arguments.samples.seq_length == 2176
    assert arguments.schedule.rate(9901) > 1.9e-4  # flags given win over the file's
    assert arguments.notices == ()


def sizes(arguments: PretrainConfig) -> tuple[int, int, int]:
    model = arguments.model
    return model.hidden_size, model.num_hidden_layers, model.num_attention_heads


def test_all_launchers_give_the_same_flags(folder: Path) -> None:
    flags = [split(start(folder, launcher, "200m", "c", "s").stdout)[1] for launcher in LAUNCHERS]
    resolved = [[str(Path(word[1:]).resolve()) if word[0] == "@" else word for word in words] for words in flags]
    assert all(words == resolved[0] for words in resolved)


def test_a_custom_flag_file_is_used(folder: Path) -> None:
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
        ("nodes_sbatch.sh", ["200m", "c", "s"], "SLURM_NTASKS"),
    ],
)
def test_missing_arguments_and_variables_are_errors(
    folder: Path, launcher: str, arguments: list[str], words: str
) -> None:
    result = start(folder, launcher, *arguments, given=False)
    assert result.returncode != 0
    assert words in result.stderr
    assert result.stdout == ""


# processes, and GiB of the device of each
PLANS = {"200m": (32, 80), "3b": (32, 80), "3b_sharded": (8, 40)}


@pytest.mark.parametrize("model", MODELS)
def test_a_dry_run_accepts_the_flags(
    folder: Path,
    corpus_prefix: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    processes, memory = PLANS[model]
    extra = ["--dry-run", "--world-size", str(processes), "--device-memory-gib", str(memory)]
    _, flags = split(start(folder, "one_gpu.sh", model, str(corpus_prefix), "s", *extra).stdout)
    monkeypatch.setattr(sys, "argv", ["pretrain_tape.py", *flags])
    assert run_cli(main) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert f"{processes} processes = " in printed
    assert "it fits" in printed
    count = int(printed.split("parameters: ")[1].split(";")[0].replace(",", ""))
    assert round(count / 1e9, 2) == {"200m": 0.2, "3b": 2.84, "3b_sharded": 2.84}[model]


def test_the_sharded_model_differs_only_in_its_layout() -> None:
    one, other = (parse_arguments([f"@{TOOLS / name}.txt", "--data-path", "c"], 8) for name in ("3b", "3b_sharded"))
    layout = {"tensor_model_parallel_size", "data_parallel_sharding", "global_batch_size"}
    assert {name for name, value in one.given.items() if value != other.given[name]} <= layout
    assert (one.dims.tensor, one.dims.data, one.dims.fsdp_enabled) == (8, 1, False)
    assert (other.dims.tensor, other.dims.data, other.dims.fsdp_enabled) == (2, 4, True)


class Slurm:
    """A job of nodes_sbatch.sh whose run and scontrol are scripts that keep a record in ``calls``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **LAUNCHERS["nodes_sbatch.sh"][0]}
        (folder / "save").mkdir()
        self.program("scontrol", "exit ${REFUSED:-0}")

    def program(self, name: str, does: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f'#!/usr/bin/env bash\necho {name} "$@" >> calls\n{does}\n')
        path.chmod(0o755)

    def command(self, *flags: str) -> list[str]:
        return ["bash", str(TOOLS / "nodes_sbatch.sh"), "200m", "c", "save", *flags]

    def run(self, state: str, steps: str = "echo 12 > save/latest_checkpointed_iteration.txt", **more: str) -> str:
        """Run the job, whose run executes ``steps`` and is then in ``state``; returns exit code and standard error."""
        self.program("srun", steps)
        self.program("python", f"echo {state}")
        result = subprocess.run(
            self.command(), cwd=self.folder, env=self.environment | more, capture_output=True, text=True, check=False
        )
        return f"{result.returncode}: {result.stderr}"

    @property
    def requeued(self) -> bool:
        lines = self.calls.read_text(encoding="utf-8").splitlines() if self.calls.exists() else []
        calls = [line for line in lines if line.startswith("scontrol")]
        assert calls in ([], ["scontrol requeue 77"])
        return bool(calls)


@pytest.fixture
def slurm(folder: Path) -> Slurm:
    return Slurm(folder)


def test_an_unfinished_job_is_requeued(slurm: Slurm) -> None:
    assert slurm.run("unfinished 12") == "0: requeued to resume from iteration 12\n"
    assert slurm.requeued
    requested = next(line for line in slurm.calls.read_text().splitlines() if line.startswith("python"))
    assert "run_state.py 8 @" in requested  # the number of processes is that of the tasks
    assert requested.endswith("--data-path c --save save --load save --tensorboard-dir save/tensorboard")


@pytest.mark.parametrize(
    ("state", "steps", "message"),
    [
        ("finished 12", "true", "0: finished at iteration 12"),
        ("stopped 12", "true", "0: stopped at iteration 12"),
        ("unfinished 12", "exit 3", "3: "),  # a rank failed
        ("unfinished 5", "true", "1: error: this start made no progress beyond iteration 5"),
    ],
)
def test_other_jobs_are_not_requeued(slurm: Slurm, state: str, steps: str, message: str) -> None:
    (slurm.folder / "save" / "latest_checkpointed_iteration.txt").write_text("5")
    assert slurm.run(state, steps).startswith(message)
    assert not slurm.requeued


def test_a_refused_requeue_is_an_error(slurm: Slurm) -> None:
    message = slurm.run("unfinished 12", REFUSED="1")
    assert message.startswith("1: ")
    assert "submit the job again" in message


def test_a_cancelled_job_stays_cancelled(slurm: Slurm) -> None:
    """scancel sends SIGTERM to the run, which saves a checkpoint and exits with 0, and to the script."""
    slurm.program("srun", "touch begun; sleep 1; echo 12 > save/latest_checkpointed_iteration.txt")
    slurm.program("python", "echo unfinished 12")
    job = subprocess.Popen(slurm.command(), cwd=slurm.folder, env=slurm.environment)
    wait_for(lambda: (slurm.folder / "begun").exists(), "the run", 20)
    job.terminate()
    assert job.wait(20) != 0
    assert not slurm.requeued


def test_run_state_of_an_interrupted_and_a_finished_run(
    slurm: Slurm, pretrain_here: Callable[[list[str]], None], flags: Callable[..., list[str]]
) -> None:
    """The state after two of four iterations, from the script and from the function that it calls."""
    save = slurm.folder / "save"
    words = flags("--save", save, "--eval-iters", 0, train_iters=4)
    assert state_of(words, 1) == ("unfinished", 0)
    pretrain_here([*words, "--exit-interval", "2"])
    assert state_of(words, 1) == ("unfinished", 2)
    assert state_of([*words, "--exit-interval", "2"], 1) == ("stopped", 2)
    assert state_of([*words, "--train-iters", "2"], 1) == ("finished", 2)

    pointer = save / "latest_checkpointed_iteration.txt"
    content = pointer.read_text()
    pointer.unlink()  # the run would resume from the newest checkpoint
    assert state_of(words, 1) == ("unfinished", 2)
    pointer.write_text(content)

    (slurm.folder / "mine.txt").write_text("\n".join(words))
    save.rename(slurm.folder / "progress")
    slurm.program("srun", "mv progress save")
    (slurm.folder / "bin" / "python").unlink()
    command = ["bash", str(TOOLS / "nodes_sbatch.sh"), "mine.txt", words[words.index("--data-path") + 1], str(save)]
    environment = slurm.environment | {"PYTHON": sys.executable, "SLURM_NTASKS": "1"}
    result = subprocess.run(
        command, cwd=slurm.folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "requeued to resume from iteration 2\n")
    assert slurm.requeued


def test_a_postponed_evaluation_finishes_the_run(
    tmp_path: Path, pretrain_here: Callable[[list[str]], None], flags: Callable[..., list[str]]
) -> None:
    """The last evaluation was omitted because the time limit was reached; the resumed run does it."""
    words = flags("--save", tmp_path, "--load", tmp_path, train_iters=1)
    pretrain_here([*words, "--exit-duration-in-mins", "0.0001"])
    assert state_of(words, 1) == ("unfinished", 1)
    pretrain_here(words)
    assert state_of(words, 1) == ("finished", 1)


@pytest.mark.parametrize(("words", "message"), [(["x"], "number of processes"), (["1", "@3b"], "--save")])
def test_user_errors_of_run_state(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("@3b", f"@{TOOLS / '200m.txt'}") for word in words]
    words += ["--data-path", "c"] if len(words) > 1 else []
    monkeypatch.setattr(sys, "argv", ["run_state.py", *words])
    assert run_cli(ask) == 1
    assert message in capsys.readouterr().err

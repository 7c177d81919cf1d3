"""Names of files can have any characters and any length: each command's error is one printable line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.tools import preprocess_data, run_state
from proteinlm.data import download_data, prepare_data
from proteinlm.workflow import compare_losses, quickstart
from tape import commands

Call = Callable[..., str]
CONTROL = "\x1b]0;title\x07\udc80\n\u202e"  # changes a terminal's title and the direction of its text
NAMES = [CONTROL, "x" * 5000, "/".join([CONTROL, *["folder" * 20] * 50]), f"{'words of a name ' * 500}.csv"]
MODEL = ("transformer", "stability")
COMMANDS: dict[str, tuple[Callable[[], object], Callable[[str], tuple[object, ...]]]] = {
    "train": (commands.train_command, lambda name: (*MODEL, "--data_dir", name)),
    "train, output": (commands.train_command, lambda name: (*MODEL, "--data_dir", ".", "--output_dir", f"file/{name}")),
    "train, model": (commands.train_command, lambda name: (*MODEL, "--data_dir", ".", "--from_pretrained", name)),
    "evaluate": (commands.eval_command, lambda name: (*MODEL, name)),
    "embed": (commands.embed_command, lambda name: ("transformer", name, "out.npz", "model")),
    "embed, output": (commands.embed_command, lambda name: ("transformer", "x.fasta", f"file/{name}.npz", "model")),
    "score": (commands.score_command, lambda name: ("transformer", name, "o.csv", "model", "--wild_type", name)),
    "contacts": (commands.contacts_command, lambda name: ("transformer", name)),
    "leakage": (commands.leakage_command, lambda name: (name, "--against", "x.fasta", "--output", "o.tsv")),
    "leakage, output": (
        commands.leakage_command,
        lambda n: ("x.fasta", "--against", "x.fasta", "--output", f"file/{n}"),
    ),
    "report": (commands.report_command, lambda name: (name, "--out", "report")),
    "report, output": (commands.report_command, lambda name: ("results", "--out", f"file/{name}")),
    "compare": (commands.compare_command, lambda name: (name, name)),
    "preprocess": (preprocess_data.main, lambda name: ("--input", name, "--output-prefix", "out")),
    "preprocess, output": (
        preprocess_data.main,
        lambda name: ("--input", "x.fasta", "--output-prefix", f"file/{name}"),
    ),
    "prepare": (prepare_data.main, lambda name: (name, "out")),
    "download": (download_data.main, lambda name: ("--table", name)),
    "quickstart": (quickstart.main, lambda name: ("--out", f"file/{name}")),
    "compare losses": (compare_losses.main, lambda name: (name,)),
    "run state": (run_state.main, lambda name: ("1", "--load", name, "--save", name)),
}


@pytest.mark.parametrize("name", NAMES, ids=["control characters", "long", "long path", "words"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_is_one_printable_line_of_limited_length(
    command: str, name: str, fails: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("x.fasta").write_text(">p\nMKV\n", encoding="utf-8")
    main, words = COMMANDS[command]
    line = fails(main, *words(name))
    assert line.isprintable()
    assert len(line) <= len("error: ") + 4000

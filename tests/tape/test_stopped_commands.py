"""Commands that get a signal while they write: one line, no file is left, and the same command then succeeds.

The signal arrives when a file is flushed to disk, or when it gets its name.
benchmarks/fault_injection.py sends signals at random moments.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.tools import preprocess_data
from proteinlm.data import download_data, prepare_data
from tape.cli.contacts import run_contacts
from tape.cli.score import run_score
from tape.errors import run_cli
from tape.main import run_eval
from tape.registry import registry
from tape.report import command as report
from tests.support.local_site import Site
from tests.support.terminal_signals import LAST_LINES, terminal_handlers

FASTA = ">p\nMKVLAAGIRE\n>q\nACDEFGHIKL\n"
Action = Callable[[], Any]


@pytest.fixture(autouse=True)
def inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_config: Path, small_data: Path, site: Site
) -> Iterator[None]:
    """Models, data and a web server for all commands; the handlers of a process that a terminal has started."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("data").symlink_to(small_data)
    torch.manual_seed(5)
    for name, task in (("encoder", "masked_language_modeling"), ("finetuned", "stability")):
        registry.get_task_model("transformer", task, small_config).save_pretrained(Path(name))
    Path("source").mkdir()
    for name in ("x.fasta", "source/corpus_train.fasta"):
        Path(name).write_text(FASTA, encoding="utf-8")
    Path("x.csv").write_text("mutations\nM1A\nK2V\n", encoding="utf-8")
    Path("wild_type.fasta").write_text(FASTA.partition(">q")[0], encoding="utf-8")
    assert run_cli(lambda: run_eval(evaluation("results"))) == 0
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(small_data / "stability", "stability")
    site.files["stability.tar.gz"] = content.getvalue()
    entry = {"md5": None, "splits": {"train": 10, "valid": 5, "test": 5}, "name": "toy", "source": "a test"}
    Path("table.json").write_text(json.dumps({"base_url": site.url, "archives": {"stability": entry}}))
    with terminal_handlers():
        yield


def evaluation(folder: str) -> list[str]:
    words = ["transformer", "stability", "finetuned", "--split", "valid", "--no_cuda", "--output_dir", folder]
    return [*words, "--data_dir", "data"]


def contacts() -> Path:
    words = ["transformer", "encoder", "--data_dir", "data", "--fit_proteins", "3", "--exp_name", "contacts"]
    return run_contacts([*words, "--no_cuda", "--output_dir", "out", "--split", "valid"])


COMMANDS: dict[str, Action] = {
    "predict": lambda: run_eval([*evaluation("out"), "--predict", "x.fasta", "--predict_out", "out/x.csv"]),
    "evaluate": lambda: run_eval(evaluation("out")),
    "score": lambda: run_score(
        ["transformer", "x.csv", "out/scores.csv", "encoder", "--wild_type", "wild_type.fasta", "--no_cuda"]
    ),
    "contacts": contacts,
    "report": lambda: report.main(["results", "--out", "out/report"]),
    "prepare": lambda: prepare_data.main(["source", "out/data", "--tasks", "corpus"]),
    "preprocess": lambda: preprocess_data.main(["--input", "x.fasta", "--output-prefix", "out/x"]),
    "download": lambda: download_data.main(["stability", "--target", "out/data", "--table", "table.json"]),
}
KEPT = {"data/downloads/stability.tar.gz.part", "data/downloads/stability.tar.gz"}  # a download resumes


def written() -> dict[str, str]:
    """The files of a command, with the SHA-256 of their contents but for the date of an evaluation."""
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    contents = {path: re.sub(rb'"date": "[^"]*"', b"", path.read_bytes()) for path in files}
    return {path.relative_to("out").as_posix(): hashlib.sha256(text).hexdigest() for path, text in contents.items()}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_while_writing_leaves_nothing(
    name: str, call: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(COMMANDS[name]) == 0
    expected = written()
    Path("out").rename("undisturbed")
    Path("out").mkdir()
    number = list(LAST_LINES)[list(COMMANDS).index(name) % len(LAST_LINES)]

    def stop(*_: object) -> None:
        signal.raise_signal(number)
        time.sleep(5)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(f"os.{call}", stop)
        assert run_cli(COMMANDS[name]) == 128 + number
    assert capsys.readouterr().err.splitlines()[-1] == LAST_LINES[number]
    assert set(written()) <= KEPT
    assert run_cli(COMMANDS[name]) == 0
    assert written() == expected

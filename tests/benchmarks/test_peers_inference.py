"""The comparison of evaluation, embedding and start-up with other tools: our side at a toy size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import peers_inference
from benchmarks.peers.inference import TEST, WARM_UP
from benchmarks.peers.protocol import WorkerError
from benchmarks.peers.rounds import OURS
from benchmarks.peers.startup import Command, Stopwatch, our_commands, tape_proteins_commands
from tape.tasks import TASKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("part", ["embed", "evaluate"])
def test_our_side_is_measured_and_absent_peers_are_skipped_with_the_reason(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, absent = tmp_path / "result.json", tmp_path / "absent"
    words = ["--quick", "--no-install", "--peers-env", str(absent), "--threads", "1", "--json", str(result)]
    peers_inference.main([*words, "--parts", part, "--peers", "tape-proteins", "--proteins", "9"])
    assert "| tape-proteins | batches of 8, fp32 | skipped: " in capsys.readouterr().out
    written = json.loads(result.read_text())
    ours, peer = written["results"][0]["measurements"]
    assert (ours["tool"], len(ours["replies"]), ours["error"]) == (OURS, 2, None)
    assert ours["replies"][0]["tokens"] == written["data"]["residues"] + 2 * 9
    assert peer["error"].startswith(f"{absent} has no environment")


def test_memory_is_measured_by_the_number_of_proteins(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    words = ["--quick", "--parts", "memory", "--threads", "1", "--proteins", "16", "--batch-sizes", "2"]
    peers_inference.main([*words, "--json", str(result)])
    embed, evaluate = json.loads(result.read_text())["results"]
    assert [one["proteins"] for one in embed["measurements"]] == [4, 8, 16]
    assert all(0 < one["memory_bytes"] < 1e9 for one in [*embed["measurements"], *evaluate["measurements"]])


def test_a_part_has_the_lengths_of_all_proteins(tmp_path: Path) -> None:
    fasta, result = tmp_path / "proteins.fasta", tmp_path / "result.json"
    fasta.write_text("".join(f">{n}\n{'ACDE' * n}\n" for n in range(1, 101)))
    words = [str(fasta), "--quick", "--parts", "embed", "--peers", "--proteins", "100", "--batch-sizes", "2"]
    peers_inference.main([*words, "--measured", "20", "--threads", "1", "--json", str(result)])
    written = json.loads(result.read_text())["data"]
    assert written["proteins"] == 20
    assert written["residues"] / 20 == pytest.approx(4 * 50.5, rel=0.02)


def test_splits_have_names_that_tape_proteins_reads() -> None:
    assert {WARM_UP, TEST} <= set(TASKS[peers_inference.TASK].splits)  # the published ones


def test_starts_are_timed_in_turns_and_compared_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sleep = {seconds: Command([sys.executable, "-c", f"__import__('time').sleep({seconds})"]) for seconds in (0.1, 0.6)}
    monkeypatch.setattr(peers_inference, "our_commands", lambda words: {"a": sleep[0.1], "b": sleep[0.1]})
    monkeypatch.setattr(peers_inference, "tape_proteins_commands", lambda python, words: {"b": sleep[0.6]})
    monkeypatch.setattr(peers_inference, "peers_python", lambda folder, install: Path(sys.executable))
    result = tmp_path / "result.json"
    peers_inference.main(["--quick", "--parts", "start", "--proteins", "8", "--json", str(result)])
    a, b, peer = json.loads(result.read_text())["results"][0]["measurements"]
    assert [(one["tool"], one["start"]) for one in (a, b, peer)] == [(OURS, "a"), (OURS, "b"), ("tape-proteins", "b")]
    assert peer["ratio"]["median"] > 1.2
    assert min(peer["seconds"]) > 0.6
    assert "| b | tape-proteins | 0." in capsys.readouterr().out


def test_a_start_ends_at_its_line_or_is_an_error() -> None:
    program = "print('loading', flush=True); print('step 1/4', flush=True); __import__('time').sleep(60)"
    watch = Stopwatch(
        {
            "line": Command([sys.executable, "-c", program], until=r"step 1/"),
            "no line": Command([sys.executable, "-c", "print('done')"], until=r"step 1/"),
            "fails": Command([sys.executable, "-c", "raise SystemExit('no data')"]),
        },
        threads=1,
    )
    assert watch.ask({"command": "line"})["seconds"] < 30
    with pytest.raises(WorkerError, match="status 0: done"):
        watch.ask({"command": "no line"})
    with pytest.raises(WorkerError, match="status 1: no data"):
        watch.ask({"command": "fails"})


def test_every_console_script_is_timed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    commands = our_commands(["ARGUMENT"])
    assert {f"{name} --help" for name in scripts} <= set(commands)
    assert set(tape_proteins_commands(Path("python"), ["ARGUMENT"])) <= set(commands)
    for command in commands.values():
        assert all((ROOT / word).is_file() for word in command.words if word.endswith(".py"))

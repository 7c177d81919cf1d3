"""Walkthroughs with own data: their inputs, commands, counts and scores, with stand-ins for the programs."""

from __future__ import annotations

import csv
import json
import lzma
import os
import shlex
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import own_data
from benchmarks.own_data import Environment, main
from benchmarks.own_tables import KINDS
from benchmarks.walkthroughs import programs
from benchmarks.walkthroughs.commands import count_lines, environment_of, run
from benchmarks.walkthroughs.inputs import COLUMN, NEW, SIZES, STRUCTURES, TABLE, Sizes, write_inputs, write_structure
from benchmarks.walkthroughs.programs import FILES, OURS, VALUES, WALKTHROUGHS, Walkthrough
from benchmarks.walkthroughs.scores import Score, of_biotrainer, of_embeddings, of_evaluation
from proteinlm.data.structure_files import Chain, write_chains
from tape.cli.contacts import create_contacts_parser
from tape.cli.embed import create_embed_parser
from tape.cli.evaluate import create_eval_parser
from tape.cli.train import create_train_parser
from tape.errors import ConfigError, ProteinLMError
from tape.io.structures import read_structures

SMALL = Sizes(
    table={"train": 6, "valid": 2, "test": 3, NEW: 2}, chains={"train": 2, "valid": 1, "test": 1, NEW: 1}, embedded=3
)
LENGTH = 60
RESIDUES = list("ACDEFGHIKLMNPQRSTVWY")


def a_chain(name: str, rng: np.random.Generator) -> Chain:
    """A chain whose C-alpha atoms are a random walk in steps of 3.8 Angstrom, rounded as in the files."""
    steps = rng.normal(size=(LENGTH, 3))
    points = np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    return Chain(name, "".join(rng.choice(RESIDUES, LENGTH)), "C" * LENGTH, points.round(1).astype(np.float32))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """13 proteins with a stability score, and 3 chains of each split."""
    rng = np.random.default_rng(0)
    records = [{"primary": "".join(rng.choice(RESIDUES, 30)), "stability_score": [n / 10]} for n in range(13)]
    folder = tmp_path / "data"
    (folder / "tape").mkdir(parents=True)
    text = "".join(json.dumps(one) + "\n" for one in records)
    (folder / KINDS[0].source).write_bytes(lzma.compress(text.encode()))
    for split in ("train", "valid", "test"):
        chains = [a_chain(f"{number}{split[:3].upper()}_A_1", rng) for number in range(3)]
        write_chains(folder / "structures" / f"pdb_{split}.tsv.xz", chains)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_inputs_are_a_table_sequences_and_structures(data: Path, tmp_path: Path) -> None:
    write_inputs(data, tmp_path / "in", SMALL, seed=1)
    rows = rows_of(tmp_path / "in" / TABLE)
    assert list(rows[0]) == ["id", "sequence", COLUMN, "split"]
    assert Counter(row["split"] for row in rows) == {"train": 6, "valid": 2, "test": 3}
    assert len({row["sequence"] for row in rows}) == len({row["id"] for row in rows}) == 11
    source = {
        record["primary"]: record["stability_score"][0]
        for record in map(json.loads, lzma.decompress((data / KINDS[0].source).read_bytes()).splitlines())
    }
    for row in rows:  # RT ln 10 at 25 degrees Celsius is 5.708 kJ/mol
        assert float(row[COLUMN]) == pytest.approx(5.708 * source[row["sequence"]], abs=0.01)
    names = [path.name for path in sorted((tmp_path / "in" / STRUCTURES).rglob("*.*"))]
    assert len(names) == 4
    assert {Path(name).suffix for name in names} == {".pdb", ".cif"}
    write_inputs(data, tmp_path / "again", SMALL, seed=1)
    for path in (tmp_path / "in").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "in")).read_bytes()


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_structure_files_have_sequence_and_positions_of_the_chain(suffix: str, tmp_path: Path) -> None:
    chain = a_chain("1ABC_A_1", np.random.default_rng(3))
    write_structure(tmp_path / f"1abc{suffix}", chain)
    (found,) = read_structures([tmp_path / f"1abc{suffix}"])
    assert (found.identifier, found.primary) == ("1abc-A", chain.primary)
    np.testing.assert_allclose(found.tertiary, chain.tertiary, atol=1e-3)


def test_a_source_that_is_too_small_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stability_train.jsonl.xz: 13 proteins to draw 430 from"):
        write_inputs(data, tmp_path / "in", Sizes({**SIZES.table, "train": 260}, SMALL.chains, 3), seed=1)
    with pytest.raises(ConfigError, match=r"pdb_train.tsv.xz: 3 chains of .* residues to draw 9 from"):
        write_inputs(data, tmp_path / "in", Sizes(SMALL.table, SMALL.chains, 9), seed=1)


PARSERS = {
    "tape-train": create_train_parser,
    "tape-eval": create_eval_parser,
    "tape-embed": create_embed_parser,
    "tape-contacts": create_contacts_parser,
}


def test_commands_of_this_project_are_accepted_by_their_parsers() -> None:
    found = [shlex.split(command) for one in WALKTHROUGHS for command in one.commands]
    ours = [words for words in found if words[0] in PARSERS]
    assert {words[0] for words in ours} == set(PARSERS)
    for program, *words in ours:
        PARSERS[program]().parse_args(words)


def test_scripts_of_a_walkthrough_are_there_and_run_by_it() -> None:
    used = {name for one in WALKTHROUGHS for name in one.files}
    assert used == {path.name for path in FILES.iterdir() if path.suffix in (".py", ".yml")}
    for one in WALKTHROUGHS:
        for name in one.files:
            assert any(name in shlex.split(command) for command in one.commands), name


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("x.yml", "# a comment\n\na: 1\n  # another\nb: 2  # counts\n", 2),
        ("x.py", '"""Docstring\n\nof three lines."""\n\n# comment\nx = [\n    1,\n]\n', 3),
        ("x.py", 'def f():\n    """One."""\n    return """a\n\nb"""\n', 4),
        ("x.py", "", 0),
    ],
)
def test_lines_are_neither_empty_nor_comments(name: str, text: str, lines: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert count_lines(tmp_path / name) == lines


def test_a_command_runs_in_its_environment_and_is_measured(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "$1 in $PWD with $VIRTUAL_ENV and $OMP_NUM_THREADS"\n', encoding="utf-8")
    tool.chmod(stat.S_IRWXU)
    found = run("tool 'two words'", tmp_path, environment_of(tmp_path, 3), tmp_path / "log")
    assert found.output == f"two words in {tmp_path} with {tmp_path} and 3\n"
    assert 0 < found.seconds < 60
    tool.write_text("#!/bin/sh\necho first\necho last >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tool x failed: last \(log: .*log\)"):
        run("tool x", tmp_path, environment_of(tmp_path, 1), tmp_path / "log")
    assert (tmp_path / "log").read_text(encoding="utf-8").count("$ tool") == 2
    tool.write_text("#!/bin/sh\nsleep 100 &\nwait\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="tool did not end within 0.5 s"):
        run("tool", tmp_path, environment_of(tmp_path, 1), tmp_path / "log", limit=0.5)
    with pytest.raises(ConfigError, match="there is no program no-such-tool"):
        run("no-such-tool", tmp_path, environment_of(tmp_path, 1), tmp_path / "log")


def test_commands_of_the_environment_come_first_and_those_of_the_benchmark_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "active"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "active" / "bin"), os.defpath]))
    places = {name: environment(tmp_path / name, tool=f"echo {name}").folder for name in ("active", "one", "other")}
    environment(tmp_path / "third", second="echo second")

    def output(command: str, *folders: Path) -> str:
        return run(command, tmp_path, environment_of(folders[0], 1, folders[1:]), tmp_path / "log").output

    assert output("tool", places["one"], places["other"]) == "one\n"
    assert output("second", places["one"], tmp_path / "third") == "second\n"
    with pytest.raises(ConfigError, match="there is no program tool"):
        output("tool", tmp_path / "third")


def test_scores_are_read_from_the_files_of_each_program(tmp_path: Path) -> None:
    metric = {"name": "spearmanr", "value": 0.5, "interval": [0.25, 0.75]}
    (tmp_path / "run" / "3").mkdir(parents=True)
    (tmp_path / "run" / "best.json").write_text('{"directory": "3"}')
    text = json.dumps({"metrics": [{"name": "loss", "value": 1, "interval": None}, metric], "proteins": 7})
    (tmp_path / "run" / "3" / "eval_test.json").write_text(text)
    assert of_evaluation(tmp_path / "run", "spearmanr", "rho") == Score("rho", 0.5, (0.25, 0.75), 7)
    pytest.importorskip("yaml")
    rho = "spearmans-corr-coeff"
    bounds = f"{{results: [{{name: {rho}, mean: 0.41, lower: 0.1, upper: 0.6}}], sample_size: 7}}"
    (tmp_path / "out.yml").write_text(
        f"test_results:\n  test:\n    metrics: {{{rho}: 0.4}}\n    bootstrapping: {bounds}\n"
    )
    assert of_biotrainer(tmp_path / "out.yml") == Score("rho", 0.4, (0.1, 0.6), 7)
    assert str(Score("rho", 0.4, (0.1, 0.6))) == "rho 0.400 [0.10, 0.60]"


def test_embeddings_are_compared_with_the_states_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    expected = {"a": np.zeros(4), "b": np.ones(4)}
    monkeypatch.setattr("benchmarks.walkthroughs.scores._expected", lambda fasta: expected)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["hash"] = np.zeros(4)
        file["hash"].attrs["original_id"] = "a"
        file["b"] = np.full(4, 1.5)
    assert of_embeddings(tmp_path, "x.h5").value == 0.5
    expected["b"] = np.ones(3)
    assert of_embeddings(tmp_path, "*.h5").value == float("inf")
    expected["c"] = np.ones(4)
    with pytest.raises(ConfigError, match="2 embeddings, not those of the 3 proteins"):
        of_embeddings(tmp_path, "x.h5")
    with pytest.raises(ConfigError, match="0 files y.h5; expected one"):
        of_embeddings(tmp_path, "y.h5")


@pytest.mark.slow
def test_the_bundled_model_is_exported_for_transformers(tmp_path: Path) -> None:
    own_data.export_model(tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text(encoding="utf-8"))["model_type"] == "megatron-bert"
    assert (tmp_path / "hf" / "tokenizer.json").is_file()


def environment(folder: Path, **tools: str) -> Environment:
    """An environment whose programs are shell scripts."""
    (folder / "bin").mkdir(parents=True)
    for name, text in tools.items():
        tool = folder / "bin" / name
        tool.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        tool.chmod(stat.S_IRWXU)
    return Environment(folder, 12.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two walkthroughs: ``learn`` is in the environment of this project, ``other`` in that of biotrainer."""
    environments = {
        OURS: environment(tmp_path / "ours", learn="echo 0.25 > score"),
        programs.BIOTRAINER: environment(tmp_path / "theirs", other="learn; echo broken; exit $FAILS"),
    }
    monkeypatch.setattr(own_data, "install", lambda program, options: environments[program])
    monkeypatch.setattr(own_data, "SIZES", SMALL)
    monkeypatch.setattr(own_data, "export_model", Path.mkdir)

    def score(folder: Path) -> Score:
        return Score("rho", float((folder / "score").read_text()), (0.1, 0.4))

    walkthroughs = tuple(
        Walkthrough(program, VALUES, (command,), score, ("score",), files, "remark")
        for program, command, files in (
            (programs.BIOTRAINER, "other", ("biotrainer_values.yml",)),
            (OURS, "learn x", ()),
        )
    )
    monkeypatch.setattr(own_data, "WALKTHROUGHS", walkthroughs)


@pytest.mark.usefixtures("small")
def test_all_walkthroughs_are_reported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "FAILS", "0")
    words = [str(data), "--output-dir", str(tmp_path / "out"), "--programs", OURS, programs.BIOTRAINER]
    main([*words, "--json", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    assert "# values with biotrainer\n# biotrainer_values.yml: 10 lines\n$ other\n" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| values |")]
    assert [row.split(" | ")[1:4] for row in rows] == [[OURS, "1", "0"], ["biotrainer", "1", "10"]]
    assert all("rho 0.250 [0.10, 0.40] | remark |" in row for row in rows)
    assert "| contacts | biotrainer |  |  |  |  | has no task of contacts |" in shown
    record: dict[str, Any] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record["installation_seconds"] == {OURS: 12.0, "biotrainer": 12.0}
    assert record["results"][0]["score"] == {"name": "rho", "value": 0.25, "interval": [0.1, 0.4], "items": None}
    assert (tmp_path / "out" / "biotrainer" / "values.log").read_text(encoding="utf-8") == "$ other\nbroken\n"
    with pytest.raises(ConfigError, match="not empty; give a new directory"):
        main(words)


@pytest.mark.usefixtures("small")
def test_a_program_that_fails_is_reported_and_ours_fails_the_command(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "FAILS", "4")
    words = [str(data), "--jobs", VALUES, "--programs", OURS, programs.BIOTRAINER]
    main([*words, "--output-dir", str(tmp_path / "out")])
    assert "| values | biotrainer |  |  |  |  | other failed: broken (log: " in capsys.readouterr().out
    (tmp_path / "ours" / "bin" / "learn").write_text("#!/bin/sh\ntrue\n", encoding="utf-8")
    with pytest.raises(ProteinLMError, match="values with proteinlm: the commands have not written score"):
        main([*words, "--output-dir", str(tmp_path / "again")])


def test_programs_that_are_not_installed_are_reported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_data, "SIZES", SMALL)
    monkeypatch.setattr(own_data, "export_model", Path.mkdir)
    words = [str(data), "--no-install", "--environments", str(tmp_path / "absent"), "--output-dir"]
    with pytest.raises(ProteinLMError, match="no environment with this project; omit --no-install"):
        main([*words, str(tmp_path / "out"), "--jobs", VALUES])

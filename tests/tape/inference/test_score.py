"""``tape-score``: tables of variants and of all single substitutions."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape.cli.score import run_score
from tape.commands import score_command
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.registry import registry
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def model() -> ProteinBertForMaskedLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    made = ProteinBertForMaskedLM(ProteinBertConfig(**sizes, max_position_embeddings=20, initializer_range=0.5))
    return made.eval()


@pytest.fixture
def directory(model: ProteinBertForMaskedLM, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def log_p(model: ProteinBertForMaskedLM, sequence: str, masked: tuple[int, ...] = ()) -> np.ndarray:
    """log p (L, V), computed for one protein at a time."""
    ids = torch.from_numpy(TOKENIZER.encode(sequence))
    for position in masked:
        ids[position + 1] = TOKENIZER.vocab["<mask>"]
    with torch.no_grad():
        return torch.log_softmax(model(ids[None])[0][0].double(), -1).numpy()[1:-1]


def rows_of(path: Path) -> Rows:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def scored(directory: Path, table: str, *options: object, wild_type: str = "MKVLAGWY") -> Rows:
    (directory.parent / "v.csv").write_text(table)
    words = ["transformer", directory.parent / "v.csv", directory.parent / "out.csv", directory, "--no_cuda"]
    return rows_of(run_score([*map(str, words), "--wild_type", wild_type, *map(str, options)]))


def test_the_command_keeps_the_table_and_adds_the_scores(
    model: ProteinBertForMaskedLM, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p.fasta").write_text(">one\nMKVLAGWY\n>two\nACDEFG\n")
    table = "protein,mutant,measured\none,M10A,0.5\ntwo,C11A,-1\none,G15P,2\n"
    options = ["--first_residue", 10, "--compare", "measured"]
    rows = scored(directory, table, *options, wild_type=str(tmp_path / "p.fasta"))
    scores = ["wild_type_marginal", "masked_marginal"]
    assert list(rows[0]) == ["protein", "mutant", "measured", *scores, "method", "not_scored"]
    assert [row["mutant"] for row in rows] == ["M10A", "C11A", "G15P"]
    expected = log_p(model, "ACDEFG", (1,))[1]
    difference = expected[TOKENIZER.vocab["A"]] - expected[TOKENIZER.vocab["C"]]
    assert float(rows[1]["masked_marginal"]) == pytest.approx(difference, rel=1e-4)
    assert (rows[1]["method"], rows[1]["not_scored"]) == (" ".join(scores), "")
    assert "Spearman's rho of masked_marginal and measured" in caplog.text
    assert "left out" not in caplog.text


def test_variants_that_cannot_be_scored_keep_their_rows(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = "mutant\nM1A\nK1A\np.Lys2_Leu4del\nA5*\n"
    rows = scored(directory, table, "--methods", "masked_marginal")
    assert [row["method"] for row in rows] == ["masked_marginal", "", "pseudo_likelihood_ratio", ""]
    filled = [(row["masked_marginal"] != "", row["pseudo_likelihood_ratio"] != "") for row in rows]
    assert filled == [(True, False), (False, False), (False, True), (False, False)]
    assert [row["not_scored"][:26] for row in rows] == [
        "",
        "K1A: residue 1 is M, not K",
        "",
        "A5*: can't be scored, beca",
    ]
    assert "2 of 4 variants are not scored" in caplog.text


def test_a_requested_pseudo_likelihood_also_scores_insertions_and_deletions(directory: Path) -> None:
    rows = scored(directory, "mutant\nM1A\np.Lys2del\n", "--methods", "pseudo_perplexity")
    assert "pseudo_likelihood_ratio" not in rows[0]
    assert all(float(row["pseudo_perplexity"]) > 1 for row in rows)


def test_a_comparison_leaves_out_missing_values_and_counts_them(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = "mutant,measured\nM1A,0.5\nK2R,NA\nV3L,\nL4A,2\nK1A,9\nA5G,-1\n"
    whole = scored(directory, "mutant,measured\nM1A,0.5\nL4A,2\nA5G,-1\n", "--compare", "measured")
    expected = [record.message for record in caplog.records if "rho of masked" in record.message]
    caplog.clear()
    scored(directory, table, "--compare", "measured")
    found = [record.message for record in caplog.records if "rho of masked" in record.message]
    assert found == [f"{expected[0]} (3 of 6 left out: no measured or no score)"]
    assert len(whole) == 3


def test_all_single_substitutions_are_scored(model: ProteinBertForMaskedLM, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_text(">one\nMKVX\n>two\nACD*\n")
    words = ["transformer", "--all-singles", tmp_path / "p.fasta", tmp_path / "out.csv", directory, "--no_cuda"]
    rows = rows_of(run_score([*map(str, words), "--first_residue", "5"]))
    assert list(rows[0]) == ["protein", "mutation", "masked_marginal"]
    assert len(rows) == 3 * 19 + 20 + 3 * 19  # X is none of the 20 amino acids
    assert len({(row["protein"], row["mutation"]) for row in rows}) == len(rows)
    found = {(row["protein"], row["mutation"]): float(row["masked_marginal"]) for row in rows}
    row = log_p(model, "MKVX", (1,))[1]
    difference = row[TOKENIZER.vocab["W"]] - row[TOKENIZER.vocab["K"]]
    assert found["one", "K6W"] == pytest.approx(difference, rel=1e-4)


def test_all_single_substitutions_equal_those_of_a_table(directory: Path, tmp_path: Path) -> None:
    """The table is the first command's output, so its columns are those that the second reads."""
    methods = ["--methods", "wild_type_marginal", "masked_marginal"]
    words = ["transformer", "MKVLAGWYACDEFGHIKLMNPQRST", tmp_path / "all.csv", directory, "--no_cuda", *methods]
    everything = rows_of(run_score([*map(str, words), "--all-singles"]))
    table = "\n".join(["mutation", *(row["mutation"] for row in everything)])
    rows = scored(directory, table, *methods, wild_type="MKVLAGWYACDEFGHIKLMNPQRST")
    for one, other in zip(everything, rows, strict=True):
        for method in methods[1:]:
            assert float(one[method]) == pytest.approx(float(other[method]), abs=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_heat_map_is_drawn_for_each_protein(directory: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "p.fasta").write_text(">a/b\nMKVL\n>two\nACDX\n")
    words = ["transformer", tmp_path / "p.fasta", tmp_path / "out.csv", directory, "--all-singles", "--no_cuda"]
    run_score([*map(str, words), "--plot", str(tmp_path / f"heat{suffix}")])
    assert {path.name for path in tmp_path.glob("heat*")} == {f"heat_000000_a_b{suffix}", f"heat_000001_two{suffix}"}


def test_errors_are_one_line(directory: Path, tmp_path: Path, fails: Callable[..., str], small_config: Path) -> None:
    (tmp_path / "v.csv").write_text("mutant,measured\nM1A,high\nK1A,1\n")
    out = tmp_path / "out.csv"
    words: list[Any] = ["transformer", tmp_path / "v.csv", out, directory, "--wild_type", "MKVL", "--no_cuda"]
    strict = fails(score_command, *words, "--strict")
    assert "v.csv, record 2, protein 'wild type': K1A: residue 1 is M, not K" in strict
    assert "column 'measured' does not hold numbers" in fails(score_command, *words, "--compare", "measured")
    assert "no column 'x'; it has mutant, measured" in fails(score_command, *words, "--compare", "x")
    assert "give the protein of the variants as --wild_type" in fails(score_command, *words[:4])
    assert "--plot draws all single substitutions" in fails(score_command, *words, "--plot", "x.png")
    headless = registry.get_task_model("transformer", "stability", small_config)
    headless.save_pretrained(tmp_path / "stability")
    words[3] = tmp_path / "stability"
    assert "has no trained weights of the masked_language_modeling model" in fails(score_command, *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--wild_type", "MKVL"], "--wild_type belongs to a table of variants"),
        (["--strict"], "--strict belongs to a table of variants"),
        (["--methods", "mutant_marginal"], "--methods mutant_marginal: needs a forward pass or more"),
        (["--plot", "x.pdf"], "--plot x.pdf: give a name that ends in .png or .svg"),
        (["--length", "error"], "protein 'wild type': 30 residues, but the model has positions for 18"),
    ],
)
def test_options_of_a_table_do_not_go_with_all_single_substitutions(
    directory: Path, tmp_path: Path, fails: Callable[..., str], options: list[str], message: str
) -> None:
    words = ["transformer", "MKVLAGWYAC" * 3, tmp_path / "out.csv", directory, "--all-singles", "--no_cuda"]
    assert message in fails(score_command, *words, *options)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("words", [["v.csv", "v.csv", "--wild_type", "MKV"], ["v.csv", "v.csv", "--all-singles"]])
def test_the_input_is_not_replaced(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text("sequence,mutant\nMKV,K2A\n")
    with pytest.raises(ConfigError, match=r"output file v\.csv: is also the input"):
        run_score(["transformer", *words])
    assert Path("v.csv").read_text() == "sequence,mutant\nMKV,K2A\n"


@pytest.mark.parametrize("name", ["out.xlsx", "out.tsv", "out.csv.gz"])
def test_an_output_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    words = ["transformer", "MKV", str(tmp_path / name), "--all-singles"]
    with pytest.raises(
        ConfigError, match=rf"{re.escape(name)}: scores are written as CSV; give a name that ends in \.csv"
    ):
        run_score(words)
    assert not list(tmp_path.iterdir())

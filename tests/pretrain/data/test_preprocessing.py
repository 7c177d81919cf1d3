"""Limits on characters that are no residue, and on X, in a corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain.data.corpus import open_corpus
from pretrain.data.preprocessing import preprocess
from tape.errors import DataError
from tape.tokenizers import TAPETokenizer


def texts(prefix: Path) -> list[str]:
    corpus = open_corpus(prefix, TAPETokenizer())
    return [TAPETokenizer().decode(corpus.residues(i)) for i in range(len(corpus))]


@pytest.mark.parametrize("letter", ["J", "j", "?", "1", "#"])
def test_too_many_unknown_residues_are_refused(tmp_path: Path, letter: str) -> None:
    """Letters that are used for unknown residues."""
    (tmp_path / "x.fasta").write_text(">a\nMKV\n>b\n" + "ACD" * 100 + letter + "\n")
    with pytest.raises(DataError, match=r"x\.fasta: 1 of 304 residues \(0\.33%\).*--max-unknown-fraction") as raised:
        preprocess([tmp_path / "x.fasta"], tmp_path / "out")
    assert f"x.fasta, record 2 (b): '{letter}' at position 301" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.fasta"]
    assert preprocess([tmp_path / "x.fasta"], tmp_path / "out", max_unknown_fraction=0.01).tokens == 304
    assert texts(tmp_path / "out_text_document")[1].endswith("ACDX")


def test_x_in_the_input_is_no_unknown_character(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.17 % of X, as in a small file of Swiss-Prot."""
    (tmp_path / "x.fasta").write_text(">a\n" + "ACD" * 600 + "XXx\n")
    assert preprocess([tmp_path / "x.fasta"], tmp_path / "out").tokens == 1803
    assert capsys.readouterr().err == ""


def test_many_x_in_a_small_corpus_cause_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.fasta").write_text(">a\nMKV\n>b\nMKVXX\n")
    assert preprocess([tmp_path / "x.fasta"], tmp_path / "out").tokens == 8
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'x.fasta'}: 2 of 8 residues (25.00%) are X, more than 1.00%; the first is in"
        f" {tmp_path / 'x.fasta'}, record 2 (b): 'X' at position 4; --max-x-fraction makes a limit of it\n"
    )


def test_many_x_in_a_large_corpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.data.preprocessing.SMALL_CORPUS", 8)
    (tmp_path / "x.fasta").write_text(">a\nMKV\n>b\nMKVXX\n")
    with pytest.raises(DataError, match=r"2 of 8 residues \(25\.00%\) are X.*increase --max-x-fraction"):
        preprocess([tmp_path / "x.fasta"], tmp_path / "out")
    assert preprocess([tmp_path / "x.fasta"], tmp_path / "out", max_x_fraction=0.25).tokens == 8


def test_the_limit_of_unknown_residues_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("XXXAXXX\n???\n")
    with pytest.raises(DataError, match=r"3 of 10 residues \(30\.00%\) are unknown"):
        preprocess([tmp_path / "x.txt"], tmp_path / "out")
    assert texts(preprocess([tmp_path / "x.txt"], tmp_path / "out", max_unknown_fraction=1).prefix)[1] == "XXX"

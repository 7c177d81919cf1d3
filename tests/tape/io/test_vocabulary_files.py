"""Vocabulary files: ids are line numbers, also after blank lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.vocabulary_files import read_vocabulary_file


def write(folder: Path, text: str) -> Path:
    path = folder / "vocabulary.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_blank_line_keeps_the_ids_of_the_lines_after_it(tmp_path: Path) -> None:
    tokens = read_vocabulary_file(write(tmp_path, "[PAD]\n\nA\n\nC \n\n")).tokens
    assert tokens == ("[PAD]", "", "A", "", "C")


@pytest.mark.parametrize(("text", "words"), [("A\nC\nA\n", "'A'.* occur twice"), ("\n\n", "it is empty")])
def test_malformed_vocabulary_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=rf"vocabulary\.txt.*{words}"):
        read_vocabulary_file(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read"):
        read_vocabulary_file(tmp_path / "nowhere.txt")


def test_a_file_of_many_lines_is_refused_or_read_at_once(tmp_path: Path) -> None:
    """Neither blank lines nor many tokens take quadratic time."""
    (tmp_path / "blank.txt").write_text("A\n" + "\n" * 300_000)
    assert read_vocabulary_file(tmp_path / "blank.txt").tokens == ("A",)
    (tmp_path / "many.txt").write_text("\n".join(map(str, range(200_000))))
    assert len(read_vocabulary_file(tmp_path / "many.txt").tokens) == 200_000

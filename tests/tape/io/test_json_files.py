"""Files of JSON objects, and the errors for other files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tape.errors import CheckpointError, DataError
from tape.io.json_files import parse_json, read_json_lines, read_json_object

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("error", [CheckpointError, DataError])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.json: No such file or directory"),
        (b"\xff\xfe", r"x\.json, line 1: not UTF-8 text, so not JSON"),
        (b'{"a": ', r"x\.json: not valid JSON \(Expecting value"),
        (b"[" * 200_000, r"x\.json: not valid JSON \(maximum recursion"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', r"x\.json: not valid JSON \(the key 'c' is repeated"),
        (rb'{"a": ["\ud800"]}', r"x\.json: not valid JSON \(a text has half of a surrogate pair, '\\ud800'"),
        (b"[1]", r"x\.json: holds a list, not a JSON object"),
    ],
)
def test_files_without_a_json_object_are_named(
    tmp_path: Path, error: type[Exception], content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(error, match=message):
        read_json_object(tmp_path / "x.json", error)


def test_json_objects_and_json_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1]}\n')
    assert read_json_object(tmp_path / "x.json") == {"a": [1]}
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{"b": "2\u2028"}\n', encoding="utf-8")
    assert read_json_lines(tmp_path / "x.jsonl") == [{"a": 1}, {"b": "2\u2028"}]  # U+2028 does not end a line in JSON


def test_whole_surrogate_pairs_are_read_and_halves_refused() -> None:
    assert parse_json(r'"\ud83e\uddec \u00e9"') == "\U0001f9ec \xe9"
    assert parse_json('"\U0001f9ec"'.encode()) == "\U0001f9ec"
    for half in (r'"\uDFFF"', rb'{"\udfff": 1}', b'"\xed\xa0\x80"'):
        with pytest.raises(ValueError, match="has half of a surrogate pair"):
            parse_json(half)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n3\n')
    with pytest.raises(DataError, match=r"x\.jsonl, line 3: holds a int, not a JSON object"):
        read_json_lines(tmp_path / "x.jsonl", DataError)


def test_a_byte_that_is_no_text_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"b": "\xe9"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl, line 2: not UTF-8 text"):
        read_json_lines(tmp_path / "x.jsonl", DataError)


@pytest.mark.parametrize("value", ["null", "1.5", "true", '"3"', "[[1]]", "100000000000000000000"])
def test_a_required_integer_of_another_type_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"epoch": 1}}\n\n{{"epoch": {value}}}\n')
    with pytest.raises(DataError, match=r"x\.jsonl, line 3: epoch must be an integer, not "):
        read_json_lines(tmp_path / "x.jsonl", DataError, integers=["epoch"])


# What these parse is a default of the project, or was written by this process or another of its run.
OTHER_PARSERS = {
    "pretrain/checkpointing/format.py",
    "pretrain/monitor/heartbeats.py",
    "pretrain/resume.py",
    "tape/configs.py",
    "tape/io/json_files.py",
    "tape/report/published.py",
    "tape/runtime/run_lock.py",
}


def test_json_is_parsed_by_the_function_that_refuses_repeated_keys() -> None:
    files = (
        file
        for folder in ("tape", "pretrain", "converter", "proteinlm", "scripts")
        for file in (ROOT / folder).rglob("*.py")
    )
    found = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if re.search(r"json\.loads?\b|JSONDecoder\(\)", file.read_text(encoding="utf-8"))
    }
    assert found == OTHER_PARSERS

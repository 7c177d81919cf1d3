"""The hashes in ``conversion.json`` are verified when a result is read again, and on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.convert import ConversionRequest, convert, verify_only
from converter.formats.record import check_files
from converter.options import SourceOptions
from tape.errors import CheckpointError
from tests.converter.test_round_trips import silent, tape_model
from tests.support.megatron_writer import edit

RANK = "release/mp_rank_01/model_optim_rng.pt"


@pytest.fixture
def mega(tmp_path: Path) -> Path:
    source = tape_model(tmp_path / "tape")
    convert(ConversionRequest(source, tmp_path / "mega", "megatron", tensor_parallel=2), silent)
    return tmp_path / "mega"


def change_a_weight(file: Path) -> None:
    def change(content: dict) -> None:
        content["model"]["language_model"]["transformer"]["layers.0.mlp.dense_h_to_4h.bias"][0] += 1

    edit(file, change)


@pytest.mark.parametrize("place", [".", "release"])
def test_a_changed_file_of_a_result_is_refused(tmp_path: Path, mega: Path, place: str) -> None:
    change_a_weight(mega / RANK)
    with pytest.raises(CheckpointError, match=rf"{RANK}: damaged, or changed since .* conversion\.json"):
        convert(ConversionRequest(mega / place, tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()
    convert(ConversionRequest(mega / place, tmp_path / "out", options=SourceOptions(verify=False)), silent)


def test_verify_only_reads_the_records_of_both(tmp_path: Path, mega: Path) -> None:
    change_a_weight(mega / RANK)
    with pytest.raises(CheckpointError, match="damaged, or changed"):
        verify_only(mega, tmp_path / "tape", SourceOptions())
    with pytest.raises(CheckpointError, match="damaged, or changed"):
        verify_only(tmp_path / "tape", mega, SourceOptions())


def test_a_changed_single_file_is_refused(tmp_path: Path, mega: Path) -> None:
    convert(ConversionRequest(mega, tmp_path / "m.pt", "megatron"), silent)
    convert(ConversionRequest(mega, tmp_path / "other.pt", "megatron"), silent)
    change_a_weight(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"m\.pt: damaged, .* according to m\.conversion\.json"):
        convert(ConversionRequest(tmp_path / "m.pt", tmp_path / "out"), silent)
    convert(ConversionRequest(tmp_path / "other.pt", tmp_path / "out"), silent)


def test_a_missing_file_is_named(tmp_path: Path, mega: Path) -> None:
    (mega / RANK).unlink()
    with pytest.raises(CheckpointError, match=rf"{RANK}: missing, according to conversion\.json"):
        convert(ConversionRequest(mega, tmp_path / "out"), silent)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ('{"format": "proteinlm-conversion", "version": 9}', "has version 9"),
        ('{"format": "proteinlm-conversion", "version": 2, "result": {}}', "has no SHA-256 of the files of its result"),
        (
            '{"format": "proteinlm-conversion", "version": 2, "result": {"files": {"../tape": {"sha256": ""}}}}',
            "which is not in its directory",
        ),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, mega: Path, content: str, words: str) -> None:
    (mega / "conversion.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"mega/conversion\.json: .*{words}"):
        convert(ConversionRequest(mega, tmp_path / "out"), silent)


def test_check_lists_every_file(tmp_path: Path, mega: Path) -> None:
    lines = list(check_files(mega))
    assert f"result: {RANK}: unchanged" in lines
    assert f"source: {tmp_path / 'tape' / 'config.json'}: unchanged" in lines
    assert len(lines) == 5
    (tmp_path / "tape" / "config.json").unlink()
    assert f"source: {tmp_path / 'tape' / 'config.json'}: missing" in list(check_files(mega))


def test_check_reports_changes_of_result_and_source(tmp_path: Path, mega: Path) -> None:
    change_a_weight(mega / RANK)
    config = tmp_path / "tape" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=7))
    lines: list[str] = []
    with pytest.raises(CheckpointError, match=rf"2 of the files that it lists differ: {RANK}, .*config\.json"):
        lines.extend(check_files(mega))
    assert sum(line.endswith("damaged, or changed since the conversion") for line in lines) == 2


def test_check_needs_a_record(tmp_path: Path, mega: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tape: has no conversion\.json"):
        list(check_files(tmp_path / "tape"))

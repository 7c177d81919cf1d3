"""Resumed downloads: bytes of two versions of a file are never joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tape.errors import DataError
from tape.hub.downloads import FileKind, Retries, download
from tape.hub.partial_downloads import PartialDownload, RemoteVersion
from tests.support.local_site import Site

ANY = FileKind("a file", lambda block: True)
OLD, NEW = b"old " * 500, b"new " * 500
LONG_AGO, LATER = "Mon, 02 Jan 2023 10:00:00 GMT", "Tue, 03 Jan 2023 10:00:00 GMT"


def interrupt(site: Site, path: Path, content: bytes = OLD, size: int = 700) -> None:
    """Download the first ``size`` bytes of ``content``."""
    site.files["file"] = content
    site.breaks_after["file"] = [size]
    with pytest.raises(DataError, match=f"was interrupted after {size} of"):
        download(f"{site.url}/file", path, ANY, Retries(1))
    assert PartialDownload(path).size == size


def resume(site: Site, path: Path) -> list[str | None]:
    """Download the rest; returns the ranges that were requested."""
    site.ranges.clear()
    download(f"{site.url}/file", path, ANY, Retries(1))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return site.ranges


@pytest.mark.parametrize(
    "validators",
    [{"ETag": '"1"'}, {"Last-Modified": LONG_AGO}, {"ETag": 'W/"1"', "Last-Modified": LONG_AGO}],
    ids=["ETag", "Last-Modified", "weak ETag and Last-Modified"],
)
def test_an_unchanged_file_is_resumed(site: Site, tmp_path: Path, validators: dict[str, str]) -> None:
    site.headers["file"] = validators
    interrupt(site, tmp_path / "x")
    assert resume(site, tmp_path / "x") == ["bytes=700-"]
    assert (tmp_path / "x").read_bytes() == OLD


@pytest.mark.parametrize("content", [NEW, NEW + b"more", NEW[:500]], ids=["equal size", "longer", "shorter"])
@pytest.mark.parametrize("conditions", [True, False], ids=["If-Range", "If-Range ignored"])
@pytest.mark.parametrize(
    ("before", "after"),
    [({"ETag": '"1"'}, {"ETag": '"2"'}), ({"Last-Modified": LONG_AGO}, {"Last-Modified": LATER})],
    ids=["ETag", "Last-Modified"],
)
def test_a_changed_file_is_downloaded_from_its_beginning(
    site: Site, tmp_path: Path, before: dict[str, str], after: dict[str, str], conditions: bool, content: bytes
) -> None:
    site.headers["file"], site.ignores_conditions = before, not conditions
    interrupt(site, tmp_path / "x")
    site.headers["file"], site.files["file"] = after, content
    resume(site, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize(
    "validators", [{}, {"ETag": 'W/"1"'}, {"Last-Modified": "yesterday"}], ids=["none", "weak ETag", "not a date"]
)
def test_without_a_strong_validator_the_download_starts_again(
    site: Site, tmp_path: Path, validators: dict[str, str]
) -> None:
    site.headers["file"] = validators
    interrupt(site, tmp_path / "x")
    site.files["file"] = NEW
    assert resume(site, tmp_path / "x") == [None]
    assert (tmp_path / "x").read_bytes() == NEW


def test_a_range_without_its_validator_is_not_appended(site: Site, tmp_path: Path) -> None:
    site.headers["file"] = {"ETag": '"1"'}
    interrupt(site, tmp_path / "x")
    site.headers["file"], site.ignores_conditions = {}, True
    site.files["file"] = NEW
    assert resume(site, tmp_path / "x") == ["bytes=700-", None]
    assert (tmp_path / "x").read_bytes() == NEW


def test_a_server_without_ranges_sends_the_entire_file(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path / "x")
    site.ignores_ranges = True
    assert resume(site, tmp_path / "x") == ["bytes=700-"]
    assert (tmp_path / "x").read_bytes() == OLD


def test_a_part_from_another_address_is_not_continued(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path / "x")
    site.files["other"] = NEW
    site.headers["other"] = site.validators("file")
    download(f"{site.url}/other", tmp_path / "x", ANY, Retries(1))
    assert (tmp_path / "x").read_bytes() == NEW


@pytest.mark.parametrize("record", [None, "{", "[]", '{"url": 3}', '{"url": "x", "etag": 1}', '{"a": "b"}'])
def test_a_part_without_a_valid_record_is_not_continued(site: Site, tmp_path: Path, record: str | None) -> None:
    """Earlier versions of the project wrote no record."""
    interrupt(site, tmp_path / "x")
    partial = PartialDownload(tmp_path / "x")
    partial.record.unlink()
    if record is not None:
        partial.record.write_text(record)
    assert resume(site, tmp_path / "x") == [None]


def test_a_complete_part_needs_no_request(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path / "x")
    partial = PartialDownload(tmp_path / "x")
    partial.part.write_bytes(OLD)
    assert resume(site, tmp_path / "x") == []
    assert (tmp_path / "x").read_bytes() == OLD


def test_a_connection_that_breaks_before_the_first_byte_is_retried(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tape.hub.downloads.time.sleep", lambda seconds: None)
    site.files["file"], site.breaks_after["file"] = OLD, [0]
    download(f"{site.url}/file", tmp_path / "x", FileKind("old", lambda block: block.startswith(b"old")), Retries(2))
    assert (tmp_path / "x").read_bytes() == OLD


def test_a_change_within_the_second_of_the_response_is_possible() -> None:
    date = "Mon, 02 Jan 2023 10:00:01 GMT"
    assert RemoteVersion.of_response("u", 1, last_modified=LONG_AGO, date=date).validator == LONG_AGO
    assert RemoteVersion.of_response("u", 1, last_modified=date, date=date).validator == ""


def test_the_record_has_the_version(site: Site, tmp_path: Path) -> None:
    site.headers["file"] = {"ETag": '"1"', "Last-Modified": LONG_AGO}
    interrupt(site, tmp_path / "x")
    record = json.loads(PartialDownload(tmp_path / "x").record.read_text())
    assert record == {"url": f"{site.url}/file", "etag": '"1"', "last_modified": LONG_AGO, "size": len(OLD)}

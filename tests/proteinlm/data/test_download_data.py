"""The downloader against a local server: resume, broken connections, truncated files, error pages, dead links."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from proteinlm.data.download_data import DEFAULT_TABLE, main, read_table
from tape.errors import ConfigError, run_cli
from tape.io.lmdb_store import LMDBReader, write_lmdb
from tests.support.local_site import PAGE, Site
from tests.support.terminal_signals import terminal_handlers

SPLITS = {"train": 40, "valid": 3}


def make_tarball(folder: Path, name: str, splits: dict[str, int] = SPLITS) -> bytes:
    """A tarball in the layout of TAPE's."""
    for split, count in splits.items():
        records = ({"primary": f"MKV{'ACDEFGHIKLMNPQRSTVWY' * (i % 7)}", "x": i} for i in range(count))
        write_lmdb(folder / name / f"{name}_{split}.lmdb", records)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder / name, name)
    return buffer.getvalue()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    archives = {
        name: {"md5": None, "splits": SPLITS, "name": f"TAPE {name}", "source": "test"}
        for name in ("fluorescence", "stability", "pfam")
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"base_url": "http://127.0.0.1:1", "archives": archives}))
    return path


Run = Callable[..., int]


@pytest.fixture
def run(site: Site, table: Path, tmp_path: Path) -> Run:
    def call(*arguments: str) -> int:
        target = str(tmp_path / "data")
        options = ["--target", target, "--base-url", site.url, "--table", str(table), "--attempts", "1"]
        return main([*options, *arguments])

    return call


@pytest.fixture
def fluorescence(site: Site, tmp_path: Path) -> bytes:
    content = make_tarball(tmp_path / "published", "fluorescence")
    site.files["fluorescence.tar.gz"] = content
    return content


def test_the_table_of_archives_has_the_published_sizes() -> None:
    base_url, archives = read_table(DEFAULT_TABLE)
    assert base_url.startswith("https://s3.amazonaws.com/songlabdata/")
    assert archives["pfam"].splits == {"train": 32593668, "valid": 1715454, "holdout": 44311}
    assert archives["remote_homology"].splits["test_superfamily_holdout"] == 1254
    assert {len(archive.md5) for archive in archives.values() if archive.md5} == {32}


def test_an_archive_is_downloaded_unpacked_and_verified(
    run: Run, fluorescence: bytes, site: Site, tmp_path: Path, capsys
) -> None:
    assert run("fluorescence") == 0
    assert "verified: train 40, valid 3" in capsys.readouterr().out
    folder = tmp_path / "data" / "fluorescence"
    assert LMDBReader(folder / "fluorescence_train.lmdb")[39]["x"] == 39
    described = json.loads((folder / "dataset.json").read_text())
    assert (described["name"], described["simulated"], described["splits"]) == ("TAPE fluorescence", False, SPLITS)
    downloads = tmp_path / "data" / "downloads"
    digest = hashlib.sha256(fluorescence).hexdigest()
    assert (downloads / "SHA256SUMS").read_text() == f"{digest}  fluorescence.tar.gz\n"
    assert [path.name for path in downloads.iterdir()] == ["SHA256SUMS"]
    assert run("fluorescence") == 0
    assert "already complete, verified" in capsys.readouterr().out
    assert len(site.ranges) == 1


def test_an_interrupted_transfer_resumes_in_the_next_run(
    run: Run, fluorescence: bytes, site: Site, tmp_path: Path, capsys
) -> None:
    site.breaks_after["fluorescence.tar.gz"] = [700]
    assert run("fluorescence") == 1
    error = capsys.readouterr().err
    assert f"was interrupted after 700 of {len(fluorescence):,} bytes" in error
    assert "run the same command again" in error
    assert (tmp_path / "data" / "downloads" / "fluorescence.tar.gz.part").stat().st_size == 700
    assert run("fluorescence", "--keep-archives") == 0
    assert site.ranges == [None, "bytes=700-"]
    assert (tmp_path / "data" / "downloads" / "fluorescence.tar.gz").read_bytes() == fluorescence


@pytest.mark.parametrize("archive_is_left", [True, False])
def test_a_download_killed_after_unpacking_is_finished_by_the_next_run(
    run: Run, fluorescence: bytes, tmp_path: Path, archive_is_left: bool
) -> None:
    assert run("fluorescence") == 0
    downloads = tmp_path / "data" / "downloads"
    (downloads / "SHA256SUMS").unlink()
    if archive_is_left:
        (downloads / "fluorescence.tar.gz").write_bytes(fluorescence)
    assert run("fluorescence") == 0
    assert [path.name for path in downloads.iterdir()] == ["SHA256SUMS"]
    assert (downloads / "SHA256SUMS").read_text().startswith(hashlib.sha256(fluorescence).hexdigest())


def test_temporary_files_of_a_killed_download_are_removed(run: Run, fluorescence: bytes, tmp_path: Path) -> None:
    assert run("fluorescence") == 0
    downloads, folder = tmp_path / "data" / "downloads", tmp_path / "data" / ".fluorescence.abcdefgh.tmp"
    (downloads / ".SHA256SUMS.abcdefgh.tmp").touch()
    (downloads / ".fluorescence.tar.gz.part.json.abcdefgh.tmp").touch()
    folder.mkdir()
    (folder / "lock").touch()
    assert run("fluorescence") == 0
    assert [path.name for path in downloads.iterdir()] == ["SHA256SUMS"]
    assert not folder.exists()


def test_an_archive_that_was_kept_is_not_removed_by_a_later_run(run: Run, fluorescence: bytes, tmp_path: Path) -> None:
    assert run("fluorescence", "--keep-archives") == 0
    assert run("fluorescence") == 0
    assert (tmp_path / "data" / "downloads" / "fluorescence.tar.gz").exists()


def test_a_stop_signal_after_unpacking_does_not_leave_the_archive(
    run: Run, fluorescence: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace_and_stop(temporary: Path, path: Path) -> None:
        temporary.rename(path)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("tape.io.writing.atomic.replace_directory", replace_and_stop)
    with terminal_handlers():
        assert run_cli(lambda: run("fluorescence")) == 143
    assert [path.name for path in (tmp_path / "data" / "downloads").iterdir()] == ["SHA256SUMS"]


def test_an_interrupted_transfer_is_retried_within_a_run(
    run: Run, fluorescence: bytes, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tape.hub.downloads.time.sleep", lambda seconds: None)
    site.breaks_after["fluorescence.tar.gz"] = [500, 300]
    assert run("fluorescence", "--attempts", "3") == 0
    assert site.ranges == [None, "bytes=500-", "bytes=800-"]


def test_without_range_requests_the_download_restarts(run: Run, fluorescence: bytes, site: Site) -> None:
    site.breaks_after["fluorescence.tar.gz"] = [700]
    site.ignores_ranges = True
    assert run("fluorescence") == 1
    assert run("fluorescence") == 0


def test_an_archive_that_changes_between_attempts_is_downloaded_from_its_beginning(
    run: Run, fluorescence: bytes, site: Site, tmp_path: Path
) -> None:
    site.breaks_after["fluorescence.tar.gz"] = [700]
    assert run("fluorescence") == 1
    changed = make_tarball(tmp_path / "changed", "fluorescence")
    site.files["fluorescence.tar.gz"] = changed
    assert run("fluorescence", "--keep-archives") == 0
    assert (tmp_path / "data" / "downloads" / "fluorescence.tar.gz").read_bytes() == changed


def test_a_truncated_archive_is_refused_and_deleted(
    run: Run, fluorescence: bytes, site: Site, tmp_path: Path, capsys
) -> None:
    site.files["fluorescence.tar.gz"] = fluorescence[:-300]
    assert run("fluorescence") == 1
    error = capsys.readouterr().err
    assert "fluorescence.tar.gz: truncated or damaged" in error
    assert "deleted; run the command again" in error
    assert not (tmp_path / "data" / "fluorescence").exists()
    assert not list((tmp_path / "data").glob(".*"))
    assert not (tmp_path / "data" / "downloads" / "fluorescence.tar.gz").exists()


def test_a_damaged_archive_is_replaced_by_a_good_one(
    run: Run, fluorescence: bytes, site: Site, tmp_path: Path, capsys
) -> None:
    site.files["fluorescence.tar.gz"] = make_tarball(tmp_path / "short", "fluorescence", {"train": 39, "valid": 3})
    assert run("fluorescence") == 1
    assert "39 records, but the published split has 40" in capsys.readouterr().err
    site.files["fluorescence.tar.gz"] = fluorescence
    assert run("fluorescence") == 0
    sums = (tmp_path / "data" / "downloads" / "SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(fluorescence).hexdigest()}  fluorescence.tar.gz\n"


@pytest.mark.parametrize("content_type_tells", [True, False])
def test_an_error_page_instead_of_an_archive_is_refused(run: Run, site: Site, capsys, content_type_tells: bool) -> None:
    (site.pages if content_type_tells else site.files)["fluorescence.tar.gz"] = PAGE
    assert run("fluorescence") == 1
    error = capsys.readouterr().err
    assert "the server sent a web page instead of a .tar.gz archive" in error
    assert "This bucket has moved" in error


def test_a_dead_link_does_not_prevent_the_other_downloads(
    run: Run, fluorescence: bytes, tmp_path: Path, capsys
) -> None:
    assert run("stability", "fluorescence") == 1
    error = capsys.readouterr().err
    assert "stability.tar.gz: dead link: the server responds with HTTP 404 Not Found" in error
    assert "--base-url" in error
    assert "1 of 2 data sets could not be downloaded" in error
    assert (tmp_path / "data" / "fluorescence").is_dir()


def test_an_unreachable_server_is_an_error(table: Path, tmp_path: Path, capsys) -> None:
    assert main(["fluorescence", "--target", str(tmp_path), "--table", str(table)]) == 1
    assert "can't be reached" in capsys.readouterr().err


def test_a_wrong_checksum_is_refused(
    run: Run, fluorescence: bytes, site: Site, table: Path, tmp_path: Path, capsys
) -> None:
    content = json.loads(table.read_text())
    content["archives"]["fluorescence"]["md5"] = "0" * 32
    table.write_text(json.dumps(content))
    assert run("fluorescence") == 1
    assert f"MD5 sum is {hashlib.md5(fluorescence).hexdigest()}" in capsys.readouterr().err
    content["archives"]["fluorescence"]["md5"] = hashlib.md5(fluorescence).hexdigest()
    table.write_text(json.dumps(content))
    (tmp_path / "data" / "downloads" / "SHA256SUMS").write_text(f"{'f00' + 61 * '0'}  fluorescence.tar.gz\n")
    assert run("fluorescence") == 1
    assert "but the first download had f00" in capsys.readouterr().err


def test_a_wrong_number_of_records_is_refused(run: Run, site: Site, tmp_path: Path, capsys) -> None:
    site.files["fluorescence.tar.gz"] = make_tarball(tmp_path / "short", "fluorescence", {"train": 39, "valid": 3})
    assert run("fluorescence") == 1
    assert "fluorescence_train.lmdb: 39 records, but the published split has 40" in capsys.readouterr().err
    assert not (tmp_path / "data" / "fluorescence").exists()


def test_a_directory_with_other_content_is_not_replaced(run: Run, fluorescence: bytes, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "data" / "fluorescence"
    folder.mkdir(parents=True)
    (folder / "mine").touch()
    assert run("fluorescence") == 1
    assert "it is not changed" in capsys.readouterr().err
    assert (folder / "mine").exists()


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_archive_members_outside_the_target_are_refused(
    run: Run, site: Site, tmp_path: Path, capsys, kind: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        names = {"parent": "fluorescence/../../evil", "absolute": "/tmp/evil_of_test", "link": "fluorescence/link"}
        member = tarfile.TarInfo(names[kind])
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    site.files["fluorescence.tar.gz"] = buffer.getvalue()
    assert run("fluorescence") == 1
    assert "not a regular file inside the archive" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_an_unknown_data_set_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="unknown data set trrosetta; choose from fluorescence, stability, pfam"):
        run("trrosetta")


def test_the_shell_command_downloads_into_the_target(
    repository_root: Path, fluorescence: bytes, site: Site, table: Path, tmp_path: Path
) -> None:
    environment = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": str(Path(sys.executable).parent.parent)}
    script = str(repository_root / "scripts" / "download_data.sh")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", script, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    options = ("--base-url", site.url, "--table", str(table))
    done = call("fluorescence", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "fluorescence" / "dataset.json").exists()
    failed = call("stability", "--attempts", "1", *options)
    assert failed.returncode == 1
    assert "dead link" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "7.7 GB" in call("--help").stdout


@pytest.mark.parametrize("name", [".", "./", "fluorescence", "a\0b"])
def test_a_file_in_place_of_the_folder_is_refused(
    run: Run, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    site.files["fluorescence.tar.gz"] = buffer.getvalue()
    assert run("fluorescence") == 1
    assert "fluorescence.tar.gz: " in capsys.readouterr().err
    assert not (tmp_path / "data" / "fluorescence").exists()


def test_an_archive_that_needs_more_than_the_free_disk_space_is_refused(
    run: Run, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = tarfile.TarInfo("fluorescence/fluorescence_train.lmdb")
    member.size = 1 << 60
    header = member.tobuf(format=tarfile.GNU_FORMAT)
    site.files["fluorescence.tar.gz"] = gzip.compress(header + bytes(10240))
    assert run("fluorescence") == 1
    error = capsys.readouterr().err
    file = tmp_path / "data" / "fluorescence" / "fluorescence_train.lmdb"
    assert error.startswith(f"error: {file}: can't be written: No space left on device; ")
    assert "bytes are free, but it needs 1,152,921,504,606,846,976; choose another --target" in error
    assert error.count("error:") == 1
    assert "damaged" not in error
    assert (tmp_path / "data" / "downloads" / "fluorescence.tar.gz").exists()  # need not be downloaded again
    assert not (tmp_path / "data" / "fluorescence").exists()


def test_the_target_is_checked_before_a_download(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError, match=r"--target .*taken/data: .*taken is a file"):
        main(["--target", str(tmp_path / "taken" / "data")])


@pytest.mark.parametrize(
    "names",
    [["fluorescence/x", "fluorescence/x/y"], ["fluorescence/x/y", "fluorescence/x"], ["fluorescence/" + 300 * "n"]],
    ids=["below a file", "in place of a folder", "too long"],
)
def test_impossible_names_in_an_archive_are_refused(
    run: Run, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str]
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    site.files["fluorescence.tar.gz"] = buffer.getvalue()
    assert run("fluorescence") == 1
    assert "fluorescence.tar.gz: it contains a name that no file can have" in capsys.readouterr().err
    assert not list((tmp_path / "data").glob("*fluorescence*"))

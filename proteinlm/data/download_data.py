"""Downloads TAPE's published LMDB data sets (and Pfam), verifies them, and unpacks them for training.

    proteinlm download                        the five tasks, into ./data
    proteinlm download fluorescence --target DIR
    proteinlm download pfam                   the pretraining corpus: 7.7 GB, 19 GB unpacked

In a clone, it is bash scripts/download_data.sh.

An interrupted download resumes when the command is run again; complete data sets are not downloaded again. The command
verifies the size announced by the server, the MD5 sum if one is published, the gzip checksum, every member of the
tarball, and the number of records of each split. The SHA-256 sum of the first verified download is stored in
TARGET/downloads/SHA256SUMS, and later downloads must have the same sum.
"""

from __future__ import annotations

import argparse
import errno
import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tqdm.auto import tqdm

from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, DataError, OutputError, ProteinLMError, print_error, quoted
from tape.hub.downloads import GZIP, Retries, download
from tape.interrupts import stop_allowed, stop_deferred
from tape.io.checksums import SUMS_NAME, read_sums, write_sums
from tape.io.json_files import parse_json, read_json_object
from tape.io.lmdb_store import LMDBReader
from tape.io.writing import atomic_directory, check_output_directory, remove_leftovers, write_json

DEFAULT_TABLE = Path(__file__).with_name("tape_archives.json")
_ADVICE = (
    "TAPE has moved its files before: see https://github.com/songlab-cal/tape#lmdb-data for the present address and "
    "pass it with --base-url"
)
_DESCRIPTION_NAME = "dataset.json"
_DIGEST = "archive_sha256"  # a field of it
_BLOCK_BYTES = 1 << 20
# a name is too long, or one member is both a file and a folder
_IMPOSSIBLE_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class Archive:
    """One tarball: ``{folder}.tar.gz`` with ``{folder}/{folder}_{split}.lmdb``; ``splits``: records per split."""

    folder: str
    md5: str | None
    splits: dict[str, int]
    name: str
    source: str


@dataclass(frozen=True)
class DownloadTarget:
    """Source and destination of archives, and how to download them."""

    base_url: str
    target: Path
    keep_archives: bool = False
    retries: Retries = field(default_factory=Retries)

    @property
    def downloads(self) -> Path:
        return self.target / "downloads"


def read_table(path: Path = DEFAULT_TABLE) -> tuple[str, dict[str, Archive]]:
    """Base URL and archives of a table such as tape_archives.json."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        archives = {folder: Archive(folder, **entry) for folder, entry in content["archives"].items()}
        return content["base_url"], archives
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a table of archives: {error}") from error


def fetch(archive: Archive, place: DownloadTarget) -> str:
    """Download, check and unpack one archive; returns a summary line.

    Raises:
        DataError: the download failed, or the file is not the published one; the data set's folder is not created.
        ConfigError: the folder exists and has other content, or the disk is too small.
    """
    folder = place.target / archive.folder
    tarball = place.downloads / f"{archive.folder}.tar.gz"
    remove_leftovers(place.target, archive.folder)
    remove_leftovers(place.downloads)
    if folder.exists():
        try:
            found = _check_splits(folder, archive)
        except DataError as error:
            message = f"{folder} is not the published set ({error}); it is not changed, move it away to download again"
            raise ConfigError(message) from error
        _finish_killed_download(folder, tarball, place)
        return f"{folder}: already complete, {found}"
    if not tarball.exists():
        download(f"{place.base_url.rstrip('/')}/{tarball.name}", tarball, GZIP, place.retries, _ADVICE)
    try:
        digest = _check_sums(tarball, archive)
        with stop_deferred():  # from the name of the folder to the sum of the archive
            with atomic_directory(folder) as unpacked, stop_allowed():
                _unpack(tarball, archive.folder, unpacked)
                found = _check_splits(unpacked, archive)
                write_json(unpacked / _DESCRIPTION_NAME, _describe(archive, digest))
            _leave_archive(tarball, digest, place)
    except DataError as error:
        tarball.unlink()  # or the next run would use it
        raise DataError(f"{tarball}: {error}. The archive was deleted; run the command again") from error
    return f"{folder}: {found}"


def _leave_archive(tarball: Path, digest: str, place: DownloadTarget) -> None:
    """Remove an unpacked archive unless it is to be kept, and record its sum, which later downloads must have.

    In this order, so that an archive without a recorded sum is none that the user has kept.
    """
    if not place.keep_archives:
        tarball.unlink(missing_ok=True)
    write_sums(tarball.parent, {**read_sums(tarball.parent), tarball.name: digest})


def _finish_killed_download(folder: Path, tarball: Path, place: DownloadTarget) -> None:
    """Do what is left if a command was killed after it had unpacked the archive."""
    description = folder / _DESCRIPTION_NAME
    digest = read_json_object(description, DataError).get(_DIGEST) if description.exists() else None
    if isinstance(digest, str) and tarball.name not in read_sums(tarball.parent):
        _leave_archive(tarball, digest, place)


def _check_sums(tarball: Path, archive: Archive) -> str:
    """Compare the MD5 sum with the published one, and the SHA-256 sum (returned) with the recorded one."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with tarball.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            md5.update(block)
            sha256.update(block)
    if archive.md5 is not None and md5.hexdigest() != archive.md5:
        raise DataError(
            f"its MD5 sum is {md5.hexdigest()}, the published file's {archive.md5}: damaged in transfer, or replaced "
            "at the source"
        )
    digest = sha256.hexdigest()
    known = read_sums(tarball.parent).get(tarball.name, digest)
    if known != digest:
        raise DataError(
            f"its SHA-256 sum is {digest}, but the first download had {known}; remove the line from "
            f"{tarball.parent / SUMS_NAME} if the new one is correct"
        )
    return digest


def _unpack(tarball: Path, folder: str, target: Path) -> None:
    """Unpack ``folder/...`` of the tarball into ``target``; read to the end, which verifies gzip's checksum."""
    try:
        with tarball.open("rb") as raw, _reading_bar(raw, tarball) as counted, gzip.GzipFile(fileobj=counted) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for member in members:
                    _unpack_member(members, member, folder, target)
            while stream.read(_BLOCK_BYTES):
                pass
    except (EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"truncated or damaged ({error})") from error
    except OSError as error:
        if error.errno in _IMPOSSIBLE_NAMES:
            raise DataError(f"it contains a name that no file can have ({error.strerror})") from error
        raise


def _reading_bar(raw: BinaryIO, tarball: Path) -> Any:
    """``raw`` with a progress bar of the bytes read."""
    title = f"unpacking {tarball.name}"
    return tqdm.wrapattr(raw, "read", total=tarball.stat().st_size, desc=title, disable=None, leave=False)


def _unpack_member(members: tarfile.TarFile, member: tarfile.TarInfo, folder: str, target: Path) -> None:
    """Unpack one file. Members whose path could be outside ``target`` are refused."""
    path = PurePosixPath(member.name)
    parts = tuple(part for part in path.parts if part != ".")
    if path.is_absolute() or ".." in parts or "\0" in member.name or not (member.isfile() or member.isdir()):
        raise DataError(
            f"it contains {quoted(member.name)}, which is not a regular file inside the archive; nothing was unpacked"
        )
    if not member.isfile():
        return
    below = parts[1:] if parts[:1] == (folder,) else parts
    if not below:
        raise DataError(f"it contains a file {quoted(member.name)} where the folder of the data should be")
    if below[-1].startswith("._"):  # metadata files of macOS
        return
    inside = target.joinpath(*below)
    if member.size > (free := shutil.disk_usage(target).free):
        space = f"{free:,} bytes are free, but it needs {member.size:,}; choose another --target"
        raise OutputError(inside, os.strerror(errno.ENOSPC), space)
    inside.parent.mkdir(parents=True, exist_ok=True)
    content = members.extractfile(member)
    assert content is not None  # isfile() was True
    with content, inside.open("wb") as stream:
        shutil.copyfileobj(content, stream, _BLOCK_BYTES)


def _check_splits(folder: Path, archive: Archive) -> str:
    """Check the number of records of every known split, and read its first and last record."""
    counts = []
    for split, expected in archive.splits.items():
        path = folder / f"{archive.folder}_{split}.lmdb"
        with LMDBReader(path) as reader:
            if len(reader) != expected:
                raise DataError(f"{path.name}: {len(reader):,} records, but the published split has {expected:,}")
            for index in (0, len(reader) - 1):
                if not isinstance(reader[index].get("primary"), str):
                    raise DataError(f"{path.name}, record {index}: no sequence under 'primary'")
        counts.append(f"{split} {expected:,}")
    return "verified: " + ", ".join(counts)


def _describe(archive: Archive, digest: str) -> dict[str, Any]:
    """The content of dataset.json; ``digest``: SHA-256 of the archive."""
    return {
        "name": archive.name,
        "simulated": False,
        "source": archive.source,
        "licence": "see https://github.com/songlab-cal/tape#citation-guidelines",
        "splits": archive.splits,
        _DIGEST: digest,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Download the data sets of the command line; the exit code is 1 if one failed."""
    options = make_parser().parse_args(arguments)
    base_url, archives = read_table(options.table)
    unknown = [name for name in options.datasets if name not in archives]
    if unknown:
        raise ConfigError(f"unknown data set {', '.join(unknown)}; choose from {', '.join(archives)}")
    names = options.datasets or [name for name in archives if name != "pfam"]
    check_output_directory(options.target, "--target")
    place = DownloadTarget(
        options.base_url or base_url, options.target, options.keep_archives, Retries(options.attempts)
    )
    failures = 0
    for name in names:
        try:
            print(fetch(archives[name], place), flush=True)
        except (ProteinLMError, OSError) as error:  # the other data sets are still downloaded
            print_error(str(error))
            failures += 1
    if failures and len(names) > 1:
        print_error(f"{failures} of {len(names)} data sets could not be downloaded")
    return 1 if failures else 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help="names of folders (default: all but pfam)")
    parser.add_argument(
        "--target", type=Path, default=Path("data"), metavar="DIR", help="output directory (default ./data)"
    )
    parser.add_argument("--base-url", metavar="URL", help="another address with {DATASET}.tar.gz")
    parser.add_argument("--keep-archives", action="store_true", help="keep TARGET/downloads/*.tar.gz")
    parser.add_argument("--attempts", type=int, default=5, metavar="N", help="attempts per download (default 5)")
    parser.add_argument(
        "--table", type=Path, default=DEFAULT_TABLE, metavar="FILE", help="expected checksums and record counts"
    )
    return parser

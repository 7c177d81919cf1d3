"""SHA-256 of files, and the file ``SHA256SUMS`` of a directory.

``SHA256SUMS`` has the format of the command sha256sum, so that ``sha256sum -c SHA256SUMS`` checks the directory too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tape.errors import CheckpointError, quoted

from .writing import write_text

SUMS_NAME = "SHA256SUMS"
_BLOCK_BYTES = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LONGEST_SUMS = 1 << 20  # bytes


def sha256_of(*paths: Path) -> str:
    """SHA-256 of a file, or of several one after the other, in hex, read in blocks."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


class HashingStream:
    """Writes to a stream and computes the SHA-256 of what was written, so that the file need not be read again.

    Args:
        stream: a binary stream at its beginning.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:  # torch.save calls it
        self._stream.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def write_sums(directory: Path, sums: Mapping[str, str]) -> None:
    """Write ``SHA256SUMS`` of a directory, atomically.

    Args:
        directory: the directory of the files.
        sums: file name -> SHA-256 in hex.
    """
    write_text(directory / SUMS_NAME, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def read_sums(directory: Path) -> dict[str, str]:
    """Read ``SHA256SUMS`` of a directory: file name -> SHA-256 in hex; empty if there is none.

    Raises:
        CheckpointError: it is not in the format of sha256sum. Names file and line.
    """
    path = directory / SUMS_NAME
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST_SUMS + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    if len(content) > _LONGEST_SUMS:
        raise CheckpointError(f"{path}: larger than {_LONGEST_SUMS:,} bytes, so not a list of checksums")
    sums = {}
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(
                f"{path}, line {number}: {quoted(line)} is not a checksum and a name as sha256sum writes them; remove"
                " the file, or write it again with sha256sum"
            )
        sums[match[2]] = match[1]
    sums.pop(SUMS_NAME, None)  # written by `sha256sum * > SHA256SUMS`
    return sums


@dataclass(frozen=True)
class VerifiedSums:
    """What was compared with ``SHA256SUMS``.

    Attributes:
        verified: names of the files that are as they were written.
        unlisted: names of the files that are there, but not listed, so that nothing is known of them; empty without
            ``SHA256SUMS``.
    """

    verified: frozenset[str] = frozenset()
    unlisted: tuple[str, ...] = ()


def verify_sums(directory: Path, names: Iterable[str]) -> VerifiedSums:
    """Compare files with ``SHA256SUMS`` of their directory, if there is one.

    Args:
        directory: the directory of the files.
        names: files that are going to be read. Listed ones must exist; files that are neither listed nor present are
            skipped.

    Raises:
        CheckpointError: a file is missing or differs. Names it, both sums and how to continue.
    """
    sums = read_sums(directory)
    if not sums:
        return VerifiedSums()
    verified, unlisted = [], []
    for name in names:
        file = directory / name
        if name not in sums:
            unlisted += [name] if file.is_file() else []
            continue
        if not file.is_file():
            raise CheckpointError(f"{file}: missing, but {SUMS_NAME} beside it lists it; {_remedy(directory, sums)}")
        found = sha256_of(file)
        if found != sums[name]:
            raise CheckpointError(
                f"{file}: damaged, or changed after it was written: its SHA-256 is {found}, {SUMS_NAME} beside it has"
                f" {sums[name]}; {_remedy(directory, sums)}"
            )
        verified.append(name)
    return VerifiedSums(frozenset(verified), tuple(unlisted))


def _remedy(directory: Path, sums: Mapping[str, str]) -> str:
    names = " ".join(sorted(name for name in sums if (directory / name).is_file()))
    return (
        f"copy the directory again, or, if the change is intended, renew the sums with `cd {directory} && sha256sum"
        f" {names} > {SUMS_NAME}`; --no-verify (in Python verify=False) loads it as it is"
    )


def renew_sum(path: Path) -> None:
    """Record the sum of a file that was changed on purpose, if ``SHA256SUMS`` of its directory lists the file."""
    sums = read_sums(path.parent)
    if path.name in sums:
        write_sums(path.parent, {**sums, path.name: sha256_of(path)})

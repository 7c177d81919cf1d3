"""Resumable download of an object from S3 or a compatible store, as :mod:`tape.hub.downloads` does over HTTP.

boto3 reads credentials, region and endpoint (``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` ...). Without credentials, requests
are anonymous, which public buckets allow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tape.errors import ConfigError, DataError
from tape.io.credentials import without_credentials
from tape.io.writing import output_errors

from .downloads import DeadLinkError, FileKind
from .partial_downloads import PartialDownload, RemoteVersion

_BLOCK_BYTES = 1 << 20


def fetch_object(uri: str, path: Path, kind: FileKind) -> None:
    """Download ``s3://BUCKET/KEY`` to ``path``, resuming an earlier download of the same version of the object.

    Raises:
        DeadLinkError: the bucket or object does not exist.
        ConfigError: boto3 is not installed, or the address has no key.
        DataError: access is denied, the store can't be reached, or the object does not have the expected format.
    """
    bucket, key = split_uri(uri)
    uri = without_credentials(uri)
    client = _client()
    from botocore.exceptions import BotoCoreError, ClientError

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = PartialDownload(path)
    try:
        head = client.head_object(Bucket=bucket, Key=key)
        version = RemoteVersion.of_response(uri, int(head["ContentLength"]), etag=head.get("ETag", ""))
        _receive(client, bucket, key, partial, version)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
            raise DeadLinkError(f"{uri}: no such object") from None
        if code == "PreconditionFailed":
            raise DataError(f"{uri}: the object was replaced during the download; run the same command again") from None
        raise DataError(f"{uri}: access denied ({code}); check the credentials") from None
    except BotoCoreError as error:
        raise DataError(
            f"{uri}: {without_credentials(str(error))}; run the same command again to resume the download"
        ) from None
    _check(uri, partial, kind, int(head["ContentLength"]))
    partial.finish()


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` address.

    Raises:
        ConfigError: one of them is missing.
    """
    parts = urlsplit(uri)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if "@" in bucket:
        raise ConfigError(
            f"{without_credentials(uri)}: an s3:// address has no user name and password; boto3 reads them from the"
            " environment (AWS_PROFILE, AWS_ACCESS_KEY_ID ...)"
        )
    if not bucket or not key:
        raise ConfigError(f"{without_credentials(uri)}: an address must have the form s3://BUCKET/KEY")
    return bucket, key


def _client() -> Any:
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError as error:
        raise ConfigError("s3:// needs boto3: pip install 'proteinlm[s3]'") from error
    session = boto3.Session()
    settings = None if session.get_credentials() else Config(signature_version=UNSIGNED)
    return session.client("s3", config=settings)


def _receive(client: Any, bucket: str, key: str, partial: PartialDownload, version: RemoteVersion) -> None:
    before = partial.version(version.url)
    if before is None or not before.is_continued_by(version):
        partial.start(version)
    start = partial.size
    if start == version.size and start:
        return
    wanted = {"IfMatch": version.etag} if version.etag else {}
    if start:
        wanted["Range"] = f"bytes={start}-"
    body = client.get_object(Bucket=bucket, Key=key, **wanted)["Body"]
    with body, output_errors(partial.part, version.size), partial.part.open("ab") as stream:
        for block in body.iter_chunks(_BLOCK_BYTES):
            stream.write(block)


def _check(uri: str, partial: PartialDownload, kind: FileKind, size: int) -> None:
    with partial.part.open("rb") as stream:
        beginning = stream.read(64)
    found = partial.size
    if found == size and kind.can_begin_with(beginning):
        return
    if found < size:
        raise DataError(f"{uri}: received {found:,} of {size:,} bytes; run the same command again to resume")
    partial.discard()
    if found != size:
        raise DataError(f"{uri}: received {found:,} bytes instead of {size:,}; run the same command again")
    raise DataError(f"{uri}: not {kind.name}; it begins with {beginning[:40]!r}")

"""Local directories of models: bundled ones by name, and a cache of downloads by published name, URL or ``s3://``.

The cache is ``PROTEINLM_CACHE``, or ``proteinlm`` under ``XDG_CACHE_HOME``, or ``~/.cache/proteinlm``. It has a
directory per address, with ``config.json``, the weights, and ``download.json``, which is written last and has the
SHA-256 sums of the files. A directory is used only if its files match these sums. A cached model needs no network;
``force_download`` downloads it again and replaces the cached model once the download is complete.

The names of published models, and the addresses of their files, are those of tape-proteins 0.5.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tape.errors import CheckpointError, ConfigError, DataError, did_you_mean
from tape.interrupts import stop_allowed, stop_deferred
from tape.io.checksums import SUMS_NAME, sha256_of
from tape.io.credentials import without_credentials, without_user
from tape.io.file_locks import lock_file
from tape.io.json_files import parse_json
from tape.io.writing import write_json

from .bundled import bundled_model, bundled_names
from .downloads import JSON, SAFETENSORS, SUMS, TORCH, DeadLinkError, FileKind, download
from .s3 import fetch_object

RECORD_NAME = "download.json"
_RECORD_VERSION = 1
_SCHEMES = ("http", "https", "s3")
_CONFIG = "config.json"
_WEIGHTS = {"model.safetensors": SAFETENSORS, "pytorch_model.bin": TORCH}
_OPTIONAL = {"vocabulary.json": JSON, "provenance.json": JSON, SUMS_NAME: SUMS}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _RemoteFile:
    """A file to download: its name in the cache, and the addresses to try in this order."""

    name: str
    urls: tuple[str, ...]
    kind: FileKind


def cache_directory() -> Path:
    """The default cache directory."""
    if "PROTEINLM_CACHE" in os.environ:
        return Path(os.environ["PROTEINLM_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "proteinlm"


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether ``source`` is a published model's name or an address, not a path.

    Raises:
        ConfigError: it is an address with an invalid host.
    """
    if not isinstance(source, str):
        return False
    try:
        return source in PUBLISHED_MODELS or urlsplit(source).scheme in _SCHEMES
    except ValueError as error:
        raise ConfigError(f"{without_credentials(source)}: not an address ({error})") from None


def local_model(
    source: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
) -> Path:
    """Local path of a model, which is downloaded to the cache if it is remote.

    Args:
        source: a path; the name of a bundled model (:mod:`tape.hub.bundled`); a name in :data:`PUBLISHED_MODELS`; or an
            ``http://``, ``https://`` or ``s3://`` address of a model directory, or of a weights file with
            ``config.json`` beside it. Names have precedence over paths: for a local directory with the name of a
            model, write ``./NAME``.
        cache_dir: replaces :func:`cache_directory`.
        force_download: download the model even if it is cached.

    Raises:
        DataError: the address does not exist, the transfer fails, or the server sends something else.
        ConfigError: the address has no host, or boto3 is not installed for one with ``s3://``.
        CheckpointError: the bundled model is incomplete.
    """
    if source in model_names() and os.path.exists(source):
        logger.warning("%s is the name of a model; for the local directory of this name, write ./%s", source, source)
    if isinstance(source, str) and source in bundled_names():
        return bundled_model(source)
    if not is_remote(source):
        return Path(source)
    address = str(source)
    if address not in PUBLISHED_MODELS and not urlsplit(address).netloc:
        raise ConfigError(
            f"{without_credentials(address)}: an address must have the form https://HOST/PATH or s3://BUCKET/KEY"
        )
    directory = Path(cache_dir or cache_directory()) / _directory_name(address)
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        if force_download:
            _replace(address, directory)
        elif not _is_complete(directory):
            _fetch(address, directory)
    return directory


def model_names() -> tuple[str, ...]:
    """Names that :func:`local_model` knows: bundled models, then published ones."""
    return tuple(dict.fromkeys((*bundled_names(), *PUBLISHED_MODELS)))


def no_such_model(path: Path) -> CheckpointError:
    """The error for a path where nothing is; if it could be a name, with the names of models."""
    message = f"{path}: no such model directory or weights file"
    if len(path.parts) == 2 and not path.is_absolute() and not path.parent.exists():
        message += f"; a model of the Hugging Face hub becomes one with hf download {path} --local-dir DIRECTORY"
    if len(path.parts) != 1:
        return CheckpointError(message)
    bundled = f"bundled {', '.join(bundled_names())}" if bundled_names() else "no bundled model in this installation"
    near = did_you_mean([path.name], [*PUBLISHED_MODELS, *bundled_names()])
    return CheckpointError(f"{message}; known by name: published {', '.join(PUBLISHED_MODELS)}; {bundled}{near}")


def _directory_name(address: str) -> str:
    """A readable name of an address, without its credentials: whoever has them finds the model under this name, too."""
    address = without_user(address)
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", address.partition("?")[0].rpartition("://")[2].rstrip("/"))[-60:]
    return f"{readable}-{digest}"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock the directory, since all ranks of a run request their model at the same time."""
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        lock_file(lock, directory.parent, "let one process download the model before others use it")
        yield


def _replace(address: str, directory: Path) -> None:
    """Download again, and keep the old files until the download is complete."""
    fresh = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with stop_deferred():
        fresh.mkdir()
        try:
            with stop_allowed():
                _fetch(address, fresh)
            _empty(directory)
            for path in sorted(fresh.iterdir(), key=lambda path: path.name == RECORD_NAME):  # download.json last
                path.replace(directory / path.name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_complete(directory: Path) -> bool:
    """Whether the download is complete and its files are unchanged."""
    record = directory / RECORD_NAME
    if not record.is_file():
        return False
    try:
        files: dict[str, Any] = parse_json(record.read_text(encoding="utf-8"))["files"]
        wrong = [name for name, file in files.items() if not _matches(directory / name, str(file["sha256"]))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        wrong = [RECORD_NAME]
    if wrong:
        logger.warning("%s: %s changed after the download; downloading again", directory, ", ".join(wrong))
        _empty(directory)
    return not wrong


def _matches(path: Path, digest: str) -> bool:
    return os.path.isfile(path) and sha256_of(path) == digest  # isfile: False for a name that no file can have


def _fetch(address: str, directory: Path) -> None:
    logger.info("downloading %s to %s", without_credentials(address), directory)
    files: dict[str, dict[str, Any]] = {}
    for file in _files_of(address):
        files[file.name] = {"url": _fetch_first(file, directory / file.name)}
    weights = [name for name in _WEIGHTS if name in files] or _fetch_weights(address, directory, files)
    for name in (_CONFIG, *weights, *_fetch_optional(address, directory, files)):
        path = directory / name
        files[name].update(sha256=sha256_of(path), bytes=path.stat().st_size)
    recorded = {name: {**file, "url": without_credentials(file["url"])} for name, file in files.items()}
    content = {"version": _RECORD_VERSION, "source": without_credentials(address), "files": recorded}
    write_json(directory / RECORD_NAME, content)


def _files_of(address: str) -> list[_RemoteFile]:
    """The files whose address is known: the configuration, and the weights unless ``address`` is a directory."""
    if address in PUBLISHED_MODELS:
        published = PUBLISHED_MODELS[address]
        return [
            _RemoteFile(_CONFIG, (published.config,), JSON),
            _RemoteFile("pytorch_model.bin", (published.weights,), TORCH),
        ]
    if not _is_weights_file(address):
        return [_RemoteFile(_CONFIG, (_child_url(address, _CONFIG),), JSON)]
    name = urlsplit(address).path.rpartition("/")[2]
    weights = "model.safetensors" if Path(name).suffix == ".safetensors" else "pytorch_model.bin"
    prefix = name.removesuffix("pytorch_model.bin").removesuffix("model.safetensors")
    configs = [f"{prefix}{_CONFIG}"] if prefix != name else []  # files of TAPE are named NAME-config.json
    urls = tuple(_sibling_url(address, config) for config in dict.fromkeys([*configs, _CONFIG]))
    return [_RemoteFile(_CONFIG, urls, JSON), _RemoteFile(weights, (address,), _WEIGHTS[weights])]


def _is_weights_file(address: str) -> bool:
    return Path(urlsplit(address).path).suffix in (".bin", ".pt", ".safetensors")


def _fetch_weights(address: str, directory: Path, files: dict[str, Any]) -> list[str]:
    """Download the weights of a model directory, in either format."""
    for name, kind in _WEIGHTS.items():
        with contextlib.suppress(DeadLinkError):
            files[name] = {"url": _fetch_first(_RemoteFile(name, (_child_url(address, name),), kind), directory / name)}
            return [name]
    raise DeadLinkError(f"{without_credentials(address)}: has neither {' nor '.join(_WEIGHTS)}")


def _fetch_optional(address: str, directory: Path, files: dict[str, Any]) -> list[str]:
    """Download vocabulary, provenance and checksums, if the model directory has them."""
    if address in PUBLISHED_MODELS:
        return []
    config: str = files[_CONFIG]["url"]
    found = []
    for name, kind in _OPTIONAL.items():
        if kind is SUMS and _is_weights_file(address):  # in the cache, its name may be another
            continue
        with contextlib.suppress(DataError):  # some servers answer with a web page instead of an error
            files[name] = {
                "url": _fetch_first(_RemoteFile(name, (_sibling_url(config, name),), kind), directory / name)
            }
            found.append(name)
    return found


def _fetch_first(file: _RemoteFile, path: Path) -> str:
    """Download from the first address that has the file, and return that address."""
    for number, url in enumerate(file.urls, start=1):
        try:
            if url.startswith("s3://"):
                fetch_object(url, path, file.kind)
            else:
                download(url, path, file.kind, advice="Check the address.")
            return url
        except DeadLinkError:
            if number == len(file.urls):
                raise
    raise ConfigError(f"{file.name}: no address")  # unreachable: a _RemoteFile has at least one address


def _child_url(address: str, name: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def _sibling_url(address: str, name: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{name}"))


_BASE = "https://s3.amazonaws.com/songlabdata/proteindata/pytorch-models/"


@dataclass(frozen=True)
class PublishedModel:
    """Addresses of the configuration and the weights of a published model."""

    config: str
    weights: str


def _published(stem: str) -> PublishedModel:
    return PublishedModel(f"{_BASE}{stem}-config.json", f"{_BASE}{stem}-pytorch_model.bin")


# Names of the models of each architecture.
TRANSFORMERS = {"bert-base": _published("bert-base")}
UNIREPS = {"babbler-1900": _published("unirep-base")}
TRROSETTAS = {name: _published(f"trRosetta-{name}") for name in ("xaa", "xab", "xac", "xad", "xae")}

PUBLISHED_MODELS: dict[str, PublishedModel] = {**TRANSFORMERS, **UNIREPS, **TRROSETTAS}

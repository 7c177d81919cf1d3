"""Models from a URL, an S3 bucket or by a published name, against servers on this machine."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError, DataError
from tape.hub.cache import PUBLISHED_MODELS, RECORD_NAME, PublishedModel, cache_directory, local_model
from tape.hub.downloads import SAFETENSORS
from tape.hub.partial_downloads import PartialDownload, RemoteVersion
from tape.hub.s3 import fetch_object, split_uri
from tape.main import run_eval, run_train
from tape.models.modeling_bert import ProteinBertForValuePrediction, ProteinBertModel
from tape.registry import registry
from tests.support.local_site import Site
from tests.support.small_models import SMALL_CONFIGS

CONFIG = "models/small/config.json"
WEIGHTS = "models/small/model.safetensors"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROTEINLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model() -> ProteinBertForValuePrediction:
    torch.manual_seed(0)
    return ProteinBertForValuePrediction(ProteinBertConfig(**SMALL_CONFIGS["transformer"])).eval()


@pytest.fixture(scope="module")
def files(model: ProteinBertForValuePrediction, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model directory's files, in both formats of weights."""
    directory = tmp_path_factory.mktemp("model")
    for weights in ("model.safetensors", "pytorch_model.bin"):
        model.save_pretrained(directory, weights=weights, provenance={"kind": "test"})
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def put(site: Site, files: dict[str, bytes], *names: str, prefix: str = "models/small/") -> None:
    site.files.update({f"{prefix}{name}": files[name] for name in names})


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def only(cache: Path) -> Path:
    (directory,) = [path for path in cache.iterdir() if path.is_dir()]
    return directory


def test_a_directory_at_a_url_is_downloaded_once_and_then_used_offline(
    site: Site, cache: Path, model: Any, files: dict[str, bytes]
) -> None:
    put(site, files, "config.json", "model.safetensors", "vocabulary.json", "provenance.json", "SHA256SUMS")
    url = f"{site.url}/models/small"
    assert same(model, ProteinBertForValuePrediction.from_pretrained(url))
    directory = only(cache)
    record = json.loads((directory / RECORD_NAME).read_text())
    assert record["source"] == url
    assert set(record["files"]) == {
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
        "vocabulary.json",
        "provenance.json",
    }
    assert record["files"]["model.safetensors"]["bytes"] == len(files["model.safetensors"])
    requested = len(site.requested)
    site.files.clear()
    assert same(model.bert, ProteinBertModel.from_pretrained(url))
    assert ProteinBertConfig.from_pretrained(url).hidden_size == 16
    assert len(site.requested) == requested


def test_weights_at_a_url_are_loaded_with_the_configuration_beside_them(
    site: Site, cache: Path, model: Any, files: dict[str, bytes]
) -> None:
    put(site, files, "config.json", "pytorch_model.bin")
    assert same(model, ProteinBertForValuePrediction.from_pretrained(f"{site.url}/models/small/pytorch_model.bin"))
    site.files = {"tape/x-config.json": files["config.json"], "tape/x-pytorch_model.bin": files["pytorch_model.bin"]}
    loaded = ProteinBertForValuePrediction.from_pretrained(f"{site.url}/tape/x-pytorch_model.bin")  # TAPE's naming
    assert same(model, loaded)


def test_a_published_name_is_resolved_to_its_urls(
    site: Site, cache: Path, model: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(PUBLISHED_MODELS) == {"bert-base", "babbler-1900", "xaa", "xab", "xac", "xad", "xae"}
    assert PUBLISHED_MODELS["babbler-1900"].weights.endswith("/unirep-base-pytorch_model.bin")
    here = PublishedModel(f"{site.url}/b-config.json", f"{site.url}/b-pytorch_model.bin")
    monkeypatch.setitem(PUBLISHED_MODELS, "bert-base", here)
    site.redirects = {"b-config.json": "moved/c.json", "b-pytorch_model.bin": "moved/w.bin"}
    site.files = {"moved/c.json": files["config.json"], "moved/w.bin": files["pytorch_model.bin"]}
    assert same(model, ProteinBertForValuePrediction.from_pretrained("bert-base"))
    loaded = registry.get_task_model("transformer", "stability", load_dir="bert-base", hidden_act="relu")
    assert loaded.config.hidden_act == "relu"
    assert local_model("./bert-base") == Path("./bert-base")


def test_the_commands_accept_a_url(
    site: Site, cache: Path, files: dict[str, bytes], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(site, files, "config.json", "model.safetensors", "vocabulary.json")
    words = ["transformer", "stability", "--data_dir", str(small_data), "--num_train_epochs", "1", "--log_level", "40"]
    run = run_train([*words, "--from_pretrained", f"{site.url}/models/small", "--time_or_name", "t"])
    assert json.loads((run / "args.json").read_text())["from_pretrained"] == f"{site.url}/models/small"
    values = run_eval(["transformer", "stability", f"{site.url}/models/small", *words[2:4], "--log_level", "40"])
    assert values["loss"] > 0


def test_a_changed_file_in_the_cache_is_downloaded_again(
    site: Site, cache: Path, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    put(site, files, "config.json", "model.safetensors")
    directory = local_model(f"{site.url}/models/small")
    (directory / "model.safetensors").write_bytes(files["model.safetensors"][:-1] + b"x")
    with caplog.at_level(logging.WARNING):
        local_model(f"{site.url}/models/small")
    assert "model.safetensors changed after the download" in caplog.text
    assert (directory / "model.safetensors").read_bytes() == files["model.safetensors"]
    for damaged in ("{", json.dumps({"files": {"n" * 300: {"sha256": "0"}}})):
        (directory / RECORD_NAME).write_text(damaged)
        assert local_model(f"{site.url}/models/small") == directory


def test_force_download_replaces_the_cached_files(site: Site, cache: Path, files: dict[str, bytes]) -> None:
    put(site, files, "config.json", "model.safetensors")
    url = f"{site.url}/models/small"
    directory = local_model(url)
    site.files[CONFIG] = files["config.json"].replace(b'"num_labels": 2', b'"num_labels": 7')
    assert ProteinBertForValuePrediction.from_pretrained(url).config.num_labels == 2
    assert ProteinBertForValuePrediction.from_pretrained(url, force_download=True).config.num_labels == 7
    assert local_model(url, cache_dir=cache / "other") != directory
    site.files.clear()
    with pytest.raises(DataError, match="dead link"):
        local_model(url, force_download=True)
    assert ProteinBertForValuePrediction.from_pretrained(url).config.num_labels == 7  # kept
    assert not list(cache.glob(".*.new"))


def test_an_interrupted_transfer_resumes(
    site: Site, cache: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tape.hub.downloads.time.sleep", lambda seconds: None)
    put(site, files, "config.json", "model.safetensors")
    site.breaks_after[WEIGHTS] = [700] + [0] * 10
    with pytest.raises(DataError, match="was interrupted after 700 of"):
        local_model(f"{site.url}/models/small")
    assert not (only(cache) / RECORD_NAME).exists()
    site.breaks_after.clear()
    directory = local_model(f"{site.url}/models/small")
    assert "bytes=700-" in site.ranges
    assert (directory / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_urls_without_a_model_are_refused(site: Site, cache: Path, files: dict[str, bytes]) -> None:
    url = f"{site.url}/models/small"
    with pytest.raises(DataError, match=r"models/small/config\.json: dead link: the server responds with HTTP 404"):
        local_model(url)
    site.pages[CONFIG] = b"<!DOCTYPE html><html>Sign in</html>"
    with pytest.raises(DataError, match="sent a web page instead of a JSON object"):
        local_model(url)
    del site.pages[CONFIG]
    put(site, files, "config.json")
    with pytest.raises(DataError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        local_model(url)
    site.files["models/small/pytorch_model.bin"] = b"<html>Sign in</html>"
    with pytest.raises(DataError, match="instead of a PyTorch file"):
        local_model(url)
    with pytest.raises(DataError, match="can't be reached"):
        local_model("http://127.0.0.1:9/model")
    assert not list(cache.glob(f"*/{RECORD_NAME}"))


def test_the_location_of_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROTEINLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "proteinlm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "proteinlm"


def test_s3_without_boto3_names_the_extra_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"pip install 'proteinlm\[s3\]'"):
        local_model("s3://lab/m")
    with pytest.raises(ConfigError, match="must have the form s3://BUCKET/KEY"):
        split_uri("s3://lab")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://[::1", r"http://\[::1: not an address"),
        ("http:///x", "http:///x: an address must have the form"),
        ("s3://", "s3://: an address must have the form"),
    ],
)
def test_addresses_without_a_host_are_refused(cache: Path, address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        local_model(address)


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 client whose bucket ``lab`` is empty."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="lab")
        yield client


def test_a_model_in_a_bucket_is_downloaded(bucket: Any, cache: Path, model: Any, files: dict[str, bytes]) -> None:
    for name in ("config.json", "pytorch_model.bin"):
        bucket.put_object(Bucket="lab", Key=f"m/{name}", Body=files[name])
    assert same(model, ProteinBertForValuePrediction.from_pretrained("s3://lab/m"))
    assert same(model, ProteinBertForValuePrediction.from_pretrained("s3://lab/m/pytorch_model.bin"))
    bucket.delete_object(Bucket="lab", Key="m/config.json")
    assert same(model, ProteinBertForValuePrediction.from_pretrained("s3://lab/m"))  # from the cache
    with pytest.raises(DataError, match=r"s3://lab/m/config\.json: no such object"):
        ProteinBertForValuePrediction.from_pretrained("s3://lab/m", force_download=True)
    with pytest.raises(DataError, match="no such object"):
        local_model("s3://gone/m")


def test_an_interrupted_s3_download_resumes_and_is_checked(bucket: Any, cache: Path, files: dict[str, bytes]) -> None:
    for name in ("config.json", "model.safetensors"):
        bucket.put_object(Bucket="lab", Key=name, Body=files[name])
    directory = local_model("s3://lab/model.safetensors")
    content = files["model.safetensors"]
    for path in directory.iterdir():
        path.unlink()
    partial = PartialDownload(directory / "model.safetensors")
    etag = bucket.head_object(Bucket="lab", Key="model.safetensors")["ETag"]
    partial.start(RemoteVersion("s3://lab/model.safetensors", etag, size=len(content)))
    kept = content[:100] + b"#" * 400  # differs from the object, to show that it is kept
    partial.part.write_bytes(kept)
    local_model("s3://lab/model.safetensors")
    assert (directory / "model.safetensors").read_bytes() == kept + content[500:]
    bucket.put_object(Bucket="lab", Key="page/config.json", Body=b"<html>")
    with pytest.raises(DataError, match="not a JSON object; it begins with b'<html>'"):
        local_model("s3://lab/page")


def test_an_s3_object_that_was_replaced_is_downloaded_from_its_beginning(
    bucket: Any, tmp_path: Path, files: dict[str, bytes]
) -> None:
    content = files["model.safetensors"]
    bucket.put_object(Bucket="lab", Key="model.safetensors", Body=content)
    partial = PartialDownload(tmp_path / "model.safetensors")
    partial.start(RemoteVersion("s3://lab/model.safetensors", '"of another version"', size=len(content)))
    partial.part.write_bytes(b"#" * 500)
    fetch_object("s3://lab/model.safetensors", partial.path, SAFETENSORS)
    assert partial.path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [partial.path]


def test_credentials_are_sent_but_neither_shown_nor_stored(
    site: Site, files: dict[str, bytes], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(site, files, "config.json", "model.safetensors")
    address = f"{site.url.replace('://', '://me:s%40cret@')}/models/small"
    with caplog.at_level(logging.INFO):
        directory = local_model(address)
    assert site.authorizations[-1] == "Basic bWU6c0BjcmV0"  # me:s@cret
    assert local_model(f"{site.url}/models/small") == directory
    with pytest.raises(DataError) as error:
        local_model(f"{address}/absent")
    shown = [caplog.text, str(error.value), (directory / RECORD_NAME).read_text(), *map(str, cache.rglob("*"))]
    assert not [text for text in shown if "cret" in text or "me:" in text]


def test_an_s3_address_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match=r"^s3://bucket/key: an s3:// address has no user name"):
        split_uri("s3://me:secret@bucket/key")


def test_a_file_system_without_locks_is_announced(
    site: Site, files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    put(site, files, "config.json", "model.safetensors")
    monkeypatch.setattr(fcntl, "flock", refuse)
    directory = local_model(f"{site.url}/models/small")
    assert (directory / "model.safetensors").is_file()
    assert "has no locks (No locks available)" in caplog.text
    assert [path for path in cache.iterdir() if path.name.endswith((".new", ".tmp"))] == []

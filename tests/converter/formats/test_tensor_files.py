"""Weights files read tensor by tensor: all formats, indices of several files, and errors in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from converter.formats import tensor_files
from converter.formats.model_files import open_model_files
from converter.formats.tensor_files import PickledFile, find_weights, open_weights, weights_files
from tape.errors import CheckpointError
from tape.io.checksums import sha256_of, write_sums
from tests.converter.test_safe_load import Runs


def state() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.float16)}


def same(path: Path) -> bool:
    lazy = open_weights(path)
    return lazy.keys() == state().keys() and all(
        torch.equal(lazy[name].load(), value) and lazy[name].shape == value.shape and lazy[name].dtype == value.dtype
        for name, value in state().items()
    )


def test_every_format_is_read(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "m.safetensors")
    torch.save(state(), tmp_path / "zip.bin")
    torch.save(state(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert same(tmp_path / "m.safetensors")
    assert same(tmp_path / "zip.bin")
    assert same(tmp_path / "old.bin")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_files_listed_in_an_index_are_read_as_one_state_dict(tmp_path: Path, suffix: str) -> None:
    base = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[suffix]
    names = {"a": f"one.{suffix}", "b": f"two.{suffix}"}
    for name, file in names.items():
        part = {name: state()[name]}
        save_file(part, tmp_path / file) if suffix == "safetensors" else torch.save(part, tmp_path / file)
    index = tmp_path / f"{base}.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert find_weights(tmp_path) == index
    assert same(index)
    assert [file.name for file in weights_files(index)] == [f"one.{suffix}", f"two.{suffix}"]
    index.write_text(json.dumps({"weight_map": {**names, "c": f"one.{suffix}"}}))
    with pytest.raises(CheckpointError, match=f"c is not in one.{suffix}"):
        open_weights(index)


def test_an_index_lists_each_tensor_of_its_files_once(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "two.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"one\.safetensors contains 'b', which the index doesn't list"):
        open_weights(index)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"one\.safetensors contains 'b', which the index places in two\."):
        open_weights(index)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "x.json", 3, "missing.safetensors", "n" * 300, "\0"]
)
def test_an_index_may_name_only_weights_files_in_its_own_directory(tmp_path: Path, name: object) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(
        CheckpointError, match=r"not a weights file in the same directory|missing, but model.safetensors.index"
    ):
        open_weights(index)


def test_the_memory_map_is_reopened_after_some_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(100), "b": torch.ones(100)}, tmp_path / "m.pt")
    loads: list[Path] = []
    load = tensor_files.load_checkpoint_file
    monkeypatch.setattr(tensor_files, "load_checkpoint_file", lambda path: loads.append(path) or load(path))
    monkeypatch.setattr(tensor_files, "_MAPPED_BYTES", 500)
    file = PickledFile(tmp_path / "m.pt")
    lazy = {name: file.lazy(tensor, (name,)) for name, tensor in file.content().items()}
    for _ in range(4):
        assert float(lazy["b"].load().sum()) == 100
    assert len(loads) == 2  # the third read, after 800 bytes, opens it again
    tensor = lazy["a"].load()
    file.release()
    assert float(tensor.sum()) == 0  # the tensor is a copy, not a view of the memory map


@pytest.mark.parametrize(
    ("content", "words"), [([1], "contains a list"), ({"a": 3}, "entry 'a' is a int"), (None, "refused.*exec")]
)
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: object, words: str) -> None:
    torch.save(Runs(exec, "raise SystemExit") if content is None else content, tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match=rf"m\.bin.*{words}"):
        open_weights(tmp_path / "m.bin")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        open_weights(tmp_path / "m.safetensors")


def test_crcs_are_compared_once_and_only_without_a_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state(), tmp_path / "m.bin")
    checked: list[Path] = []
    monkeypatch.setattr(tensor_files, "verify_crcs", checked.append)
    open_weights(tmp_path / "m.bin", {"m.bin"})["a"].load()
    assert checked == []
    open_weights(tmp_path / "m.bin", {"other.bin"})["a"].load()
    assert checked == [tmp_path / "m.bin"]


def test_a_verified_model_directory_is_not_read_for_its_crcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    write_sums(tmp_path, {name: sha256_of(tmp_path / name) for name in ("pytorch_model.bin", "config.json")})
    checked: list[Path] = []
    monkeypatch.setattr(tensor_files, "verify_crcs", checked.append)
    assert open_model_files(tmp_path) is not None
    assert checked == []
    assert open_model_files(tmp_path, verify=False) is not None
    assert checked == [tmp_path / "pytorch_model.bin"]

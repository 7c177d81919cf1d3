"""Damage to files at places that hypothesis chooses: a reader accepts the file, or raises an error that names it.

A change that a checksum covers must be refused; where no checksum covers it, it must at least raise nothing else.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.checkpointing.format import read_metadata, with_checksum
from pretrain.data.corpus import open_corpus
from pretrain.data.indexed_dataset import IndexedDatasetWriter
from pretrain.data.verification import verify_corpus
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ProteinLMError
from tape.finetuning.resume import complete_options
from tape.finetuning.run_directory import RunDirectory, read_history
from tape.inference.embedding_journal import EmbeddingJournal, journal_file, read_places
from tape.io.checksums import read_sums
from tape.io.npz_files import read_npz
from tape.io.run_layout import resolve_model_directory
from tape.models.model_directory import load_weights_only
from tape.models.modeling_bert import ProteinBertModel
from tape.tokenizers import TAPETokenizer

EXTREME = [0, 1, -1, 2**31 - 1, -(2**31), 2**53, 2**62, 2**63 - 1, -(2**63)]
VALUES: list[Any] = [None, True, -1, 1.5, 1e308, 10**30, "", "x", "a" * 5000, "\0", "../x", [], {}, [[1]], {"a": 1}]
JOURNAL = {"model_sha256": "x", "proteins": 3}

# the same examples in every run; a file is small enough that they reach most of it
chosen = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with a bit flipped, a number replaced, a piece cut out, repeated or inserted, or the end cut off."""
    place = draw(st.integers(0, len(content) - 1))
    size = draw(st.sampled_from([1, 4, 8, 64, 512]))
    before, piece, after = content[:place], content[place : place + size], content[place + size :]
    return draw(
        st.sampled_from(
            [
                before + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :],
                before + struct.pack("<q", draw(st.sampled_from(EXTREME))) + content[place + 8 :],
                before + after,
                before + piece + piece + after,
                before + draw(st.binary(max_size=16)) + content[place:],
                before,
            ]
        )
    )


@st.composite
def edited(draw: st.DrawFn, values: dict[str, Any]) -> bytes:
    """JSON text of the object with one value, at any depth, replaced, removed or renamed."""
    copy = json.loads(json.dumps(values))
    parent: Any = copy
    while True:
        key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
        inner = parent[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        parent = inner
    action = draw(st.sampled_from(["replace", "remove", "rename"]))
    if action == "replace" or isinstance(parent, list):
        parent[key] = draw(st.sampled_from(VALUES))
    else:
        inner = parent.pop(key)
        if action == "rename":
            parent[draw(st.sampled_from(["", "__class__", "to_dict", f"{key}2"]))] = inner
    return json.dumps(copy).encode()


def accepts_or_names(path: Path, content: bytes, read: Callable[[], object]) -> bool:
    """Whether a reader accepts the changed file; anything but an error that names it fails the test."""
    path.write_bytes(content)
    try:
        read()
    except ProteinLMError as error:
        named = str(path) in str(error) or str(path.parent) in str(error)
        if not named:
            pytest.fail(f"the error does not name {path}: {error}")
        return False
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of whole files."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    config = ProteinBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = ProteinBertModel(config)
    model.save_pretrained(folder)
    torch.save({"optimizer": {"step": 3, "exp_avg": torch.randn(200)}, "epoch": 1}, folder / "checkpoint.bin")
    for layout in ("mmap", "lazy"):
        with IndexedDatasetWriter(folder / layout, 30, layout) as writer:
            rng = np.random.default_rng(0)
            for size in (7, 12, 30):
                writer.add(rng.integers(5, 30, size), [size], [1])
            writer.describe(
                {
                    "format": "proteinlm-corpus",
                    "version": 1,
                    "documents": 3,
                    "tokens": 49,
                    "tokenizer": "iupac",
                    "vocabulary_fingerprint": TAPETokenizer().fingerprint,
                    "sources": [],
                    "substitutions": {},
                    "filtered": {},
                }
            )
    np.savez(folder / "x.npz", primary=np.array("MKVLA"), tertiary=np.zeros((5, 3), "f4"), msa=np.ones((2, 5), "u1"))
    with EmbeddingJournal(journal_file(folder / "e.npz"), JOURNAL) as journal:
        journal.append((index, (np.full((2, 4), index, "f4"), np.full(3, index, "f4"))) for index in range(3))
    return folder


@pytest.fixture
def folder(tmp_path: Path, whole: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "files"))


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "model.safetensors"])
@chosen
@given(data=st.data())
def test_every_change_of_a_model_directory_is_refused(
    folder: Path, whole: Path, name: str, data: st.DataObject
) -> None:
    content = data.draw(damaged((whole / name).read_bytes()))
    accepted = accepts_or_names(folder / name, content, lambda: ProteinBertModel.from_pretrained(folder))
    assert accepted == (content == (whole / name).read_bytes())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "SHA256SUMS"])
@chosen
@given(data=st.data())
def test_a_damaged_model_directory_without_sums_raises_nothing_else(
    folder: Path, whole: Path, name: str, data: st.DataObject
) -> None:
    values = st.just((whole / name).read_bytes()).flatmap(damaged)
    if name == "config.json":
        values = values | edited(json.loads((whole / name).read_bytes()))
    if name != "SHA256SUMS":
        (folder / "SHA256SUMS").unlink(missing_ok=True)
    accepts_or_names(folder / name, data.draw(values), lambda: ProteinBertModel.from_pretrained(folder))


@chosen
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_training_state_is_refused_or_changes_nothing(
    folder: Path, whole: Path, share: float, bit: int
) -> None:
    content = bytearray((whole / "checkpoint.bin").read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    path = folder / "checkpoint.bin"
    if accepts_or_names(path, bytes(content), lambda: load_weights_only(path)):
        read = load_weights_only(path)
        path.write_bytes((whole / "checkpoint.bin").read_bytes())
        expected = load_weights_only(path)
        assert torch.equal(read["optimizer"]["exp_avg"], expected["optimizer"]["exp_avg"])


@pytest.mark.parametrize("layout", ["mmap", "lazy"])
@pytest.mark.parametrize("suffix", [".bin", ".idx"])
@chosen
@given(data=st.data())
def test_every_change_of_a_corpus_is_refused(
    folder: Path, whole: Path, layout: str, suffix: str, data: st.DataObject
) -> None:
    name = layout + suffix
    content = data.draw(damaged((whole / name).read_bytes()))
    accepted = accepts_or_names(folder / name, content, lambda: verify_corpus(str(folder / layout)))
    assert accepted == (content == (whole / name).read_bytes())
    accepts_or_names(folder / name, content, lambda: read_corpus(folder / layout))


def read_corpus(prefix: Path) -> list[np.ndarray]:
    corpus = open_corpus(prefix, TAPETokenizer())
    residues = [corpus.residues(number) for number in range(len(corpus))]
    assert sum(map(len, residues)) == corpus.dataset.tokens
    return residues


@chosen
@given(data=st.data())
def test_a_damaged_sidecar_raises_nothing_else(folder: Path, whole: Path, data: st.DataObject) -> None:
    content = data.draw(
        damaged((whole / "mmap.json").read_bytes()) | edited(json.loads((whole / "mmap.json").read_bytes()))
    )
    accepts_or_names(folder / "mmap.json", content, lambda: read_corpus(folder / "mmap"))
    accepts_or_names(folder / "mmap.json", content, lambda: verify_corpus(str(folder / "mmap")))


@chosen
@given(data=st.data())
def test_a_damaged_npz_file_raises_nothing_else(folder: Path, whole: Path, data: st.DataObject) -> None:
    accepts_or_names(
        folder / "x.npz", data.draw(damaged((whole / "x.npz").read_bytes())), lambda: read_npz(folder / "x.npz")
    )


@chosen
@given(data=st.data())
def test_the_records_before_the_damage_of_a_journal_are_read(folder: Path, whole: Path, data: st.DataObject) -> None:
    path, places = folder / "e.npz.partial", {}
    content = data.draw(damaged((whole / path.name).read_bytes()))
    if accepts_or_names(path, content, lambda: places.update(read_places(folder / "e.npz", JOURNAL))):
        for index, place in places.items():
            states, pooled = place.read()
            assert (states == index).all()
            assert (pooled == index).all()


METADATA: dict[str, Any] = {
    "format": "proteinlm-sharded",
    "version": 1,
    "iteration": 3,
    "model_config": {"hidden_size": 8},
    "arguments": {"lr": 1e-3},
    "vocabulary": ["A", "C"],
    "vocabulary_fingerprint": "ab",
    "files": {".metadata": {"bytes": 3, "sha256": "0" * 64}},
}


@chosen
@given(content=edited(METADATA))
def test_edited_metadata_of_a_checkpoint_raise_nothing_else(tmp_path: Path, content: bytes) -> None:
    accepts_or_names(tmp_path / "metadata.json", content, lambda: read_metadata(tmp_path))


@chosen
@given(data=st.data())
def test_edited_metadata_with_their_checksum_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    sealed = with_checksum(METADATA)
    content = data.draw(edited({**METADATA}))
    (tmp_path / "metadata.json").write_text(json.dumps({**json.loads(content), "sha256": sealed["sha256"]}))
    if json.loads(content) != METADATA:
        with pytest.raises(CheckpointError, match=r"metadata\.json"):
            read_metadata(tmp_path)


ARGUMENTS: dict[str, Any] = {
    "model_type": "transformer",
    "task": "stability",
    "seed": 1,
    "learning_rate": 1e-4,
    "eval_splits": ["test"],
    "given_options": ["seed"],
    "config": {"hidden_size": 8},
    "save_freq": 1,
}


@chosen
@given(content=edited(ARGUMENTS))
def test_edited_arguments_of_a_run_raise_nothing_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1").mkdir(exist_ok=True)
    options = {"from_pretrained": str(tmp_path / "1"), "config": [], "given_options": [], **ARGUMENTS}
    options["config"] = []
    accepts_or_names(tmp_path / "args.json", content, lambda: complete_options(options, []))


@chosen
@given(content=edited(ARGUMENTS))
def test_edited_arguments_of_a_run_of_proteinlm_raise_nothing_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1").mkdir(exist_ok=True)
    for name in ("config.json", "pytorch_model.bin", "checkpoint.bin"):
        (tmp_path / "1" / name).write_text("{}")
    options = {"from_pretrained": str(tmp_path), **ARGUMENTS, "config": [], "given_options": []}
    accepts_or_names(tmp_path / "args.json", content, lambda: complete_options(options, []))


@chosen
@given(
    record=edited({"epoch": 1, "valid": {"loss": 0.5}}), pointer=edited({"epoch": 1, "directory": "1", "value": None})
)
def test_edited_history_and_pointers_raise_nothing_else(tmp_path: Path, record: bytes, pointer: bytes) -> None:
    run = RunDirectory(tmp_path)
    run.epoch_directory(1).mkdir(exist_ok=True)
    accepts_or_names(tmp_path / "metrics.jsonl", b'{"epoch": 0}\n' + record, lambda: read_history(tmp_path))
    accepts_or_names(tmp_path / "best.json", pointer, lambda: resolve_model_directory(tmp_path))


@chosen
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_sums_of_any_content_raise_nothing_else(tmp_path: Path, content: bytes) -> None:
    accepts_or_names(tmp_path / "SHA256SUMS", content, lambda: read_sums(tmp_path))

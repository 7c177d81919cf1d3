"""Checkpoints: complete or absent, verified when they are loaded, only into the same model and vocabulary."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain import checkpointing
from pretrain.checkpointing import (
    RunDescription,
    RunState,
    find_checkpoint,
    load_checkpoint,
    load_full_checkpoint,
    read_metadata,
    save_checkpoint,
)
from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.tokenizers import TAPETokenizer

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)
DESCRIPTION = RunDescription(CONFIG.to_dict(), {"seed": 1}, TAPETokenizer().tokens, TAPETokenizer().fingerprint)
STATE = RunState(100, 800, 12345, 2, {"value": 1.0})


def optimizer_state(value: float) -> dict[str, Tensor]:
    return {"x.exp_avg": torch.full((3, 4), value), "x.step": torch.tensor(value)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = build_model(CONFIG, InitConfig(seed=1), ALONE)
    return save_checkpoint(tmp_path / "run", model, optimizer_state(7.0), STATE, DESCRIPTION, ALONE)


def load(path: Path, description: RunDescription = DESCRIPTION) -> tuple[RunState, ProteinBertForMaskedLM, dict]:
    model, state = build_model(CONFIG, InitConfig(seed=2), ALONE), optimizer_state(0.0)
    return load_checkpoint(path, model, state, description, ALONE), model, state


def test_loading_restores_weights_optimizer_and_run_state(saved: Path) -> None:
    state, model, optimizer = load(saved)
    assert state == STATE
    expected = build_model(CONFIG, InitConfig(seed=1), ALONE).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert float(optimizer["x.step"]) == 7.0
    assert (optimizer["x.exp_avg"] == 7.0).all()


def test_files_and_metadata_of_a_checkpoint(saved: Path) -> None:
    assert saved.name == "iter_0000100"
    assert (saved.parent / "latest_checkpointed_iteration.txt").read_text().strip() == "100"
    metadata = read_metadata(saved)
    assert (metadata["format"], metadata["version"], metadata["iteration"]) == ("proteinlm-sharded", 1, 100)
    assert metadata["consumed_samples"] == 800
    assert metadata["layout"] == {"tensor": 1, "data": 1, "pipeline": 1}
    assert metadata["vocabulary"] == TAPETokenizer().tokens
    assert set(metadata["files"]) == {".metadata", "__0_0.distcp"}
    assert all({"bytes", "sha256"} == entry.keys() for entry in metadata["files"].values())
    assert sorted(path.name for path in saved.parent.iterdir()) == ["iter_0000100", "latest_checkpointed_iteration.txt"]


def test_a_checkpoint_is_gathered_for_the_converter(saved: Path) -> None:
    for directory in (saved, saved.parent):
        full = load_full_checkpoint(directory)
        model = ProteinBertForMaskedLM(ProteinBertConfig.from_dict(full.model_config))
        model.load_state_dict(full.model)
        assert (full.iteration, full.path, full.arguments) == (100, saved, {"seed": 1})
        assert full.vocabulary == TAPETokenizer().tokens
        assert all(type(value) is Tensor and value.device.type == "cpu" for value in full.model.values())


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_files_are_detected_and_named(saved: Path, name: str, damage: str) -> None:
    file = saved / name
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:-1])
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    word = {"truncated": "truncated", "changed": "damaged", "missing": "missing"}[damage]
    for read in (load, load_full_checkpoint):
        with pytest.raises(CheckpointError, match=f"{name}: {word}"):
            read(saved)


def test_an_index_with_other_classes_is_not_unpickled(saved: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "broken-in"),)

    (saved / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError, match=r"\.metadata: refused or damaged: it refers to .*mkdir"):
        load_full_checkpoint(saved, verify=False)
    assert not (tmp_path / "broken-in").exists()


def test_a_directory_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        load_full_checkpoint(tmp_path)


def test_a_pointer_to_a_missing_checkpoint_is_an_error(saved: Path) -> None:
    pointer = saved.parent / "latest_checkpointed_iteration.txt"
    pointer.write_text("300\n")
    with pytest.raises(CheckpointError, match="iter_0000300: no checkpoint"):
        find_checkpoint(saved.parent)
    assert find_checkpoint(saved.parent, 100) == saved
    pointer.write_text("")
    with pytest.raises(CheckpointError, match="number of an iteration"):
        find_checkpoint(saved.parent)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other"}', '{"format": "proteinlm-sharded", "version": 9}'])
def test_bad_metadata_is_refused(saved: Path, content: str) -> None:
    (saved / "metadata.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"metadata\.json"):
        read_metadata(saved)


def edit_metadata(saved: Path, **changes: Any) -> None:
    """Change fields of metadata.json, without the checksum, as checkpoints of earlier versions are."""
    values = json.loads((saved / "metadata.json").read_text())
    del values["sha256"]
    (saved / "metadata.json").write_text(json.dumps({**values, **changes}))


def test_a_changed_number_in_the_metadata_is_found_by_its_checksum(saved: Path) -> None:
    text = (saved / "metadata.json").read_text()
    assert '"iteration": 100' in text
    (saved / "metadata.json").write_text(text.replace('"iteration": 100', '"iteration": 102'))
    with pytest.raises(CheckpointError, match=r"metadata\.json: damaged, its content is not what was written"):
        read_metadata(saved)


def test_metadata_of_earlier_versions_have_no_checksum(saved: Path) -> None:
    edit_metadata(saved)
    assert read_metadata(saved)["iteration"] == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"iteration": "100"},
        {"files": []},
        {"files": {".metadata": None}},
        {"files": {".metadata": {"bytes": 3}}},
        {"files": {".metadata": {"bytes": 3, "sha256": ""}, "../x": {"bytes": 3, "sha256": ""}}},
        {"files": {}},
        {"vocabulary_fingerprint": None},
        {"model_config": [1]},
        {"vocabulary": ["<pad>", {}]},
        {"samples": []},
        {"samples": {"corpora": "one"}},
        {"samples": {"corpora": [1]}},
    ],
)
def test_fields_of_another_type_are_named(saved: Path, changes: dict[str, Any]) -> None:
    edit_metadata(saved, **changes)
    with pytest.raises(CheckpointError, match=r"metadata\.json: damaged, "):
        read_metadata(saved)


def test_progress_of_another_type_is_named(saved: Path) -> None:
    edit_metadata(saved, consumed_samples="many")
    with pytest.raises(CheckpointError, match="iter_0000100: consumed_samples must be of type int, not 'many'"):
        load(saved)


@pytest.mark.parametrize("value", ["1", None, [], True, float("nan"), pytest.param(10**400, id="10^400")])
def test_a_loss_scale_that_is_no_number_is_named(saved: Path, value: Any) -> None:
    edit_metadata(saved, loss_scale={"value": value, "good_steps": 0, "forgiven": 2})
    with pytest.raises(CheckpointError, match="iter_0000100: value of loss_scale must be a finite number"):
        load(saved)


def test_a_damaged_model_configuration_is_named(saved: Path) -> None:
    edit_metadata(saved, model_config={"hidden_size": 1 << 62})
    with pytest.raises(CheckpointError, match="iter_0000100: its model_config is damaged: hidden_size must be"):
        load(saved)


def test_another_model_is_refused(saved: Path) -> None:
    other = replace(DESCRIPTION, model_config={**CONFIG.to_dict(), "num_hidden_layers": 4})
    with pytest.raises(CheckpointError, match="num_hidden_layers is 2 in the checkpoint, 4 in this run"):
        load(saved, other)
    with pytest.raises(CheckpointError, match="another vocabulary"):
        load(saved, replace(DESCRIPTION, vocabulary_fingerprint="0" * 16))


def test_a_checkpoint_loads_with_another_dropout(saved: Path) -> None:
    load(saved, replace(DESCRIPTION, model_config={**CONFIG.to_dict(), "hidden_dropout_prob": 0.5}))


def test_another_optimizer_is_refused(saved: Path) -> None:
    model = build_model(CONFIG, InitConfig(), ALONE)
    with pytest.raises(CheckpointError, match="momentum_buffer"):
        load_checkpoint(saved, model, {"x.momentum_buffer": torch.zeros(3)}, DESCRIPTION, ALONE)


def test_a_failed_save_keeps_the_last_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(CONFIG, InitConfig(seed=3), ALONE)

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing.saving, "write_json", full_disk)
    with pytest.raises(CheckpointError, match="iter_0000200: not saved: No space left"):
        save_checkpoint(saved.parent, model, {}, replace(STATE, iteration=200), DESCRIPTION, ALONE)
    assert find_checkpoint(saved.parent) == saved
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name, "latest_checkpointed_iteration.txt"]


def test_leftovers_of_a_killed_save_are_removed(saved: Path) -> None:
    abandoned = saved.parent / ".iter_0000200.abcdefgh.tmp"
    abandoned.mkdir()
    model = build_model(CONFIG, InitConfig(seed=3), ALONE)
    again = save_checkpoint(saved.parent, model, {}, STATE, DESCRIPTION, ALONE)  # the same iteration, replaced
    assert again == saved
    assert not abandoned.exists()
    assert json.loads((saved / "metadata.json").read_text())["iteration"] == 100


def test_the_checkpoint_of_a_run_loads_into_a_model(
    tmp_path: Path, flags: Callable[..., list[str]], pretrain_here: Callable[[list[str]], None]
) -> None:
    pretrain_here(flags("--save", tmp_path, train_iters=2))
    full = load_full_checkpoint(tmp_path)
    assert full.arguments["train_iters"] == 2
    ProteinBertForMaskedLM(ProteinBertConfig.from_dict(full.model_config)).load_state_dict(full.model)


def test_a_file_is_not_a_checkpoint_directory(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.touch()
    with pytest.raises(CheckpointError, match="a file, not a directory"):
        find_checkpoint(file)

"""Checksums of model directories: written with them, verified on loading."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.models.lazy_tensors import safetensors_metadata
from tape.models.model_directory import load_state_dict, load_weights_only, save_model_directory
from tape.models.modeling_bert import ProteinBertModel

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@pytest.fixture
def model() -> ProteinBertModel:
    torch.manual_seed(0)
    return ProteinBertModel(
        ProteinBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_sums_are_those_of_the_files(model: ProteinBertModel, tmp_path: Path, weights: str) -> None:
    model.save_pretrained(tmp_path, weights=weights, provenance={"kind": "test"})
    names = {line.split("  ")[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert names == {"config.json", "provenance.json", "vocabulary.json", weights}
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", *WEIGHTS])
def test_a_flipped_bit_anywhere_is_refused(model: ProteinBertModel, tmp_path: Path, name: str) -> None:
    model.save_pretrained(tmp_path, weights=name if name in WEIGHTS else WEIGHTS[0])
    for place in (10, (tmp_path / name).stat().st_size // 2):
        flip(tmp_path / name, place)
        with pytest.raises(CheckpointError) as caught:
            ProteinBertModel.from_pretrained(tmp_path)
        assert str(tmp_path / name) in str(caught.value)
        flip(tmp_path / name, place)
    ProteinBertModel.from_pretrained(tmp_path)


def test_without_verification_a_changed_file_is_loaded(model: ProteinBertModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.5}))
    with pytest.raises(CheckpointError, match=r"config\.json: damaged, or changed .* verify=False"):
        ProteinBertModel.from_pretrained(tmp_path)
    loaded = ProteinBertModel.from_pretrained(tmp_path, verify=False)
    assert loaded.config.hidden_dropout_prob == 0.5


def test_saving_again_replaces_the_sums(model: ProteinBertModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, provenance={"kind": "first"})
    model.config.hidden_dropout_prob = 0.25
    model.save_pretrained(tmp_path)
    assert ProteinBertModel.from_pretrained(tmp_path).config.hidden_dropout_prob == 0.25


def test_a_configuration_saved_by_its_class_renews_its_sum(model: ProteinBertModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = ProteinBertConfig.from_pretrained(tmp_path, hidden_dropout_prob=0.5)
    config.save_pretrained(tmp_path)
    assert ProteinBertModel.from_pretrained(tmp_path).config.hidden_dropout_prob == 0.5


def test_a_directory_without_sums_loads_silently(
    model: ProteinBertModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    ProteinBertModel.from_pretrained(tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_weights_beside_the_listed_ones_are_announced(
    model: ProteinBertModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "other.bin")
    load_state_dict(tmp_path / "other.bin")
    assert "does not list other.bin, so nothing verifies it" in caplog.text


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_damage_in_a_zip_file_is_found_by_its_crc(tmp_path: Path, place: float) -> None:
    """There are no other sums of checkpoint.bin, and of the weights of TAPE's directories."""
    path = tmp_path / "checkpoint.bin"
    torch.save({"optimizer": torch.zeros(5000)}, path)
    flip(path, int(place * path.stat().st_size))
    with pytest.raises(CheckpointError, match=r"checkpoint\.bin: damaged: record .* does not pass its check"):
        load_weights_only(path)
    load_weights_only(path, verify=False)


def test_the_older_format_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "old.bin"
    torch.save({"x": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    with caplog.at_level(logging.INFO):
        load_weights_only(path)
    assert f"{path}: in PyTorch's format before version 1.6, which has no checksums" in caplog.text


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_interrupted_replacement_leaves_no_sums_of_the_old_model(
    model: ProteinBertModel, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path, weights=weights)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tape.models.model_directory._write_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model_directory(tmp_path, model.state_dict(), model.config, weights=weights)
    assert not (tmp_path / "SHA256SUMS").exists()


def test_sizes_that_contradict_the_weights_are_found_before_memory_is_allocated(
    model: ProteinBertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    model.config.intermediate_size = 1 << 24
    model.config.save_pretrained(tmp_path)
    built: list[torch.device] = []
    original = ProteinBertModel.__init__

    def recorded(self: ProteinBertModel, config: Any) -> None:
        built.append(torch.get_default_device())
        original(self, config)

    monkeypatch.setattr(ProteinBertModel, "__init__", recorded)
    with pytest.raises(CheckpointError, match=r"the model has \(16777216, 16\)"):
        ProteinBertModel.from_pretrained(tmp_path)
    assert built == [torch.device("meta")]


def test_weights_with_a_sha256_are_not_read_for_their_crcs_again(
    model: ProteinBertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path, weights="pytorch_model.bin")
    checked: list[Path] = []
    monkeypatch.setattr("tape.models.model_directory.verify_crcs", checked.append)
    load_state_dict(tmp_path)
    assert checked == []
    (tmp_path / "SHA256SUMS").unlink()
    load_state_dict(tmp_path)
    assert checked == [tmp_path / "pytorch_model.bin"]


def _nemo(folder: Path) -> Path:
    (folder / "bert.nemo").write_bytes(b"")
    return folder / "bert.nemo"


def _deepspeed(folder: Path) -> Path:
    (folder / "mp_rank_00_model_states.pt").write_bytes(b"")
    return folder


def _fairseq_index(folder: Path) -> Path:
    (folder / "train.idx").write_bytes(b"MMIDIDX\x00\x00")
    return folder / "train.idx"


def _pretraining(folder: Path) -> Path:
    (folder / "iter_0000002").mkdir()
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_nemo, r"bert\.nemo: a NeMo archive, not a model directory: export"),
        (_deepspeed, r"a DeepSpeed checkpoint, not a model directory: run zero_to_fp32\.py"),
        (_fairseq_index, r"train\.idx: the index of a pretraining corpus .*, not a model"),
        (_pretraining, r"no config\.json there, so not a model directory; .* proteinlm convert -src"),
    ],
)
def test_paths_without_configuration_are_named_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        ProteinBertModel.from_pretrained(make(tmp_path))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_the_prefix_of_a_wrapped_model_is_named(model: ProteinBertModel, tmp_path: Path, prefix: str) -> None:
    model.config.save_pretrained(tmp_path)
    torch.save({prefix + name: value for name, value in model.state_dict().items()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"all keys have the prefix '{prefix}' of .*removeprefix"):
        ProteinBertModel.from_pretrained(tmp_path)


# --- the settings that no weight shows --------------------------------------------------------------------------------


def change_config(directory: Path, **changes: Any) -> None:
    """Another ``config.json``, as a script that knows nothing of ``SHA256SUMS`` writes it."""
    (directory / "SHA256SUMS").unlink(missing_ok=True)
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, **changes}))


def test_the_header_of_the_weights_has_the_settings_that_no_weight_shows(
    model: ProteinBertModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    stated = json.loads(safetensors_metadata(tmp_path / "model.safetensors")["proteinlm_architecture"])
    assert stated == {
        "apply_final_ln": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "layer_norm_position": "pre",
        "mlm_hidden_act": None,
        "num_attention_heads": 2,
        "pooling": "cls",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_act", "gelu_tanh"), ("layer_norm_eps", 1e-5), ("num_attention_heads", 4), ("apply_final_ln", False)],
)
def test_a_config_that_contradicts_the_weights_is_refused(
    name: str, value: Any, model: ProteinBertModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    change_config(tmp_path, **{name: value})
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} is .*model\.safetensors was saved with"):
        ProteinBertModel.from_pretrained(tmp_path, verify=False)
    replaced = ProteinBertModel.from_pretrained(tmp_path, **{name: value})  # the user's own choice
    assert getattr(replaced.config, name) == value


def test_other_settings_may_change(model: ProteinBertModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    change_config(tmp_path, hidden_dropout_prob=0.5, num_labels=7)
    assert ProteinBertModel.from_pretrained(tmp_path).config.hidden_dropout_prob == 0.5


def test_a_damaged_statement_of_the_architecture_is_refused(model: ProteinBertModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    change_config(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(rb"{\"apply_final_ln", rb"[\"apply_final_ln"))
    with pytest.raises(CheckpointError, match=r"proteinlm_architecture in its header is not a JSON object"):
        ProteinBertModel.from_pretrained(tmp_path)

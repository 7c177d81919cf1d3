"""Models that are installed with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tape.cli.contacts import contacts_config
from tape.cli.embed import embed_config
from tape.cli.score import score_config
from tape.errors import CheckpointError, ConfigError
from tape.hub import bundled
from tape.hub.bundled import DEFAULT_MODEL, FOLDER_VARIABLE, bundled_folder, bundled_names, is_model_name
from tape.hub.cache import local_model
from tape.main import run_embed
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel
from tape.registry import registry
from tests.support.bundled_models import install_model


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without bundled models."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    return tmp_path


def test_the_folder_is_in_the_package_unless_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert bundled_folder() == Path(bundled.__file__).parents[1] / "pretrained"
    assert (bundled_folder() / "README.md").is_file()
    monkeypatch.setenv(FOLDER_VARIABLE, "elsewhere")
    assert bundled_folder() == Path("elsewhere")


def test_bfloat16_weights_become_float32_parameters_without_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = install_model(tmp_path, monkeypatch).state_dict()
    model = ProteinBertForMaskedLM.from_pretrained(DEFAULT_MODEL)
    assert not model.training
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32, name
        assert torch.equal(value, expected[name]), name


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch)
    file = tmp_path / DEFAULT_MODEL / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged, or changed"):
        ProteinBertModel.from_pretrained(DEFAULT_MODEL)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "SHA256SUMS"])
def test_an_incomplete_model_is_refused(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch)
    (tmp_path / DEFAULT_MODEL / missing).unlink()
    with pytest.raises(CheckpointError, match=f"{DEFAULT_MODEL}: has no {missing}; install the package again"):
        local_model(DEFAULT_MODEL)


def test_the_name_has_precedence_over_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_model(tmp_path / "installed", monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT_MODEL).mkdir()
    assert local_model(DEFAULT_MODEL) == tmp_path / "installed" / DEFAULT_MODEL
    assert f"for the local directory of this name, write ./{DEFAULT_MODEL}" in caplog.text
    caplog.clear()
    assert local_model(f"./{DEFAULT_MODEL}") == Path(DEFAULT_MODEL)
    assert caplog.text == ""


def test_files_and_hidden_folders_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch, "b-model")
    install_model(tmp_path, monkeypatch, "a.model")
    (tmp_path / "README.md").touch()
    (tmp_path / ".a.model.tmp").mkdir()
    assert bundled_names() == ("a.model", "b-model")


@pytest.mark.parametrize(
    ("name", "valid"),
    [("proteinlm-mini", True), ("a", True), ("v1.5", True), ("", False), ("a/b", False), ("..", False), ("-a", False)],
)
def test_names_can_be_no_paths(name: str, valid: bool) -> None:
    assert is_model_name(name) == valid


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch)
    known = f"published bert-base, .*; bundled {DEFAULT_MODEL}"
    message = rf"proteinlm-maxi: no such model .* known by name: {known}; did you mean {DEFAULT_MODEL}\?"
    with pytest.raises(CheckpointError, match=message):
        ProteinBertModel.from_pretrained("proteinlm-maxi")
    with pytest.raises(CheckpointError, match=message):  # with an override, the configuration is read first
        registry.get_task_model("transformer", "embed", load_dir="proteinlm-maxi", output_attentions=True)


def test_a_missing_path_is_no_name(empty: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        ProteinBertModel.from_pretrained(empty / "absent")
    assert str(error.value) == f"{empty / 'absent'}: no such model directory or weights file"


def test_an_installation_without_models_names_what_to_give(empty: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{DEFAULT_MODEL}, is not installed in {empty / 'none'}; give one as"):
        embed_config(["transformer", "a.fasta", "out.npz"])
    with pytest.raises(CheckpointError, match="no bundled model in this installation"):
        ProteinBertModel.from_pretrained(DEFAULT_MODEL)


def test_every_command_has_the_bundled_model_as_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_model(tmp_path, monkeypatch)
    score = ["transformer", "variants.csv", "out.csv", "--wild_type", "MKTAY"]
    assert embed_config(["transformer", "a.fasta", "out.npz"]).model.from_pretrained == DEFAULT_MODEL
    assert score_config(score).model.from_pretrained == DEFAULT_MODEL
    contacts = contacts_config(["transformer"])
    assert contacts.model.from_pretrained == contacts.arguments["from_pretrained"] == DEFAULT_MODEL
    assert capsys.readouterr().err == f"note: no model is given; using the bundled model {DEFAULT_MODEL}\n" * 3


def test_the_default_is_a_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="the default one is a transformer, not lstm; give one as from_pretrained"):
        embed_config(["lstm", "a.fasta", "out.npz"])


def test_a_model_after_an_option_is_not_taken_for_the_default(empty: Path) -> None:
    words = ["transformer", "a.fasta", "out.npz", "--batch_size", "2", "models/out"]
    assert embed_config(words).model.from_pretrained == "models/out"


def test_a_model_in_the_place_of_the_output_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="is a directory; give the output file before the model"):
        embed_config(["transformer", "a.fasta", str(tmp_path / DEFAULT_MODEL)])


def test_embeddings_of_the_default_are_those_of_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_model(tmp_path, monkeypatch)
    (tmp_path / "one.fasta").write_text(">one\nMKTAYIAKQR\n")
    found = []
    for out, model in (("default", []), ("named", [str(tmp_path / DEFAULT_MODEL)])):
        run_embed(["transformer", str(tmp_path / "one.fasta"), str(tmp_path / f"{out}.npz"), *model, "--no_cuda"])
        with np.load(tmp_path / f"{out}.npz", allow_pickle=True) as content:
            found.append(content["one"].item()["avg"])
    np.testing.assert_array_equal(*found)


def test_an_unknown_model_type_is_no_missing_model(empty: Path) -> None:
    with pytest.raises(ConfigError, match=r"transformers.*did you mean transformer\?"):
        embed_config(["transformers", "a.fasta", "out.npz"])

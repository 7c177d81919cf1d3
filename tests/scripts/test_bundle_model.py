"""Bundling a converted model with the package."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import bundle_model
from tape.errors import CheckpointError, ConfigError, DataError
from tape.hub.bundled import FOLDER_VARIABLE, bundled_names
from tape.io.checksums import sha256_of
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel
from tests.support.bundled_models import small_language_model

PROVENANCE = {
    "written_by": "converter/megatron-converter.py",
    "source": {
        "path": "/scratch/user/run",
        "files": {"/scratch/user/run/iter_7/a.bin": {"bytes": 1}, "/scratch/user/run/iter_7/b.bin": {"bytes": 2}},
        "arguments": {"save": "/scratch/user/run", "data_path": "['/scratch/user/a', 'b/c']", "lr": 0.5},
        "read_from": ["https://host/data", "/scratch/user/corpus/"],
    },
}
CARD = "# Model card\n\n{parameters} parameters, {bytes} bytes, SHA-256 {sha256}.\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the bundled models."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "pretrained"))
    return tmp_path / "pretrained"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command line for a small model with all it needs."""
    small_language_model().save_pretrained(tmp_path / "model", provenance=PROVENANCE)
    (tmp_path / "card.md").write_text(CARD)
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1, "loss": 3.0}\n')
    files = ["--card", str(tmp_path / "card.md"), "--log", str(tmp_path / "metrics.jsonl")]
    return [str(tmp_path / "model"), "small-1", *files]


def test_the_bundled_model_is_the_source_rounded_to_bfloat16(
    words: list[str], installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle_model.main(words)
    assert bundled_names() == ("small-1",)
    loaded = ProteinBertForMaskedLM.from_pretrained("small-1").state_dict()
    for name, value in small_language_model().state_dict().items():
        assert torch.equal(loaded[name], value.bfloat16().float()), name
    assert f"wrote {installed / 'small-1'}: " in capsys.readouterr().out


def test_every_file_has_its_sum(words: list[str], installed: Path) -> None:
    bundle_model.main(words)
    folder = installed / "small-1"
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert listed >= {"config.json", "model.safetensors", "provenance.json", "README.md", "training_log.jsonl"}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_the_card_shows_the_sum_and_the_sizes(words: list[str], installed: Path) -> None:
    bundle_model.main(words)
    weights = installed / "small-1" / "model.safetensors"
    parameters = sum(parameter.numel() for parameter in small_language_model().parameters())
    shown = f"{parameters:,} parameters, {weights.stat().st_size:,} bytes, SHA-256 {sha256_of(weights)}."
    assert shown in (installed / "small-1" / "README.md").read_text()


def test_provenance_has_no_folders_of_the_machine(words: list[str], installed: Path) -> None:
    bundle_model.main(words)
    text = (installed / "small-1" / "provenance.json").read_text()
    assert "/scratch" not in text
    source = json.loads(text)["source"]
    assert source["files"] == {"iter_7/a.bin": {"bytes": 1}, "iter_7/b.bin": {"bytes": 2}}
    assert source["arguments"] == {"save": "run", "data_path": "['a', 'b/c']", "lr": 0.5}
    assert source["read_from"] == ["https://host/data", "corpus"]
    assert json.loads(text)["bundled"]["source_sha256"] == sha256_of(Path(words[0]) / "model.safetensors")


def test_a_bundled_model_is_replaced_only_with_overwrite(words: list[str], installed: Path, tmp_path: Path) -> None:
    bundle_model.main(words)
    small_language_model(seed=1).save_pretrained(tmp_path / "model", provenance=PROVENANCE)
    with pytest.raises(ConfigError, match="small-1 exists already"):
        bundle_model.main(words)
    before = ProteinBertForMaskedLM.from_pretrained("small-1").state_dict()
    bundle_model.main([*words, "--overwrite"])
    after = ProteinBertForMaskedLM.from_pretrained("small-1").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [(None, "has no provenance.json, so nothing shows"), ({"kind": "untrained"}, "was saved before any training")],
)
def test_a_model_of_unknown_or_no_training_is_refused(
    provenance: dict[str, Any] | None, message: str, words: list[str], installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "model" / "provenance.json").unlink()
    small_language_model().save_pretrained(tmp_path / "model", provenance=provenance)
    with pytest.raises(CheckpointError, match=message):
        bundle_model.main(words)
    assert bundled_names() == ()


def test_a_model_without_language_model_head_is_refused(words: list[str], installed: Path, tmp_path: Path) -> None:
    small = small_language_model()
    encoder = ProteinBertModel(small.config)
    encoder.save_pretrained(tmp_path / "model", provenance=PROVENANCE)
    with pytest.raises(CheckpointError, match="has no trained weights of the masked_language_modeling model"):
        bundle_model.main(words)


def test_a_model_that_is_too_large_leaves_nothing(
    words: list[str], installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_model, "LARGEST_WEIGHTS", 1000)
    with pytest.raises(CheckpointError, match="in bfloat16, more than the 1,000 of a bundled model"):
        bundle_model.main(words)
    assert list(installed.iterdir()) == []


@pytest.mark.parametrize("name", ["Small", "a/b", "bert-base", ""])
def test_names_that_can_not_be_bundled_are_refused(name: str, words: list[str], installed: Path) -> None:
    with pytest.raises(ConfigError, match="can't be the name of a bundled model"):
        bundle_model.main([words[0], name, *words[2:]])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("card.md", "# Model card\n", "write {sha256} in its place"),
        ("metrics.jsonl", "", "empty; give the metrics.jsonl"),
        ("metrics.jsonl", "not JSON\n", "line 1: not valid JSON"),
        ("metrics.jsonl", '{"loss": 3.0}\n' * 200_000, "give a larger --log-every"),
    ],
)
def test_a_card_or_log_that_can_not_be_used_is_refused(
    file: str, content: str, message: str, words: list[str], installed: Path, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        bundle_model.main(words)


def test_the_log_has_some_of_the_training_steps_and_all_validations(
    words: list[str], installed: Path, tmp_path: Path
) -> None:
    steps = [{"kind": "train", "iteration": number, "lm_loss": 2.5} for number in range(1, 101)]
    others = [{"kind": "start", "iteration": 0}, {"kind": "validation", "iteration": 77, "validation_loss": 2.6}]
    records = [others[0], *steps[:77], others[1], *steps[77:]]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    bundle_model.main([*words, "--log-every", "50"])
    (log,) = installed.glob("*/training_log.jsonl")
    assert [json.loads(line) for line in log.read_text().splitlines()] == [others[0], steps[49], others[1], steps[99]]


def test_a_checkpoint_must_be_converted_first(words: list[str], installed: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoints become one with proteinlm convert"):
        bundle_model.main(words)

"""Each kind of damage (of a tensor, a key, a shard, a size option) is refused with an error that names it."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from converter.convert import ConversionRequest, convert, verify_only
from converter.options import SourceOptions
from converter.verify.certificate import ParityError
from tape.errors import CheckpointError, ConfigError, ProteinLMError
from tests.converter.test_round_trips import silent
from tests.support.megatron_writer import edit, make_truth, write_megatron

WITHOUT_SUMS = shutil.ignore_patterns("SHA256SUMS", "conversion.json")  # of copies that a test changes

SCRIPT = "converter/megatron-converter.py"


@pytest.fixture(scope="module")
def mega(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_megatron(tmp_path_factory.mktemp("corruption") / "mega", make_truth(), tp=2, pp=2)


def rank(folder: Path, name: str = "mp_rank_01_001") -> Path:
    return folder / "iter_0001000" / name / "model_optim_rng.pt"


def change_a_replicated_tensor(folder: Path) -> None:
    def change(content: dict) -> None:
        content["model"]["language_model"]["transformer"]["layers.0.input_layernorm.weight"][3] += 1

    edit(rank(folder), change)


def set_a_value_to_nan(folder: Path) -> None:
    def change(content: dict) -> None:
        content["model"]["language_model"]["transformer"]["layers.0.mlp.dense_h_to_4h.bias"][0] = float("nan")

    edit(rank(folder), change)


def change_the_tied_embeddings(folder: Path) -> None:
    def change(content: dict) -> None:
        content["model"]["word_embeddings_for_head"]["weight"][7] += 1

    edit(rank(folder), change)


def rename_a_key(folder: Path) -> None:
    def change(content: dict) -> None:
        layers = content["model"]["language_model"]["transformer"]
        layers["layers.0.attention.dense.weigth"] = layers.pop("layers.0.attention.dense.weight")

    for name in ("mp_rank_00_001", "mp_rank_01_001"):
        edit(rank(folder, name), change)


def truncate_a_shard(folder: Path) -> None:
    file = rank(folder, "mp_rank_00_001")
    file.write_bytes(file.read_bytes()[:-2000])


def flip_a_bit(folder: Path) -> None:
    """Flip the lowest bit of one weight, which only the checksum detects."""
    file = rank(folder)
    layers = torch.load(file, weights_only=False)["model"]["language_model"]["transformer"]
    content = bytearray(file.read_bytes())
    content[content.index(layers["layers.0.mlp.dense_h_to_4h.weight"].numpy().tobytes()) + 400] ^= 1
    file.write_bytes(content)


def change_the_size_of_a_shard(folder: Path) -> None:
    def change(content: dict) -> None:
        layers = content["model"]["language_model"]["transformer"]
        name = "layers.0.mlp.dense_h_to_4h.weight"
        layers[name] = layers[name][:-1]

    edit(rank(folder, "mp_rank_00_000"), change)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            change_a_replicated_tensor,
            r"layers\.1\.input_layernorm\.weight: the tensor-parallel ranks have different values",
        ),
        (set_a_value_to_nan, r"layer\.1\.mlp\.dense_h_4h\.bias has values that are not finite"),
        (change_the_tied_embeddings, r"word_embeddings_for_head\.weight: rank 1 differs"),
        (rename_a_key, r"layers\.1\.attention\.dense\.weight is missing"),
        (truncate_a_shard, r"mp_rank_00_001/model_optim_rng\.pt: truncated or damaged"),
        (
            flip_a_bit,
            r"mp_rank_01_001/model_optim_rng\.pt: damaged: record '.*/data/\d+' does not pass its check \(Bad CRC-32",
        ),
        (change_the_size_of_a_shard, r"dense_h_to_4h|dense_h_4h|ffn_hidden_size"),
    ],
)
def test_a_damaged_source_is_refused(tmp_path: Path, mega: Path, damage: Callable[[Path], None], words: str) -> None:
    copy = Path(shutil.copytree(mega, tmp_path / "mega"))
    damage(copy)
    with pytest.raises(CheckpointError, match=words):
        convert(ConversionRequest(copy, tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SourceOptions(heads=2), "-heads 2 contradicts"),
        (SourceOptions(layers=3), "-layers 3 contradicts"),
        (SourceOptions(hidden_size=33), "-hidden 33 contradicts"),
        (SourceOptions(checkpoint_version=1.0), "--checkpoint-version 1.0 contradicts"),
    ],
)
def test_a_contradicting_size_option_is_refused(tmp_path: Path, mega: Path, options: SourceOptions, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        convert(ConversionRequest(mega, tmp_path / "out", options=options), silent)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, mega: Path) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("pair")
    convert(ConversionRequest(mega, out / "tape"), silent)
    return mega, out / "tape"


def test_verify_only_names_the_differing_tensor(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert verify_only(*pair, SourceOptions()).parity.passed
    copy = Path(shutil.copytree(pair[1], tmp_path / "copy", ignore=WITHOUT_SUMS))
    state = load_file(copy / "model.safetensors")
    state["bert.encoder.layer.1.attention.self.key.bias"][0] += 0.01
    save_file(state, copy / "model.safetensors")
    with pytest.raises(ParityError, match="layer 1 keys differs by 0.01"):
        verify_only(pair[0], copy, SourceOptions())
    with pytest.raises(ProteinLMError, match="layer 1 keys"):
        verify_only(copy, pair[0], SourceOptions())


def test_verify_only_refuses_a_result_whose_padding_has_probability(pair: tuple[Path, Path]) -> None:
    mega, tape = pair
    with pytest.raises(ParityError, match=r"loss over all rows differs .* rows without a token \(padding\) have prob"):
        verify_only(tape, mega, SourceOptions())


def test_integer_weights_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    copy = Path(shutil.copytree(pair[1], tmp_path / "copy", ignore=WITHOUT_SUMS))
    state = load_file(copy / "model.safetensors")
    state["bert.encoder.final_ln.weight"] = state["bert.encoder.final_ln.weight"].to(torch.int64)
    save_file(state, copy / "model.safetensors")
    words = r"copy: bert\.encoder\.final_ln\.weight has the data type torch\.int64"
    with pytest.raises(CheckpointError, match=words):
        convert(ConversionRequest(copy, tmp_path / "out"), silent)
    with pytest.raises(CheckpointError, match=words):
        verify_only(pair[0], copy, SourceOptions())


def test_verify_only_rounds_the_first_checkpoint_to_the_data_type_of_the_second(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    convert(ConversionRequest(pair[1], tmp_path / "half", dtype=torch.bfloat16), silent)
    certificate = verify_only(pair[0], tmp_path / "half", SourceOptions())
    assert certificate.parity.worst[1] < 1e-9
    assert certificate.rounding is not None


def call(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(root / SCRIPT), run_name="__main__")
    return int(stopped.value.code or 0)


def test_the_command_line_writes_and_verifies_a_parallel_layout(
    tmp_path: Path,
    pair: tuple[Path, Path],
    repository_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mega, tape = pair
    sizes = ("--tensor-model-parallel-size", 2, "--pipeline-model-parallel-size", 2)
    assert call(monkeypatch, repository_root, "-src", tape, "-out", tmp_path / "m", "--to", "megatron", *sizes) == 0
    assert call(monkeypatch, repository_root, "--verify-only", mega, tmp_path / "m") == 0
    assert '"largest_difference"' in capsys.readouterr().out
    assert call(monkeypatch, repository_root, "-src", tape, "-out", tmp_path / "t", *sizes) == 1
    assert "require --to megatron" in capsys.readouterr().err
    assert call(monkeypatch, repository_root, "--verify-only", mega, tape, "-heads", 2) == 1
    for wrong in (("-src", tape), ("--verify-only", mega, tape, "-out", "x")):
        assert call(monkeypatch, repository_root, *wrong) == 2
    approximate = ("-src", tape, "-out", tmp_path / "t", "--lm-head", "approximate")
    assert call(monkeypatch, repository_root, *approximate) == 1
    assert not (tmp_path / "t").exists()

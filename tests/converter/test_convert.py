"""Complete conversions: data types, output formats, the reference checkpoint, and errors that leave no files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import converter.mapping.transforms
from converter import output
from converter.convert import ConversionRequest, convert
from converter.options import parse_dtype
from converter.verify.certificate import ParityError
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, OutputError, run_cli
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertForValuePrediction, ProteinBertModel
from tape.runtime.out_of_memory import OutOfMemoryError
from tests.support.megatron_writer import Truth, edit, expected_state, make_truth, only_rank, write_megatron
from tests.support.small_disk import mounted_tmpfs

REPORT_KEYS = {"certificate", "date", "dropped", "dtype", "filled", "format", "lm_head", "result", "source", "versions"}


def silent(line: str) -> None:
    """Discard progress lines."""


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.fixture(scope="module")
def mega(tmp_path_factory: pytest.TempPathFactory, truth: Truth) -> Path:
    return write_megatron(tmp_path_factory.mktemp("conversion") / "mega", truth, tp=2)


def test_the_report_records_parity_source_and_file_hashes(tmp_path: Path, mega: Path) -> None:
    lines: list[str] = []
    convert(ConversionRequest(mega, tmp_path / "out"), progress=lines.append)
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert report.keys() >= REPORT_KEYS
    assert report["certificate"]["parity"]["tolerance"] == 1e-5
    assert report["certificate"]["parity"]["largest_difference"] < 1e-9
    assert report["source"]["tensor_parallel"] == 2
    files = report["result"]["files"]
    assert files.keys() == {
        "config.json",
        "model.safetensors",
        "provenance.json",
        "vocabulary.json",
    }
    assert all(len(entry["sha256"]) == 64 for entry in files.values())
    assert "Megatron" in report["certificate"]["source_computed_by"]
    assert any("largest difference" in line for line in lines)


def test_result_serves_masked_language_modeling_and_finetuning(tmp_path: Path, mega: Path, truth: Truth) -> None:
    convert(ConversionRequest(mega, tmp_path / "out"), silent)
    model, info = ProteinBertForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    words = expected_state(truth)["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, words)  # bug 5 in docs/compatibility.md
    assert torch.equal(model.mlm.decoder.weight, words)
    ProteinBertForValuePrediction.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("torch.float16", torch.float16), ("bf16", torch.bfloat16), ("float64", torch.float64), ("fp32", torch.float32)],
)
def test_data_type_is_applied_to_every_tensor(
    tmp_path: Path, mega: Path, truth: Truth, name: str, dtype: torch.dtype
) -> None:
    certificate = convert(ConversionRequest(mega, tmp_path / "out", dtype=parse_dtype(name)), silent)
    state = load_state_dict(tmp_path / "out")
    assert {value.dtype for value in state.values()} == {dtype}  # bug 23 in docs/compatibility.md
    for key, value in expected_state(truth).items():
        assert torch.equal(state[key], value.to(dtype))
    # rounding is certified separately, with looser bounds; the conversion itself stays exact
    assert certificate.parity.worst[1] < 1e-9
    if dtype in (torch.float16, torch.bfloat16):
        assert certificate.rounding is not None
        assert 0 < certificate.rounding.worst[1] <= certificate.rounding.bound
    else:
        assert certificate.rounding is None


@pytest.mark.parametrize("name", ["__import__('os').system('touch evil')", "int8", "torch.load", ""])
def test_data_type_is_looked_up_and_never_evaluated(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no known data type"):
        parse_dtype(name)  # bug 23 in docs/compatibility.md
    assert not list(tmp_path.iterdir())


def test_a_configuration_that_is_copied_over_the_result_is_refused(
    tmp_path: Path, mega: Path, repository_root: Path
) -> None:
    """As the original's generator script does after the conversion: its config.json has another GELU and epsilon."""
    convert(ConversionRequest(mega, tmp_path / "out" / "pytorch_model.bin"), silent)
    config = tmp_path / "out" / "config.json"
    config.write_text(repository_root.joinpath("converter", "config.json").read_text())
    with pytest.raises(CheckpointError, match=rf"{config}: damaged, or changed after it was written"):
        ProteinBertForMaskedLM.from_pretrained(tmp_path / "out")
    with pytest.raises(CheckpointError, match=rf"{config}: damaged, or changed after it was written"):
        convert(ConversionRequest(tmp_path / "out", tmp_path / "again"), silent)


def test_value_too_large_for_half_precision_is_named(tmp_path: Path) -> None:
    truth = make_truth()
    truth.plain["bert.encoder.final_ln.weight"][3] = 1e5
    mega = write_megatron(tmp_path / "mega", truth)
    with pytest.raises(CheckpointError, match=r"final_ln\.weight has values that are not finite"):
        convert(ConversionRequest(mega, tmp_path / "out", dtype=torch.float16), silent)
    assert not (tmp_path / "out").exists()


def test_source_without_head_gives_an_encoder(tmp_path: Path, truth: Truth) -> None:
    mega = write_megatron(tmp_path / "mega", truth, head=False)
    convert(ConversionRequest(mega, tmp_path / "out"), silent)
    model, info = ProteinBertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = expected_state(truth, head=False)
    assert {f"bert.{name}" for name in model.state_dict()} == expected.keys()
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["lm_head"] is False


def test_corruption_during_the_conversion_is_refused_and_leaves_no_files(
    tmp_path: Path, mega: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = converter.mapping.transforms.TRANSFORMS["query_key_value"]

    def swapped(
        shards: tuple[Tensor, ...], layout: converter.mapping.transforms.TransformSettings
    ) -> tuple[Tensor, ...]:
        query, key, value = right.merge(shards, layout)
        return key, query, value

    wrong = converter.mapping.transforms.Transform(swapped, right.split)
    monkeypatch.setitem(converter.mapping.transforms.TRANSFORMS, "query_key_value", wrong)
    with pytest.raises(ParityError, match=r"layer \d.* differs"):
        convert(ConversionRequest(mega, tmp_path / "a"), silent)
    with pytest.raises(ParityError):
        convert(ConversionRequest(mega, tmp_path / "b" / "pytorch_model.bin"), silent)
    (tmp_path / "c").mkdir()
    with pytest.raises(ParityError):
        convert(ConversionRequest(mega, tmp_path / "c" / "pytorch_model.bin"), silent)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert not list((tmp_path / "c").iterdir())


def test_a_contradicting_number_of_heads_is_refused(tmp_path: Path, mega: Path) -> None:
    with pytest.raises(ConfigError, match="-heads 2 contradicts"):  # bug 27 in docs/compatibility.md
        convert(
            ConversionRequest(mega, tmp_path / "out", options=replace(ConversionRequest(mega, mega).options, heads=2)),
            silent,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["layers.1.mlp.dense_4h_to_h.weight", "layers.0.input_layernorm.bias", "layers.1"])
def test_missing_key_is_named(tmp_path: Path, truth: Truth, key: str) -> None:
    def change(content: dict) -> None:
        layers = content["model"]["language_model"]["transformer"]
        for name in [name for name in layers if name.startswith(key)]:
            del layers[name]

    mega = write_megatron(tmp_path / "mega", truth)
    edit(only_rank(mega), change)
    with pytest.raises(CheckpointError, match=key if key != "layers.1" else "num_layers 2, but its tensors have 1"):
        convert(ConversionRequest(mega, tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()


# --- output formats


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "proteinlm_3b.safetensors"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_weights_file_is_written_with_its_configuration_beside_it(
    tmp_path: Path, mega: Path, truth: Truth, name: str, exists: bool
) -> None:
    folder = tmp_path / "models" / "out"
    if exists:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("kept")
    convert(ConversionRequest(mega, folder / name), silent)
    expected = {"SHA256SUMS", "config.json", "conversion.json", "provenance.json", "vocabulary.json", name}
    assert {path.name for path in folder.iterdir()} == expected | ({"notes.txt"} if exists else set())
    assert load_state_dict(folder / name).keys() == expected_state(truth).keys()


def test_earlier_conversion_is_replaced(tmp_path: Path, mega: Path) -> None:
    for out in (tmp_path / "a", tmp_path / "b" / "pytorch_model.bin"):
        convert(ConversionRequest(mega, out), silent)
        convert(ConversionRequest(mega, out, dtype=torch.float16), silent)
        state = load_state_dict(out)
        assert {value.dtype for value in state.values()} == {torch.float16}


def test_a_weights_file_is_replaced_without_a_moment_without_weights(
    tmp_path: Path, mega: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a name changes, the directory has all files of the old or of the new model."""
    out = tmp_path / "model" / "pytorch_model.bin"
    convert(ConversionRequest(mega, out), silent)
    (out.parent / "notes.txt").write_text("kept")
    seen = []

    def watched(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: Any, **options: Any) -> object:
            result = call(*arguments, **options)
            seen.append({value.dtype for value in load_state_dict(out.parent).values()})
            return result

        return wrapped

    for module, name in (
        (os, "replace"),
        (os, "unlink"),
        (os, "link"),
        (Path, "unlink"),
        (output, "replace_directory"),
    ):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    convert(ConversionRequest(mega, out, dtype=torch.float16), silent)
    monkeypatch.undo()
    assert seen[-1] == {torch.float16}
    assert all(types in ({torch.float32}, {torch.float16}) for types in seen)
    assert (out.parent / "notes.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_weights_file_is_replaced_where_directories_cannot_be_exchanged(tmp_path: Path, mega: Path) -> None:
    out = tmp_path / "model" / "pytorch_model.bin"
    convert(ConversionRequest(mega, out), silent)
    (out.parent / "plots").mkdir()
    convert(ConversionRequest(mega, out, dtype=torch.float16), silent)
    assert {value.dtype for value in load_state_dict(out.parent).values()} == {torch.float16}
    assert (out.parent / "plots").is_dir()


@pytest.mark.parametrize(
    ("there", "out"),
    [
        ("config.json", "."),
        ("pytorch_model.bin", "pytorch_model.bin"),
        ("config.json", "pytorch_model.bin"),
        ("model.safetensors", "pytorch_model.bin"),
        ("proteinlm_3b.safetensors", "pytorch_model.bin"),
    ],
)
def test_files_not_written_by_the_converter_are_not_replaced_without_a_flag(
    tmp_path: Path, mega: Path, there: str, out: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / there).write_text("precious")
    with pytest.raises(ConfigError, match=f"already contains {there}"):
        convert(ConversionRequest(mega, folder / out), silent)
    assert (folder / there).read_text() == "precious"
    convert(ConversionRequest(mega, folder / out, overwrite=True), silent)
    load_state_dict(folder)


def test_files_of_the_user_are_not_replaced_with_overwrite(tmp_path: Path, mega: Path) -> None:
    out = tmp_path / "out"
    convert(ConversionRequest(mega, out), silent)
    (out / "notes.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"out contains notes\.txt, which this command does not write"):
        convert(ConversionRequest(mega, out, overwrite=True), silent)
    assert (out / "notes.txt").read_text() == "precious"


def test_another_conversions_weights_keep_their_configuration(tmp_path: Path, mega: Path) -> None:
    convert(ConversionRequest(mega, tmp_path / "one.bin"), silent)
    with pytest.raises(ConfigError, match=r"already contains one\.bin"):
        convert(ConversionRequest(mega, tmp_path / "two.bin"), silent)


def test_source_is_never_replaced(tmp_path: Path, truth: Truth) -> None:
    mega = write_megatron(tmp_path / "mega", truth)
    for out in (tmp_path, mega):
        with pytest.raises(ConfigError, match="would replace the source"):
            convert(ConversionRequest(mega, out, overwrite=True), silent)


def test_an_output_name_with_an_unknown_suffix_is_refused(tmp_path: Path, mega: Path) -> None:
    with pytest.raises(ConfigError, match=r"ending in \.bin or \.safetensors"):
        convert(ConversionRequest(mega, tmp_path / "out.pt"), silent)


def test_a_link_as_output_is_followed(tmp_path: Path, mega: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "model")
    for _ in range(2):  # the second conversion replaces the output of the first
        convert(ConversionRequest(mega, tmp_path / "out"), silent)
        assert (tmp_path / "out").is_symlink()
        assert (tmp_path / "disk" / "model" / "model.safetensors").is_file()


# --- the reference checkpoint


def reference(folder: Path, truth: Truth, **changes: int) -> Path:
    values = {
        "hidden_size": truth.hidden,
        "num_hidden_layers": truth.layers,
        "num_attention_heads": truth.heads,
        "intermediate_size": truth.wide,
        "max_position_embeddings": truth.positions,
        "type_vocab_size": 1,
    }
    ProteinBertForMaskedLM(ProteinBertConfig(**{**values, **changes})).save_pretrained(
        folder, weights="pytorch_model.bin"
    )
    return folder / "pytorch_model.bin"


def test_matching_reference_passes(tmp_path: Path, mega: Path, truth: Truth) -> None:
    path = reference(tmp_path / "untrained", truth)
    state = load_state_dict(path) | {
        "bert.bert_tail_dense.bias": torch.zeros(truth.hidden)
    }  # the original's checkpoint has it
    torch.save(state, path)
    convert(ConversionRequest(mega, tmp_path / "out", reference=path), silent)


def test_a_bare_encoder_is_a_reference_for_an_encoder(tmp_path: Path, mega: Path, truth: Truth) -> None:
    """The state dict of an encoder has names without the prefix ``bert.``."""
    headless = write_megatron(tmp_path / "headless", truth, head=False)
    convert(ConversionRequest(headless, tmp_path / "encoder"), silent)
    assert not any(name.startswith("bert.") for name in load_state_dict(tmp_path / "encoder"))
    convert(ConversionRequest(headless, tmp_path / "out", reference=tmp_path / "encoder"), silent)
    with pytest.raises(ConfigError, match=r"-dst .*mlm\."):
        convert(ConversionRequest(mega, tmp_path / "other", reference=tmp_path / "encoder"), silent)


def test_token_types_follow_the_reference(tmp_path: Path, mega: Path, truth: Truth) -> None:
    path = reference(tmp_path / "untrained", truth, type_vocab_size=2)
    convert(ConversionRequest(mega, tmp_path / "out", reference=path), silent)
    types = load_state_dict(tmp_path / "out")["bert.embeddings.token_type_embeddings.weight"]
    assert torch.equal(types, torch.zeros(2, truth.hidden))
    assert ProteinBertConfig.from_pretrained(tmp_path / "out").type_vocab_size == 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_hidden_layers": 3}, r"layer\.2"),
        ({"num_hidden_layers": 1}, r"layer\.1"),
        ({"max_position_embeddings": 41}, "position_embeddings"),
        ({"intermediate_size": 64}, r"dense_h_4h"),
    ],
)
def test_other_reference_is_refused_by_key(tmp_path: Path, mega: Path, truth: Truth, changes: dict, key: str) -> None:
    path = reference(tmp_path / "untrained", truth, **changes)
    with pytest.raises(ConfigError, match=rf"-dst .*{key}"):
        convert(ConversionRequest(mega, tmp_path / "out", reference=path), silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_sigterm_leaves_no_temporary_files(
    tmp_path: Path, mega: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        convert(ConversionRequest(mega, tmp_path / "out"), progress=silent)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    request = ConversionRequest(mega, tmp_path / "out", overwrite=overwrite)
    monkeypatch.setattr("os.fsync", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert run_cli(lambda: convert(request, progress=silent)) == 143
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["model", "pytorch_model.bin"])
def test_a_full_disk_is_reported_with_the_final_name_of_the_file(mega: Path, name: str) -> None:
    with mounted_tmpfs("size=64k") as disk:
        with pytest.raises(OutputError, match=rf"^{disk / name}.*: can't be written: No space left on device"):
            convert(ConversionRequest(mega, disk / name), silent)
        assert not list(disk.iterdir())


def test_a_conversion_without_memory_is_one_error(mega: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr("converter.convert.write_model", fail)
    with pytest.raises(OutOfMemoryError, match="out of memory in the conversion; a smaller model or a machine with"):
        convert(ConversionRequest(mega, tmp_path / "out"), silent)
    assert not list(tmp_path.iterdir())

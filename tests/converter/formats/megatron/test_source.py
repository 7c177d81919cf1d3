"""The settings of a Megatron-LM checkpoint are derived from its tensors and arguments, and checked against options."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.formats.detection import open_source
from converter.formats.megatron.source import MegatronSource
from converter.options import SourceOptions
from tape.errors import CheckpointError, ConfigError, VocabularyMismatchError
from tests.support.megatron_writer import LETTERS, SPECIAL, Truth, edit, make_truth, only_rank, write_megatron


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, truth: Truth) -> Path:
    return write_megatron(tmp_path_factory.mktemp("source") / "mega", truth)


def bare(folder: Path, written: Path, *, keep_version: bool = False) -> Path:
    """A file with only the model dictionary, as models are often shared."""
    content = torch.load(only_rank(written), weights_only=False)
    kept: dict[str, Any] = content["model"]
    if keep_version:
        kept = {"model": kept, "checkpoint_version": content["checkpoint_version"]}
    torch.save(kept, folder / "bare.pt")
    return folder / "bare.pt"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SourceOptions(heads=8), "-heads 8 contradicts.*num_attention_heads 4"),
        (SourceOptions(hidden_size=1024), "-hidden 1024 contradicts.*hidden_size 32"),
        (SourceOptions(layers=1), "-layers 1 contradicts.*num_hidden_layers 2"),
        (SourceOptions(checkpoint_version=0), "--checkpoint-version 0 contradicts"),
        (SourceOptions(layernorm_epsilon=1e-5), "--layernorm-epsilon 1e-05 contradicts"),
        (SourceOptions(gelu="gelu_tanh"), "--gelu gelu_tanh contradicts"),
    ],
)
def test_contradicting_option_is_an_error(written: Path, options: SourceOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):  # bug 27 in docs/compatibility.md
        open_source(written, options)


def test_matching_options_are_accepted(written: Path) -> None:
    source = open_source(written, SourceOptions(hidden_size=32, heads=4, layers=2, checkpoint_version=3, gelu="gelu"))
    assert source.config.hidden_size == 32


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_layers", 3), ("hidden_size", 64), ("ffn_hidden_size", 64), ("max_position_embeddings", 41)],
)
def test_arguments_that_contradict_the_tensors_are_refused(tmp_path: Path, truth: Truth, name: str, value: int) -> None:
    folder = write_megatron(tmp_path / "mega", truth, **{name: value})
    with pytest.raises(CheckpointError, match=f"{name} {value}, but its tensors have"):
        open_source(folder, SourceOptions())


@pytest.mark.parametrize(
    ("name", "value"), [("num_attention_heads", "4"), ("num_layers", "2"), ("layernorm_epsilon", "small")]
)
def test_arguments_that_are_not_numbers_are_refused(tmp_path: Path, truth: Truth, name: str, value: str) -> None:
    folder = write_megatron(tmp_path / "mega", truth, **{name: value})
    with pytest.raises(CheckpointError, match=f"{name} '{value}'.*not a (whole )?number"):
        open_source(folder, SourceOptions())


def test_a_number_of_heads_that_does_not_divide_the_hidden_size_is_refused(tmp_path: Path, truth: Truth) -> None:
    folder = write_megatron(tmp_path / "mega", truth, num_attention_heads=5)
    with pytest.raises(ConfigError, match="5 attention heads"):
        open_source(folder, SourceOptions())


def test_bare_file_needs_heads_and_version(tmp_path: Path, written: Path) -> None:
    path = bare(tmp_path, written)
    with pytest.raises(ConfigError, match="give -heads"):
        open_source(path, SourceOptions())
    with pytest.raises(ConfigError, match="give --checkpoint-version"):
        open_source(path, SourceOptions(heads=4))
    torch.save({"model": torch.load(path)}, tmp_path / "model.pt")  # no file that Megatron-LM saves lacks arguments
    with pytest.raises(ConfigError, match="give --checkpoint-version"):
        open_source(tmp_path / "model.pt", SourceOptions(heads=4))


def test_bare_file_records_what_was_assumed(tmp_path: Path, written: Path) -> None:
    options = SourceOptions(heads=4, checkpoint_version=3, layernorm_epsilon=1e-5)
    source = open_source(bare(tmp_path, written), options)
    origin = source.provenance()["settings_from"]
    assert source.config.layer_norm_eps == 1e-5
    assert source.config.hidden_act == "gelu_tanh"
    assert origin["num_attention_heads"] == origin["checkpoint_version"] == origin["layernorm_epsilon"] == "option"
    assert origin["gelu"] == origin["hidden_dropout"] == "usual value"


USUAL = "the 31 tokens of ProteinLM's iupac_vocab.txt"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"init_method_std": 0.02}, (USUAL,)),
        ({"init_method_std": 0.02, "vocab_file": "/data/protein_tools/iupac_vocab.txt"}, (USUAL,)),
        (
            {"init_method_std": 0.02, "vocab_file": "/data/mine.txt"},
            (f"{USUAL}, although its run had the vocabulary file mine.txt",),
        ),
        ({"layernorm_epsilon": None}, ("layer_norm_eps 1e-12", "initializer_range 0.02", USUAL)),
    ],
)
def test_what_a_checkpoint_does_not_state_is_listed(
    tmp_path: Path, truth: Truth, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    folder = write_megatron(tmp_path / "mega", truth, **changes)
    assert open_source(folder, SourceOptions()).assumed == expected
    if "vocab_file" in changes:
        assert open_source(folder, SourceOptions(vocabulary=(*SPECIAL, *LETTERS))).assumed == ()


def test_the_version_of_a_file_without_arguments_is_used(tmp_path: Path, written: Path) -> None:
    source = open_source(bare(tmp_path, written, keep_version=True), SourceOptions(heads=4, gelu="gelu"))
    assert source.provenance()["checkpoint_version"] == 3.0


def test_a_training_file_without_a_version_has_version_0_or_that_of_the_option(
    tmp_path: Path, written: Path, truth: Truth
) -> None:
    """It has version 0, unless an option specifies another one."""
    old = write_megatron(tmp_path / "old", truth, version=0)
    assert open_source(old, SourceOptions()).provenance()["checkpoint_version"] == 0.0
    path = Path(shutil.copy(only_rank(written), tmp_path / "m.pt"))
    edit(path, lambda content: content.pop("checkpoint_version"))
    record = open_source(path, SourceOptions(checkpoint_version=3)).provenance()
    assert record["checkpoint_version"] == 3.0
    assert record["settings_from"]["checkpoint_version"] == "option"


def test_names_of_2021_do_not_imply_version_0(tmp_path: Path, truth: Truth) -> None:
    # bug 24 in docs/compatibility.md
    folder = write_megatron(tmp_path / "mega", truth, modern=True, version=0)
    with pytest.raises(ConfigError, match=r"mega has no checkpoint_version, .*3\.0 .*for Megatron-LM since 2021"):
        open_source(folder, SourceOptions())
    source = open_source(folder, SourceOptions(checkpoint_version=3))
    assert source.provenance()["checkpoint_version"] == 3.0


@pytest.mark.parametrize("value", [["--num-layers", "2"], "x"])
def test_arguments_that_cannot_be_read_are_refused(tmp_path: Path, written: Path, value: object) -> None:
    """They may describe another model."""
    (tmp_path / "m.pt").write_bytes(only_rank(written).read_bytes())
    edit(tmp_path / "m.pt", lambda content: content.update(args=value))
    with pytest.raises(CheckpointError, match=r"m\.pt: its args are .*save them as vars\(args\)"):
        open_source(tmp_path / "m.pt", SourceOptions(heads=4))


@pytest.mark.parametrize("version", [0.5, 4.0, -1])
def test_an_unknown_version_is_refused(tmp_path: Path, truth: Truth, version: float) -> None:
    folder = write_megatron(tmp_path / "mega", truth, version=version)
    with pytest.raises(CheckpointError, match=r"checkpoint_version .* is unknown"):
        open_source(folder, SourceOptions())


@pytest.mark.parametrize(
    ("arguments", "body", "head"),
    [
        ({"bias_gelu_fusion": True}, "gelu_tanh", "gelu"),
        ({"bias_gelu_fusion": False}, "gelu", "gelu"),
        ({"bias_gelu_fusion": False, "onnx_safe": True}, "gelu", "gelu"),
        ({"bias_gelu_fusion": False, "openai_gelu": True}, "gelu_tanh", "gelu_tanh"),
        ({"bias_gelu_fusion": True, "openai_gelu": True}, "gelu_tanh", "gelu_tanh"),
        ({"bias_gelu_fusion": None}, "gelu", "gelu"),  # an argument since September 2020
    ],
)
def test_gelu_form_follows_the_arguments(written: Path, tmp_path: Path, arguments: dict, body: str, head: str) -> None:
    # bug 28. The fused GELU is used in the blocks only; Megatron-LM's LM head has an unfused erf GELU.
    def change(content: dict) -> None:
        values = {**vars(content["args"]), **arguments}
        content["args"] = argparse.Namespace(**{name: value for name, value in values.items() if value is not None})

    (tmp_path / "m.pt").write_bytes(only_rank(written).read_bytes())
    edit(tmp_path / "m.pt", change)
    config = open_source(tmp_path / "m.pt", SourceOptions()).config
    assert config.hidden_act == body
    assert getattr(config, "mlm_hidden_act", None) or config.hidden_act == head


@pytest.mark.parametrize("name", ["openai_gelu", "bias_gelu_fusion"])
@pytest.mark.parametrize("value", ["no", 3, torch.zeros(2)])
def test_a_flag_that_is_neither_true_nor_false_is_refused(
    tmp_path: Path, truth: Truth, name: str, value: object
) -> None:
    folder = write_megatron(tmp_path / "mega", truth, **{"openai_gelu": False, name: value})
    with pytest.raises(CheckpointError, match=f"mega: its arguments have {name} .*, not True or False"):
        open_source(folder, SourceOptions())


def test_epsilon_under_its_new_name_is_used(tmp_path: Path, truth: Truth) -> None:
    """Megatron-LM renamed ``layernorm_epsilon`` in September 2023."""
    folder = write_megatron(tmp_path / "mega", truth, norm_epsilon=1e-5, layernorm_epsilon=None)
    assert open_source(folder, SourceOptions()).config.layer_norm_eps == 1e-5


@pytest.mark.parametrize("tp", [1, 2])
def test_more_embedding_rows_than_padding_explains_need_a_vocabulary_file(
    tmp_path: Path, truth: Truth, tp: int
) -> None:
    """An English BERT has 30,592 rows."""

    def change(content: dict) -> None:
        embedding = content["model"]["language_model"]["embedding"]["word_embeddings"]
        embedding["weight"] = torch.cat([embedding["weight"]] * 2)
        content["model"]["lm_head"]["bias"] = torch.cat([content["model"]["lm_head"]["bias"]] * 2)

    folder = write_megatron(tmp_path / "mega", truth, tp=tp)
    for file in folder.glob("*/mp_rank_*/model_optim_rng.pt"):
        edit(file, change)
    message = f"mega: its word embeddings have {256 * tp} rows, .* 31 tokens is padded to {128 * tp} .*--vocab-file"
    with pytest.raises(CheckpointError, match=message):
        open_source(folder, SourceOptions())
    open_source(folder, SourceOptions(vocabulary=(*SPECIAL, *LETTERS)))


def test_padding_follows_the_arguments(tmp_path: Path, truth: Truth) -> None:
    folder = write_megatron(tmp_path / "mega", truth, make_vocab_size_divisible_by=64)
    with pytest.raises(CheckpointError, match="have 128 rows, .* padded to 64"):
        open_source(folder, SourceOptions())


def test_too_few_positions_for_any_protein_are_refused(tmp_path: Path) -> None:
    folder = write_megatron(tmp_path / "mega", make_truth(positions=2))
    with pytest.raises(ConfigError, match=r"mega: has 2 positions, but <cls>, a residue and <sep> need 3"):
        open_source(folder, SourceOptions())


def test_a_vocabulary_option_that_lacks_a_letter_is_refused(written: Path) -> None:
    with pytest.raises(VocabularyMismatchError, match="lacks: Z"):
        open_source(written, SourceOptions(vocabulary=(*SPECIAL, *LETTERS[:-1])))


def test_a_file_without_positions_is_named(tmp_path: Path, written: Path) -> None:
    def change(content: dict) -> None:
        del content["model"]["language_model"]["embedding"]["position_embeddings"]

    (tmp_path / "m.pt").write_bytes(only_rank(written).read_bytes())
    edit(tmp_path / "m.pt", change)
    with pytest.raises(CheckpointError, match=r"m\.pt: .*position_embeddings\.weight is missing"):
        open_source(tmp_path / "m.pt", SourceOptions())


def test_the_source_lists_the_tensors_that_it_drops(written: Path) -> None:
    source = open_source(written, SourceOptions())
    assert isinstance(source, MegatronSource)
    record = source.provenance()
    assert record["left_behind"]["optimizer"] == "optimizer state"
    assert record["unused_tokens"] == ["[unused1]"]
    assert all(len(entry["sha256"]) == 64 for entry in record["files"].values())


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such file or directory"):
        open_source(tmp_path / "nowhere", SourceOptions())

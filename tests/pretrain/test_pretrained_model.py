"""Pretraining starts from the weights of a model in any format, at any layout, with the loss that the model has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from converter.convert import ConversionRequest, convert
from pretrain.build import build_trainer
from pretrain.checkpointing import load_full_checkpoint, read_metadata
from pretrain.config.arguments import parse_arguments
from pretrain.parallel import ParallelContext
from pretrain.pretrained_model import open_pretrained_model
from pretrain.tools.compare_layouts import SEQ_LENGTH, SyntheticRows, run_layout
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.models.model_directory import load_state_dict, save_model_directory
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.runtime.launch import Launch
from tape.tokenizers import TAPETokenizer
from tests.support.megatron_writer import expected_state, make_truth, write_megatron
from tests.support.ranks import compute

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
Records = Callable[..., list[dict[str, Any]]]
Logits = Callable[[Tensor], Tensor]  # (1, L) ids of TAPE's tokens -> (1, L, 30)

transformers = pytest.importorskip("transformers")

ROWS = 11  # that compare_layouts evaluates
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 64}
TRAINING = (
    *("--micro-batch-size", "1", "--global-batch-size", "4", "--seq-length", str(SEQ_LENGTH), "--data-path", "none"),
    *("--attention-dropout", "0", "--hidden-dropout", "0", "--optimizer", "sgd", "--lr", "0.01"),
)
LAYOUTS = {
    "tensor parallel": ("--tensor-model-parallel-size", "2"),
    "sequence parallel": ("--tensor-model-parallel-size", "2", "--sequence-parallel"),
    "pipeline": ("--pipeline-model-parallel-size", "2"),
    "data parallel": (),
    "sharded": ("--data-parallel-sharding",),
}


@torch.no_grad()
def loss_of(logits: Logits) -> float:
    """The masked-LM loss on the rows of compare_layouts, protein by protein."""
    rows, total, predicted = SyntheticRows(seed=2), 0.0, 0
    for row in (rows[number] for number in range(ROWS)):
        start = 0
        for length in row.lengths:
            ids, labels = (torch.tensor(part[start : start + length]) for part in (row.input_ids, row.labels))
            total += float(F.cross_entropy(logits(ids[None])[0], labels, ignore_index=-1, reduction="sum"))
            predicted += int((labels != -1).sum())
            start += length
    return total / predicted


def tape_loss(state: dict[str, Tensor], **values: Any) -> float:
    model = ProteinBertForMaskedLM(ProteinBertConfig(**{"intermediate_size": 128, "type_vocab_size": 1, **values}))
    model.load_state_dict(state)
    model.eval()
    return loss_of(lambda ids: model(ids)[0])


def megatron(folder: Path) -> tuple[Path, float]:
    truth = make_truth(layers=4, positions=64)
    loss = tape_loss(expected_state(truth), hidden_act="gelu", layer_norm_eps=1e-12, **SIZES)
    return write_megatron(folder / "megatron", truth, tp=2), loss


def tape(folder: Path) -> tuple[Path, float]:
    values = {**SIZES, "intermediate_size": 128, "type_vocab_size": 1, "hidden_act": "gelu_tanh"}
    config = ProteinBertConfig(**values, mlm_hidden_act="gelu", layer_norm_eps=1e-3)
    save_model_directory(folder / "tape", expected_state(make_truth(2, layers=4, positions=64)), config)
    model = ProteinBertForMaskedLM.from_pretrained(folder / "tape").eval()
    return folder / "tape", loss_of(lambda ids: model(ids)[0])


def huggingface(folder: Path, kind: str) -> tuple[Path, float]:
    """A random model of transformers with another order of tokens, another epsilon and two token types."""
    torch.manual_seed(1)
    config = {**SIZES, "intermediate_size": 128, "vocab_size": 30, "layer_norm_eps": 1e-3, "initializer_range": 0.3}
    model = getattr(transformers, f"{kind}ForMaskedLM")(getattr(transformers, f"{kind}Config")(**config)).eval()
    model.save_pretrained(folder / kind)
    tokens = TAPETokenizer().tokens[::-1]
    (folder / kind / "vocab.txt").write_text("\n".join(tokens))
    return folder / kind, loss_of(lambda ids: model(29 - ids).logits.flip(-1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> dict[str, tuple[Path, float]]:
    """A model in each format, and its loss."""
    folder = tmp_path_factory.mktemp("models")
    own = folder / "own"
    pretrain_here(flags("--save", own, "--save-interval", 2, "--eval-iters", 0, "--num-layers", 4, train_iters=3))
    full = load_full_checkpoint(own)
    return {
        "megatron": megatron(folder),
        "tape": tape(folder),
        "huggingface": huggingface(folder, "MegatronBert"),
        "huggingface post-layer-norm": huggingface(folder, "Bert"),
        "own": (own, tape_loss(full.model, **full.model_config)),
    }


FORMATS = ("megatron", "tape", "huggingface", "huggingface post-layer-norm", "own")


@pytest.mark.parametrize("name", FORMATS)
def test_the_run_starts_with_the_loss_of_the_model(models: dict[str, tuple[Path, float]], name: str) -> None:
    path, loss = models[name]
    started = run_layout([*TRAINING, "--load", str(path), "--finetune"], Launch(), 0)
    assert started.evaluation == pytest.approx(loss, abs=2e-6)
    assert loss > 3


CASES = (
    *(("tensor parallel", "megatron"), ("data parallel", "huggingface"), ("sequence parallel", "tape")),
    *((layout, "huggingface post-layer-norm") for layout in ("sequence parallel", "pipeline", "sharded")),
    *((layout, "own") for layout in ("pipeline", "sharded")),
)


def losses_of_layouts(rank: int, folder: str) -> list[tuple[float, float]]:
    """Loss before and after a step in each of the cases."""
    losses = []
    for number, (layout, name) in enumerate(CASES):
        flags = [*TRAINING, *LAYOUTS[layout], "--load", (Path(folder) / name).read_text(), "--finetune"]
        launches = [Launch(rank, 2, rank, f"file://{folder}/{number}.{steps}") for steps in (0, 1)]
        before, after = (run_layout(flags, launch, steps).evaluation for steps, launch in enumerate(launches))
        losses.append((before, after))
    return losses


@pytest.mark.slow
@pytest.mark.distributed
def test_all_layouts_start_with_the_loss_of_the_model_and_train_alike(
    models: dict[str, tuple[Path, float]], tmp_path: Path
) -> None:
    for name, (path, _) in models.items():
        (tmp_path / name).write_text(str(path))
    for losses in compute(losses_of_layouts, tmp_path):
        for (layout, name), (before, after) in zip(CASES, losses, strict=True):
            path, loss = models[name]
            assert before == pytest.approx(loss, abs=5e-6), (layout, name)
            alone = run_layout([*TRAINING, "--load", str(path), "--finetune"], Launch(), 1).evaluation
            assert alone < loss - 1e-4
            assert after == pytest.approx(alone, abs=2e-5), (layout, name)


def start(path: Path, *extra: object) -> list[str]:
    """Flags of a run that starts from a model, parsed alone."""
    return [*TRAINING, "--train-iters", "4", "--load", str(path), "--finetune", *map(str, extra)]


def test_settings_without_a_flag_come_from_the_model(models: dict[str, tuple[Path, float]]) -> None:
    path, _ = models["tape"]
    config = parse_arguments(start(path))
    assert config.model.layer_norm_eps == config.given["layernorm_epsilon"] == 1e-3
    assert (config.model.hidden_act, config.model.mlm_hidden_act) == ("gelu_tanh", "gelu")
    assert (config.given["num_layers"], config.given["max_position_embeddings"]) == (4, 64)
    assert config.checkpoint.load is None
    assert parse_arguments(start(path, "--no-load-optim", "--no-load-rng")).model == config.model
    assert parse_arguments(start(path, "--num-layers", 4, "--layernorm-epsilon", 1e-3)).model == config.model


def test_the_initialization_is_that_of_the_model(models: dict[str, tuple[Path, float]], tmp_path: Path) -> None:
    """Random weights of the configuration are then those that the model began with."""
    shutil.copytree(models["tape"][0], tmp_path / "half")
    (tmp_path / "half" / "SHA256SUMS").unlink()
    file = tmp_path / "half" / "config.json"
    values = {"initial_attention": "half-neighbours", "initializer_range": 0.03}
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    for words, std in (((), 0.03), (("--initial-attention", "half-neighbours", "--init-method-std", 0.04), 0.04)):
        config = parse_arguments(start(tmp_path / "half", *words))
        assert (config.model.initial_attention, config.model.initializer_range) == ("half-neighbours", std)
        assert config.init.std == std
    for other in ("neighbours", "random"):
        with pytest.raises(ConfigError, match=f"--initial-attention {other} is for new weights; those of .* half-neig"):
            parse_arguments(start(tmp_path / "half", "--initial-attention", other))


def test_a_resume_keeps_the_initialization(flags: Flags, pretrain_here: Run, tmp_path: Path) -> None:
    words = ["--save", tmp_path, "--initial-attention", "neighbours", "--init-method-std", 0.03, "--eval-iters", 0]
    pretrain_here(flags(*words, train_iters=1))
    resume = [*map(str, flags("--load", tmp_path, train_iters=2))]
    for extra in ([], ["--initial-attention", "neighbours"]):
        config = parse_arguments([*resume, *extra])
        assert (config.given["initial_attention"], config.given["init_method_std"]) == ("neighbours", 0.03)
    for other in ("half-neighbours", "random"):
        with pytest.raises(ConfigError, match=f"--initial-attention {other} contradicts the model to resume, .* neigh"):
            parse_arguments([*resume, "--initial-attention", other])


def test_the_plan_of_a_dry_run_is_that_of_the_model(models: dict[str, tuple[Path, float]]) -> None:
    path, _ = models["megatron"]
    config = parse_arguments(start(path, "--dry-run"))
    assert (config.model.num_hidden_layers, config.model.hidden_size) == (4, 32)


def test_the_weights_are_forgotten_when_the_model_has_them(models: dict[str, tuple[Path, float]]) -> None:
    """A file that can't be memory-mapped would stay in memory during the run."""
    config = parse_arguments(start(models["megatron"][0]))
    assert config.pretrained is not None
    alone = ParallelContext(config.dims, 0, torch.device("cpu"), None)
    trainer = build_trainer(config, alone)
    assert config.pretrained.state == {}
    words = expected_state(make_truth(layers=4, positions=64))["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(trainer.model.bert.embeddings.word_embeddings.weight, words)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--hidden-size", 64), "--hidden-size 64 contradicts .*/tape, which has hidden_size 32"),
        (("--ffn-hidden-size", 64), "--ffn-hidden-size 64 contradicts .*/tape, which has intermediate_size 128"),
        (("--layernorm-epsilon", 1e-5), "--layernorm-epsilon 1e-05 contradicts .*, which has layer_norm_eps 0.001"),
        (("--no-bias-gelu-fusion",), "requests hidden_act gelu, which contradicts .*/tape: it has gelu_tanh"),
        (("--max-position-embeddings", 128), "128 contradicts .* max_position_embeddings 64; --resize-positions"),
        (("--seq-length", 100), "--seq-length 100 exceeds the 64 positions of .*/tape: lower it, or give"),
        (("--initial-attention", "neighbours"), "is for new weights; those of .*/tape began with random"),
        (("--pretrained-checkpoint", "x"), "give one of them"),
    ],
)
def test_a_flag_that_contradicts_the_model_is_an_error(
    models: dict[str, tuple[Path, float]], extra: tuple[object, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_arguments(start(models["tape"][0], *extra))


@pytest.mark.parametrize("name", ["megatron", "tape", "huggingface"])
def test_a_model_without_finetune_is_named_with_it(models: dict[str, tuple[Path, float]], name: str) -> None:
    """Also if the flags of the model are left out, which would otherwise be missing."""
    words = [word for word in start(models[name][0]) if word != "--finetune"]
    with pytest.raises(CheckpointError, match="which a pretraining run can't resume from.*add --finetune"):
        parse_arguments(words)


@pytest.mark.parametrize(
    ("flags_given", "words"),
    [
        (("--finetune",), "weights in --load, which is missing"),
        (("--resize-positions",), "is for a model to start from"),
    ],
)
def test_flags_without_a_model_to_start_from_are_errors(flags: Flags, flags_given: tuple[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_arguments(flags(*flags_given))


@pytest.mark.parametrize("rows", [150, 48])
def test_positions_are_repeated_or_cut(models: dict[str, tuple[Path, float]], rows: int) -> None:
    path, loss = models["tape"]
    extra = ("--max-position-embeddings", rows, "--resize-positions")
    pretrained = parse_arguments(start(path, *extra)).pretrained
    assert pretrained is not None
    before = load_state_dict(path)["bert.embeddings.position_embeddings.weight"]
    table = pretrained.state["bert.embeddings.position_embeddings.weight"].load()
    assert torch.equal(table, torch.cat([before] * 3)[:rows])
    words = [*TRAINING, "--load", str(path), "--finetune", *map(str, extra)]
    assert run_layout(words, Launch(), 0).evaluation == pytest.approx(loss, abs=2e-6)


def test_a_model_that_cannot_be_read_is_named_with_the_converter(tmp_path: Path) -> None:
    truth = make_truth()
    mega = write_megatron(tmp_path / "mega", truth, swiglu=True)
    with pytest.raises(
        CheckpointError, match="swiglu.*--assume-neutral is an option of the converter: proteinlm convert -src"
    ):
        open_pretrained_model(mega)
    with pytest.raises(CheckpointError, match="no such file"):
        open_pretrained_model(tmp_path / "none")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    truth = make_truth()
    truth.plain["bert.encoder.final_ln.weight"][3] = float("inf")
    model = open_pretrained_model(write_megatron(tmp_path / "mega", truth))
    with pytest.raises(CheckpointError, match=r"mega: bert.encoder.final_ln.weight has values that are not finite"):
        model.state["bert.encoder.final_ln.weight"].load()


def test_converted_weights_start_with_the_loss_of_the_model(
    models: dict[str, tuple[Path, float]], tmp_path: Path, flags: Flags, pretrain_here: Run
) -> None:
    """With or without --finetune; and a run in their directory is refused."""
    path, loss = models["huggingface post-layer-norm"]
    convert(ConversionRequest(path, tmp_path / "weights", "pretraining"), lambda line: None)
    for extra in ((), ("--finetune",)):
        started = run_layout([*TRAINING, "--load", str(tmp_path / "weights"), *extra], Launch(), 0)
        assert started.evaluation == pytest.approx(loss, abs=2e-6)
    with pytest.raises(
        CheckpointError, match="--save .*weights: holds weights that were converted .*choose another --save"
    ):
        pretrain_here(small(tmp_path / "weights", flags, "--save", tmp_path / "weights"))


def small(path: Path, flags: Flags, *extra: object) -> list[str]:
    """A run on the tiny corpus that starts from a model with 64 positions and 4 layers."""
    own = ("--num-layers", 4, "--eval-iters", 0, "--log-interval", 1, *extra)
    return flags("--load", path, "--finetune", *own, train_iters=4)


def test_a_model_without_head_starts_with_a_random_one_and_a_warning(
    tmp_path: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mega = write_megatron(tmp_path / "mega", make_truth(layers=4, positions=64), head=False)
    pretrain_here(small(mega, flags))
    out = capsys.readouterr().out
    assert f"starting at iteration 0 with the weights of {mega} (megatron-classic)" in out
    assert f"{mega} does not state, and these are assumed: initializer_range 0.02; the 31 tokens" in out
    assert f"WARNING: {mega} has no language-model head: random weights instead" in out


def test_checkpoints_record_the_model_that_the_run_started_from(
    models: dict[str, tuple[Path, float]], tmp_path: Path, flags: Flags, pretrain_here: Run, records: Records
) -> None:
    """And the run can be resumed, with the settings of its model."""
    path, _ = models["tape"]
    save = tmp_path / "save"
    pretrain_here(small(path, flags, "--save", save, "--exit-interval", 2))
    first = read_metadata(save / "iter_0000002")
    assert first["initial_weights"]["path"] == str(path)
    assert (first["initial_weights"]["format"], first["iteration"]) == ("tape", 2)
    assert records(save)[0]["iteration"] == 1
    resumed = flags("--load", save, "--save", save, "--eval-iters", 0, train_iters=4)
    for flag in ("--num-layers", "--hidden-size", "--num-attention-heads", "--max-position-embeddings"):
        del resumed[resumed.index(flag) : resumed.index(flag) + 2]
    pretrain_here(resumed)
    assert read_metadata(save / "iter_0000004")["initial_weights"] == first["initial_weights"]


def test_a_run_that_would_replace_the_one_it_starts_from_is_refused(
    models: dict[str, tuple[Path, float]], flags: Flags, pretrain_here: Run
) -> None:
    path, _ = models["own"]
    with pytest.raises(CheckpointError, match=f"--save {path}: holds checkpoints of another run, up to iteration 3"):
        pretrain_here(small(path, flags, "--save", path))


def test_a_pretrained_checkpoint_is_used_until_the_run_has_its_own(
    models: dict[str, tuple[Path, float]], tmp_path: Path, flags: Flags, pretrain_here: Run, records: Records
) -> None:
    """So that one command starts a run and resumes it."""
    path, save, whole = models["tape"][0], tmp_path / "save", tmp_path / "whole"
    pretrain_here(small(path, flags, "--save", whole))
    command = flags("--save", save, "--load", save, "--pretrained-checkpoint", path, "--eval-iters", 0, train_iters=4)
    command += ["--num-layers", "4", "--exit-interval", "2"]
    pretrain_here(command)
    pretrain_here(command)
    losses = [[record["lm_loss"] for record in records(folder)] for folder in (save, whole)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4

"""Sharded checkpoints of pretraining are converted exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from converter.convert import ConversionRequest, convert
from converter.formats.detection import open_source
from converter.formats.sharded.source import ShardedSource, is_sharded
from converter.options import SourceOptions
from pretrain.checkpointing import RunDescription, RunState, save_checkpoint
from pretrain.parallel import ParallelContext, ParallelDims
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, VocabularyMismatchError
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.tokenizers import TAPETokenizer


def silent(line: str) -> None:
    """Discard progress lines."""


@dataclass(frozen=True)
class Saved:
    folder: Path
    model: ProteinBertForMaskedLM


def save(
    folder: Path, vocabulary: list[str] | None = None, iteration: int = 7, seed: int = 1, **changes: object
) -> Saved:
    """A checkpoint of a single process in which every parameter differs from its initial value."""
    values = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 40,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_tanh",
    }
    config = ProteinBertConfig(**{**values, **changes})
    torch.manual_seed(seed)
    model = ProteinBertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tokens = vocabulary or TAPETokenizer().tokens
    description = RunDescription(config.to_dict(), {"lr": 1e-4}, tokens, TAPETokenizer().fingerprint)
    alone = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
    save_checkpoint(folder, model, {}, RunState(iteration=iteration), description, alone)
    return Saved(folder, model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save(tmp_path_factory.mktemp("sharded") / "save")


def test_conversion_is_exact(tmp_path: Path, saved: Saved) -> None:
    certificate = convert(ConversionRequest(saved.folder, tmp_path / "out"), silent)
    assert certificate.parity.worst[1] < 1e-12  # the order of the additions differs
    state, expected = load_state_dict(tmp_path / "out"), saved.model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value)
    assert ProteinBertConfig.from_pretrained(tmp_path / "out") == saved.model.config
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert report["source"]["kind"] == "proteinlm-sharded"
    assert report["source"]["iteration"] == 7
    assert report["source"]["files"]


def test_the_run_may_save_another_checkpoint_during_the_conversion(tmp_path: Path) -> None:
    saved = save(tmp_path)
    source = open_source(tmp_path, SourceOptions())
    save(tmp_path, iteration=8, seed=2)
    ids = torch.from_numpy(TAPETokenizer().encode("MKTAY"))[None]
    expected = saved.model.eval().bert.embeddings(ids)[0]
    torch.testing.assert_close(source.reference_forward(None).embeddings("MKTAY").float(), expected)


def test_an_iteration_can_be_selected(tmp_path: Path, saved: Saved) -> None:
    convert(ConversionRequest(saved.folder / "iter_0000007", tmp_path / "out" / "pytorch_model.bin"), silent)
    assert (tmp_path / "out" / "pytorch_model.bin").is_file()


def test_half_precision_is_exact_against_the_rounded_model(tmp_path: Path, saved: Saved) -> None:
    certificate = convert(ConversionRequest(saved.folder, tmp_path / "out", dtype=torch.bfloat16), silent)
    assert certificate.parity.worst[1] < 1e-12  # the order of the additions differs
    assert certificate.rounding is not None
    assert certificate.rounding.worst[1] > 0


def test_another_token_order_is_mapped_by_name(tmp_path: Path) -> None:
    tokens = TAPETokenizer().tokens
    shuffled = [*tokens[:5], *reversed(tokens[5:])]
    saved = save(tmp_path / "save", shuffled)
    certificate = convert(ConversionRequest(saved.folder, tmp_path / "out"), silent)
    assert certificate.parity.worst[1] < 1e-12  # the order of the additions differs with that of the columns
    words = load_state_dict(tmp_path / "out")["bert.embeddings.word_embeddings.weight"]
    rows = saved.model.bert.embeddings.word_embeddings.weight
    assert torch.equal(words[tokens.index("A")], rows[shuffled.index("A")])


def test_an_unknown_vocabulary_is_refused(tmp_path: Path) -> None:
    saved = save(tmp_path / "save", [*TAPETokenizer().tokens[:-1], "J"])
    with pytest.raises(VocabularyMismatchError, match="lacks: Z"):
        convert(ConversionRequest(saved.folder, tmp_path / "out"), silent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SourceOptions(heads=2), "-heads 2 contradicts"),
        (SourceOptions(hidden_size=64), "-hidden 64 contradicts"),
        (SourceOptions(layers=12), "-layers 12 contradicts"),
        (SourceOptions(checkpoint_version=3), "--checkpoint-version is for Megatron"),
    ],
)
def test_contradicting_options_are_refused(tmp_path: Path, saved: Saved, options: SourceOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(ConversionRequest(saved.folder, tmp_path / "out", options=options), silent)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    saved = save(tmp_path / "save")
    (shard,) = saved.folder.glob("iter_*/*.distcp")
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"\.distcp"):
        convert(ConversionRequest(saved.folder, tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()


def test_damaged_metadata_is_named(tmp_path: Path) -> None:
    saved = save(tmp_path / "save")
    (saved.folder / "iter_0000007" / "metadata.json").write_text("{")
    assert is_sharded(saved.folder)
    with pytest.raises(CheckpointError, match=r"metadata\.json"):
        open_source(saved.folder, SourceOptions())


def test_a_checkpoint_that_was_moved_aside_is_read(tmp_path: Path) -> None:
    """A process was killed between the two renames that replace an iteration."""
    saved = save(tmp_path / "save")
    aside = saved.folder / ".iter_0000007.abcdefgh.old" / "iter_0000007"
    aside.parent.mkdir()
    (saved.folder / "iter_0000007").rename(aside)
    source = open_source(saved.folder, SourceOptions())
    assert isinstance(source, ShardedSource)
    assert source.path == aside


@pytest.mark.distributed
def test_a_tensor_parallel_run_is_verified_shard_by_shard(tmp_path: Path, repository_root: Path) -> None:
    """The shards of two ranks are gathered for the conversion; the reference forward pass reads them separately."""
    from pretrain.checkpointing import model_tensors
    from pretrain.data.preprocessing import preprocess

    (tmp_path / "p.fasta").write_text("".join(f">p{n}\nMKTAYIAKQRQISFVKSHFSRQ\n" for n in range(40)))
    prefix = preprocess([tmp_path / "p.fasta"], tmp_path / "corpus").prefix
    sizes = "--num-layers 2 --hidden-size 32 --num-attention-heads 4 --seq-length 64 --max-position-embeddings 64"
    run = "--micro-batch-size 2 --global-batch-size 2 --train-iters 1 --lr 1e-2 --split 80,20,0 --eval-iters 1"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    parallel = ["--tensor-model-parallel-size", "2", "--num-workers", "0"]
    paths = ["--data-path", str(prefix), "--save", str(tmp_path / "save")]
    command = [*launcher, "pretrain/pretrain_tape.py", *sizes.split(), *run.split(), *parallel, *paths]
    subprocess.run(command, cwd=repository_root, check=True, capture_output=True, timeout=200)
    parts = [len(entry.shards) for entry in model_tensors(tmp_path / "save" / "iter_0000001").values()]
    assert max(parts) == 2
    certificate = convert(ConversionRequest(tmp_path / "save", tmp_path / "out"), silent)
    assert certificate.parity.worst[1] < 1e-12
    assert "ranks' shards" in certificate.computed_by[0]

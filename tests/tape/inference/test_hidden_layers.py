"""``tape-embed --layers``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tape import TAPETokenizer
from tape.cli.embed import embed_config
from tape.errors import ConfigError
from tape.evaluation.windows import WindowedModel
from tape.inference.hidden_layers import HiddenLayers, select_layers
from tape.main import run_embed
from tape.registry import registry
from tape.tasks import TaskType

TOKENIZER = TAPETokenizer()
IDS = torch.from_numpy(TOKENIZER.encode("MKVLA"))[None]


@pytest.fixture
def model(small_config: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    found: torch.nn.Module = registry.get_task_model("transformer", "embed", small_config, output_hidden_states=True)
    return found.eval()


@torch.no_grad()
def test_layers_are_those_of_output_hidden_states(model: torch.nn.Module) -> None:
    states, pooled, hidden = model(IDS)
    selected, numbers = select_layers(model, (0, -1, 1), TOKENIZER)
    found, found_pooled = selected(IDS)
    assert numbers == (0, -1, 1)
    torch.testing.assert_close(found, torch.cat([hidden[0], states, hidden[1]], -1), rtol=0, atol=0)
    torch.testing.assert_close(found_pooled, pooled, rtol=0, atol=0)
    assert select_layers(model, None, TOKENIZER)[1] == tuple(range(len(hidden)))


@torch.no_grad()
def test_layers_of_long_proteins_are_read_in_windows(model: torch.nn.Module) -> None:
    selected = HiddenLayers(model, (0, -1))
    whole = WindowedModel(selected, TaskType.EMBEDDING, 7)(IDS)[0]
    torch.testing.assert_close(whole, selected(IDS)[0])
    assert WindowedModel(selected, TaskType.EMBEDDING, 5)(IDS)[0].shape == whole.shape


def test_the_output_alone_needs_no_hidden_states(small_config: Path) -> None:
    model = registry.get_task_model("transformer", "embed", small_config)
    assert select_layers(model, (-1,), TOKENIZER) == (model, (-1,))


@pytest.mark.parametrize(
    ("layers", "message"),
    [((9,), "--layers 9: the model has the layers 0"), ((-9,), "--layers -9"), ((0, 0), "twice"), ((-1, -1), "twice")],
)
def test_missing_and_repeated_layers_are_refused(layers: tuple[int, ...], message: str, model: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match=message):
        select_layers(model, layers, TOKENIZER)


@pytest.mark.parametrize("name", ["lstm", "unirep"])
def test_architectures_without_states_per_layer_are_refused(name: str) -> None:
    sizes = {"hidden_size": 8, "input_size": 8} if name == "lstm" else {}
    model = registry.get_task_model(name, "embed", output_hidden_states=True, **sizes)
    with pytest.raises(ConfigError, match="has no states per layer of the size of its output"):
        select_layers(model, (0,), TOKENIZER)


def test_the_command_stores_chosen_layers(model: torch.nn.Module, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "a.fasta").write_text(">a\nMKVLA\n")
    words = ["transformer", str(tmp_path / "a.fasta"), str(tmp_path / "o.npz"), str(tmp_path / "model")]
    with np.load(run_embed([*words, "--layers", "0", "-1", "--dtype", "float16"]), allow_pickle=True) as arrays:
        found = arrays["a"].item()["avg"]
    with torch.no_grad():
        states, _, hidden = model(IDS)
    expected = torch.stack([hidden[0][0, 1:-1].mean(0), states[0, 1:-1].mean(0)])
    assert (found.dtype, found.shape) == (np.float16, (2, expected.shape[1]))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_layers_on_the_command_line() -> None:
    def layers(*words: str) -> tuple[int, ...] | None:
        return embed_config(["transformer", "a.fasta", "o", "model", *words]).layers

    assert layers() == (-1,)
    assert layers("--layers", "last") == (-1,)
    assert layers("--layers", "all") is None
    assert layers("--layers", "0", "-2") == (0, -2)
    with pytest.raises(ConfigError, match="--layers all includes every layer"):
        layers("--layers", "all", "0")


def test_a_word_after_the_layers_is_not_taken_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        embed_config(["transformer", "a.fasta", "o", "--layers", "0", "models/out"])
    assert "must be last, all or whole numbers, not 'models/out'; give the positional" in capsys.readouterr().err

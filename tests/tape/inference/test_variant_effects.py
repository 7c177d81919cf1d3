"""Scores of variants, by hand for a minimal model and by plain loops for a small transformer."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tape.cli.score import run_score
from tape.commands import score_command
from tape.errors import ConfigError, DataError
from tape.evaluation.config import InferenceConfig
from tape.inference.variant_effects import VariantScorer
from tape.inference.variants import METHODS, Variant, apply_mutations
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.registry import registry
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()
A, G, MASK = TOKENIZER.vocab["A"], TOKENIZER.vocab["G"], TOKENIZER.mask_id
CPU = torch.device("cpu")


class VisibleToken(nn.Module):
    """Predicts from the input token alone: p(A) and p(G) are (.7, .3) at A, (.4, .6) at G, (.9, .1) at a mask."""

    config = SimpleNamespace(max_position_embeddings=10)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
        table = torch.full((30, 30), -math.inf)
        for token, probability in ((A, 0.7), (G, 0.4), (MASK, 0.9)):
            table[token, A], table[token, G] = math.log(probability), math.log(1 - probability)
        table[[TOKENIZER.cls_id, TOKENIZER.sep_id]] = 0.0
        return (table[ids],)


def variants_of(sequence: str, *mutations: str) -> list[Variant]:
    return [Variant("p", *apply_mutations(text, sequence, 1, "here"), {}) for text in mutations]


def score(model: nn.Module, sequence: str, *mutations: str, batch_size: int = 3) -> dict[str, list[float]]:
    scorer = VariantScorer(model, TOKENIZER, InferenceConfig(batch_size), CPU)
    return scorer.score(variants_of(sequence, *mutations), {"p": sequence}, METHODS)


def test_every_formula_equals_a_calculation_by_hand() -> None:
    found = score(VisibleToken(), "AAG", "A1G", "A1G:A2G", "WT")
    one = {
        "wild_type_marginal": math.log(0.3 / 0.7),
        "masked_marginal": math.log(0.1 / 0.9),
        "mutant_marginal": math.log(0.6 / 0.4),
        "pseudo_likelihood_ratio": math.log(0.1 / 0.9),  # AAG: .9 .9 .1, GAG: .1 .9 .1
    }
    for method, value in one.items():
        assert found[method] == pytest.approx([value, 2 * value, 0.0]), method
    products = [0.1 * 0.9 * 0.1, 0.1 * 0.1 * 0.1, 0.9 * 0.9 * 0.1]
    assert found["pseudo_perplexity"] == pytest.approx([product ** (-1 / 3) for product in products])


@pytest.fixture(scope="module")
def model() -> ProteinBertForMaskedLM:
    torch.manual_seed(0)
    from tape.configs import ProteinBertConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    made = ProteinBertForMaskedLM(ProteinBertConfig(**sizes, max_position_embeddings=20, initializer_range=0.5))
    return made.eval()


def log_p(model: nn.Module, sequence: str, masked: tuple[int, ...] = ()) -> np.ndarray:
    """log p (L, V), computed for one protein at a time."""
    ids = torch.from_numpy(TOKENIZER.encode(sequence))
    for position in masked:
        ids[position + 1] = MASK
    with torch.no_grad():
        return torch.log_softmax(model(ids[None])[0][0].double(), -1).numpy()[1:-1]


def likelihood(model: nn.Module, sequence: str) -> float:
    ids = TOKENIZER.encode_residues(sequence)
    return float(sum(log_p(model, sequence, (i,))[i, ids[i]] for i in range(len(sequence))))


def test_every_formula_equals_plain_loops(model: ProteinBertForMaskedLM) -> None:
    wild_type, mutations = "MKVLAGWY", ("M1A", "K2R:Y8F", "G6P", "K2E:Y8W", "K2R:Y8F")
    found = score(model, wild_type, *mutations)
    wild = TOKENIZER.encode_residues(wild_type)
    for number, variant in enumerate(variants_of(wild_type, *mutations)):
        mutant = TOKENIZER.encode_residues(variant.sequence)
        seen = {
            "wild_type_marginal": log_p(model, wild_type),
            "masked_marginal": log_p(model, wild_type, variant.positions),
            "mutant_marginal": log_p(model, variant.sequence),
        }
        for method, table in seen.items():
            expected = sum(table[i, mutant[i]] - table[i, wild[i]] for i in variant.positions)
            assert found[method][number] == pytest.approx(expected, abs=1e-5), method
        own = likelihood(model, variant.sequence)
        assert found["pseudo_likelihood_ratio"][number] == pytest.approx(own - likelihood(model, wild_type), abs=1e-4)
        assert found["pseudo_perplexity"][number] == pytest.approx(math.exp(-own / 8), rel=1e-5)


def test_no_score_depends_on_the_batch(model: ProteinBertForMaskedLM) -> None:
    mutations = ("M1A", "K2R:Y8F", "G6P")
    alone, together = (score(model, "MKVLAGWY", *mutations, batch_size=size) for size in (1, 64))
    for method in METHODS:
        assert alone[method] == pytest.approx(together[method], abs=1e-5)


def test_no_forward_pass_is_repeated(model: ProteinBertForMaskedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, ids: passes.append(len(ids)) or forward(self, ids))
    scorer = VariantScorer(model, TOKENIZER, InferenceConfig(3), CPU)
    counts = []
    for method in METHODS:
        passes.clear()
        scorer.score(variants_of("MKVL", "M1A", "M1C", "M1A:L4K"), {"p": "MKVL"}, [method])
        counts.append(sum(passes))
    assert counts == [1, 2, 3, 16, 16]  # the wild type; sets of positions; variants; 4 residues of 4 sequences


def test_too_long_proteins_and_vocabularies_without_mask_are_refused(model: ProteinBertForMaskedLM) -> None:
    with pytest.raises(DataError, match="protein 'p': 19 residues, but the model has positions for 18"):
        score(model, "A" * 19, "A1G")
    with pytest.raises(DataError, match="unirep vocabulary has no mask token"):
        VariantScorer(model, TAPETokenizer("unirep"), InferenceConfig(1), CPU)


@pytest.fixture
def directory(model: ProteinBertForMaskedLM, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_keeps_the_table_and_adds_the_scores(
    model: ProteinBertForMaskedLM, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p.fasta").write_text(">one\nMKVLAGWY\n>two\nACDEFG\n")
    (tmp_path / "v.csv").write_text("protein,mutant,measured\none,M10A,0.5\ntwo,C11A,-1\none,G15P,2\n")
    words = ["transformer", tmp_path / "v.csv", tmp_path / "out.csv", directory, "--wild_type", tmp_path / "p.fasta"]
    options = ["--first_residue", "10", "--compare", "measured", "--no_cuda"]
    assert run_score([*map(str, words), *options]) == tmp_path / "out.csv"
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["protein", "mutant", "measured", "wild_type_marginal", "masked_marginal"]
    assert [row["mutant"] for row in rows] == ["M10A", "C11A", "G15P"]
    table = log_p(model, "ACDEFG", (1,))
    expected = table[1, TOKENIZER.vocab["A"]] - table[1, TOKENIZER.vocab["C"]]
    assert float(rows[1]["masked_marginal"]) == pytest.approx(expected, rel=1e-4)
    assert "Spearman's rho of masked_marginal and measured" in caplog.text


def test_errors_are_one_line(directory: Path, tmp_path: Path, fails: Callable[..., str], small_config: Path) -> None:
    (tmp_path / "v.csv").write_text("mutant,measured\nM1A,high\nK1A,1\n")
    out = tmp_path / "out.csv"
    words: list[Any] = ["transformer", tmp_path / "v.csv", out, directory, "--wild_type", "MKVL", "--no_cuda"]
    assert "v.csv, record 2, protein 'wild type': K1A: residue 1 is M, not K" in fails(score_command, *words)
    (tmp_path / "v.csv").write_text("mutant,measured\nM1A,high\n")
    assert "column 'measured' does not hold numbers" in fails(score_command, *words, "--compare", "measured")
    assert "no column 'x'; it has mutant, measured" in fails(score_command, *words, "--compare", "x")
    headless = registry.get_task_model("transformer", "stability", small_config)
    headless.save_pretrained(tmp_path / "stability")
    words[3] = tmp_path / "stability"
    assert "has no trained weights of the masked_language_modeling model" in fails(score_command, *words)
    assert not out.exists()


def test_running_out_of_memory_is_explained() -> None:
    class Hungry(VisibleToken):
        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
            raise MemoryError

    with pytest.raises(ConfigError, match="out of memory with 1 protein of 5 tokens in the forward pass; give --bf16"):
        score(Hungry(), "AGA", "A1G", batch_size=1)

"""Scores of variants, by hand for a minimal model and by plain loops for a small transformer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tape.errors import ConfigError, DataError
from tape.evaluation.config import InferenceConfig
from tape.inference.mutation_notation import apply_mutations
from tape.inference.variant_effects import VariantScorer, nearest_windows
from tape.inference.variants import METHODS, Variant
from tape.models.modeling_bert import ProteinBertForMaskedLM
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
    return [Variant("p", *apply_mutations(text, sequence), {}) for text in mutations]


def score(
    model: nn.Module, sequence: str, *mutations: str, batch_size: int = 3, length: str = "window"
) -> dict[str, np.ndarray]:
    scorer = VariantScorer(model, TOKENIZER, InferenceConfig(batch_size), CPU, length)
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
        score(model, "A" * 19, "A1G", length="error")
    with pytest.raises(DataError, match="unirep vocabulary has no mask token"):
        VariantScorer(model, TAPETokenizer("unirep"), InferenceConfig(1), CPU)


def test_insertions_and_deletions_have_pseudo_likelihoods_only(model: ProteinBertForMaskedLM) -> None:
    found = score(model, "MKVLAGWY", "p.Lys2_Leu4del", "M1A", "p.Leu4_Ala5insTrp")
    expected = [likelihood(model, sequence) - likelihood(model, "MKVLAGWY") for sequence in ("MAGWY", "MKVLWAGWY")]
    assert found["pseudo_likelihood_ratio"][[0, 2]] == pytest.approx(expected, abs=1e-4)
    for method in ("wild_type_marginal", "masked_marginal", "mutant_marginal"):
        assert np.isnan(found[method]).tolist() == [True, False, True], method


def test_each_residue_is_read_in_the_window_with_the_nearest_middle() -> None:
    assert nearest_windows(range(10), [0, 3, 6], 4) == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]  # middles 1.5, 4.5, 7.5


def test_long_proteins_are_scored_in_windows(model: ProteinBertForMaskedLM, caplog: pytest.LogCaptureFixture) -> None:
    """The model has positions for 18 residues; 30 residues are three windows, from residues 0, 6 and 12."""
    wild_type = "MKVLAGWYACDEFGHIKLMNPQRSTVWYAC"
    found = score(model, wild_type, "K2R", "P21A:C30W")
    assert "1 of 1 proteins are read in windows of 18" in caplog.text
    first, last = wild_type[:18], wild_type[12:]
    row = log_p(model, first, (1,))[1]
    assert found["masked_marginal"][0] == pytest.approx(row[TOKENIZER.vocab["R"]] - row[TOKENIZER.vocab["K"]], abs=1e-5)
    table = log_p(model, last, (8, 17))
    expected = sum(
        table[i, TOKENIZER.vocab[new]] - table[i, TOKENIZER.vocab[old]]
        for i, old, new in ((8, "P", "A"), (17, "C", "W"))
    )
    assert found["masked_marginal"][1] == pytest.approx(expected, abs=1e-5)
    ids = TOKENIZER.encode_residues(wild_type)
    nearest = [0] * 12 + [6] * 6 + [12] * 12
    windows = [(wild_type[start : start + 18], i - start, ids[i]) for i, start in enumerate(nearest)]
    own = sum(log_p(model, residues, (place,))[place, wanted] for residues, place, wanted in windows)
    scorer = VariantScorer(model, TOKENIZER, InferenceConfig(3), CPU)
    assert scorer.pseudo_likelihoods([wild_type])[wild_type] == pytest.approx(own, abs=1e-4)


def test_running_out_of_memory_is_explained() -> None:
    class Hungry(VisibleToken):
        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
            raise MemoryError

    with pytest.raises(ConfigError, match="out of memory with 1 protein of 5 tokens in the forward pass; give --bf16"):
        score(Hungry(), "AGA", "A1G", batch_size=1)

"""Zero-shot prediction of variant effects with a masked language model (``tape-score``).

Let x be the wild type, y the variant, M the substituted positions, x/M the wild type with M masked, and p the model's
distribution over its entire vocabulary. A larger score is better, except for the pseudo-perplexity:

- ``wild_type_marginal``: sum over M of log p(y_i | x) - log p(x_i | x); one forward pass per protein;
- ``masked_marginal``: sum over M of log p(y_i | x/M) - log p(x_i | x/M); one forward pass per set of positions. All of
  M is masked at once, as in the paper. Its published code masks one position at a time, which is the same for single
  substitutions;
- ``mutant_marginal``: sum over M of log p(y_i | y) - log p(x_i | y); one forward pass per variant;
- ``pseudo_likelihood_ratio``: PLL(y) - PLL(x), where PLL(z) = sum over all i of log p(z_i | z/i); one forward pass per
  residue of each variant;
- ``pseudo_perplexity``: exp(-PLL(y) / L) of the variant itself.

The first four are from J. Meier et al. 2021, "Language models enable zero-shot prediction of the effects of mutations
on protein function", section 3 (wild-type marginal, masked marginal, mutant marginal, pseudolikelihood). PLL and
pseudo-perplexity are from J. Salazar et al. 2020, "Masked language model scoring", equations 1 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tape.errors import DataError, quoted
from tape.evaluation.config import InferenceConfig
from tape.evaluation.evaluate import evaluation_mode
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer

from .variants import Variant

_HALF = ("--bf16",)
_PSEUDO = ("pseudo_likelihood_ratio", "pseudo_perplexity")


@dataclass(frozen=True)
class Query:
    """One forward pass: the residues, the masked positions, and the positions at which to read the distribution."""

    sequence: str
    masked: tuple[int, ...]
    read: tuple[int, ...]


class VariantScorer:
    """A masked language model that scores variants.

    Args:
        model: a model that returns ``(logits (B, S, V), ...)``.
        tokenizer: the model's tokenizer, with a mask token.
        config: batch size and precision.
        device: the model's device.

    Raises:
        DataError: the vocabulary has no mask token.
    """

    def __init__(
        self, model: nn.Module, tokenizer: TAPETokenizer, config: InferenceConfig, device: torch.device
    ) -> None:
        if tokenizer.mask_id is None:
            raise DataError(f"the {tokenizer.name} vocabulary has no mask token, which scoring variants needs")
        self._model, self._tokenizer, self._config, self._device = model, tokenizer, config, device
        self._mask_id = tokenizer.mask_id
        self._remedies = MemoryRemedies(("a smaller --batch_size",), _HALF if config.precision == "fp32" else ())

    def score(
        self, variants: Sequence[Variant], proteins: Mapping[str, str], methods: Sequence[str]
    ) -> dict[str, list[float]]:
        """Scores of each method, in the order of the variants.

        Raises:
            DataError: a protein is longer than the model's position table.
        """
        self._check_lengths(variants, proteins)
        scores: dict[str, list[float]] = {}
        for method in methods:
            if method not in _PSEUDO:
                scores[method] = self._marginals(method, variants, proteins)
        if set(methods) & set(_PSEUDO):
            likelihoods = self._pseudo_likelihoods(
                dict.fromkeys([variant.sequence for variant in variants] + [proteins[v.protein] for v in variants])
            )
            for method in set(methods) & set(_PSEUDO):
                scores[method] = [_from_likelihoods(method, likelihoods, v, proteins[v.protein]) for v in variants]
        return {method: scores[method] for method in methods}

    def _check_lengths(self, variants: Sequence[Variant], proteins: Mapping[str, str]) -> None:
        positions = getattr(self._model.config, "max_position_embeddings", None)
        for name in dict.fromkeys(variant.protein for variant in variants):
            length = len(proteins[name])
            if positions is not None and length > positions - 2:
                raise DataError(
                    f"protein {quoted(name)}: {length} residues, but the model has positions for {positions - 2}"
                )

    def _marginals(self, method: str, variants: Sequence[Variant], proteins: Mapping[str, str]) -> list[float]:
        queries = [_marginal_query(method, variant, proteins[variant.protein]) for variant in variants]
        wanted = set(queries)
        rows = dict(self.log_probabilities(sorted(wanted, key=_by_length, reverse=True), method))
        scores = []
        for variant, query in zip(variants, queries, strict=True):
            row: dict[int, np.ndarray] = dict(zip(query.read, rows[query], strict=True))
            wild, mutant = (self._tokenizer.encode_residues(s) for s in (proteins[variant.protein], variant.sequence))
            scores.append(float(sum(row[i][mutant[i]] - row[i][wild[i]] for i in variant.positions)))
        return scores

    def _pseudo_likelihoods(self, sequences: Mapping[str, None]) -> dict[str, float]:
        queries = [Query(s, (i,), (i,)) for s in sorted(sequences, key=len, reverse=True) for i in range(len(s))]
        found = dict.fromkeys(sequences, 0.0)
        ids = {sequence: self._tokenizer.encode_residues(sequence) for sequence in sequences}
        for query, row in self.log_probabilities(queries, "pseudo-likelihood"):
            found[query.sequence] += float(row[0][ids[query.sequence][query.read[0]]])
        return found

    def log_probabilities(self, queries: Sequence[Query], title: str) -> Iterator[tuple[Query, np.ndarray]]:
        """Yield each query with log p (len(read), V) float64. Only sequences of the same length share a batch."""
        with evaluation_mode(self._model), progress_bar(title, len(queries), "pass") as bar:
            for batch in _batches(queries, self._config.batch_size_for(TaskType.MASKED_LM)):
                ids = torch.from_numpy(np.stack([self._ids(query) for query in batch])).to(self._device)
                with (
                    explain_out_of_memory("the forward pass", ids.shape, self._remedies),
                    autocast(self._config.precision, self._device),
                ):
                    logits = self._model(ids)[0]
                for query, row in zip(batch, logits, strict=True):
                    wanted = row[torch.tensor([i + 1 for i in query.read], dtype=torch.int64, device=row.device)]
                    yield query, wanted.double().log_softmax(-1).cpu().numpy()
                bar.update(len(batch))

    def _ids(self, query: Query) -> np.ndarray:
        ids = self._tokenizer.encode(query.sequence)
        ids[[i + 1 for i in query.masked]] = self._mask_id  # after <cls>
        return ids


def _marginal_query(method: str, variant: Variant, wild_type: str) -> Query:
    if method == "wild_type_marginal":
        return Query(wild_type, (), tuple(range(len(wild_type))))  # the same for all variants of a protein
    if method == "masked_marginal":
        return Query(wild_type, variant.positions, variant.positions)
    return Query(variant.sequence, (), variant.positions)


def _from_likelihoods(method: str, likelihoods: Mapping[str, float], variant: Variant, wild_type: str) -> float:
    likelihood = likelihoods[variant.sequence]
    if method == "pseudo_perplexity":
        return float(np.exp(-likelihood / len(variant.sequence)))
    return likelihood - likelihoods[wild_type]


def _by_length(query: Query) -> tuple[int, str, tuple[int, ...]]:
    return len(query.sequence), query.sequence, query.masked


def _batches(queries: Sequence[Query], size: int) -> Iterator[list[Query]]:
    """Batches of at most ``size`` consecutive queries of the same length."""
    batch: list[Query] = []
    for query in queries:
        if batch and (len(batch) == size or len(query.sequence) != len(batch[0].sequence)):
            yield batch
            batch = []
        batch.append(query)
    if batch:
        yield batch

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
pseudo-perplexity are from J. Salazar et al. 2020, "Masked language model scoring", equations 1 and 4. Where residues
are inserted or deleted, x and y have no common positions, so that only the two pseudo-likelihood scores are defined.

Proteins longer than the model's position table are read in the windows of :mod:`tape.evaluation.windows`: as long as
the table allows, overlapping by about half, and spread evenly over the protein. p of a residue is that of the window
whose middle is nearest to it (the first of two): except near the ends of the protein, the model sees at least a quarter
of a window on either side of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tape.errors import DataError, quoted
from tape.evaluation.config import InferenceConfig
from tape.evaluation.evaluate import evaluation_mode
from tape.evaluation.long_proteins import position_limit
from tape.evaluation.windows import window_starts
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer

from .variants import PSEUDO_LIKELIHOODS, Variant

logger = logging.getLogger(__name__)

_HALF = ("--bf16",)


@dataclass(frozen=True)
class Query:
    """The residues, the masked positions, and the positions at which to read the distribution, in ascending order."""

    sequence: str
    masked: tuple[int, ...]
    read: tuple[int, ...]


@dataclass(frozen=True)
class _Pass:
    """One forward pass over a window of a query, of which it is the last or not."""

    query: Query
    start: int
    residues: str
    read: tuple[int, ...]
    is_last: bool

    def ids(self, tokenizer: TAPETokenizer, mask_id: int) -> np.ndarray:
        ids = tokenizer.encode(self.residues)
        inside = (i - self.start for i in self.query.masked)
        ids[[i + 1 for i in inside if 0 <= i < len(self.residues)]] = mask_id  # after <cls>
        return ids


class VariantScorer:
    """A masked language model that scores variants.

    Args:
        model: a model that returns ``(logits (B, S, V), ...)``.
        tokenizer: the model's tokenizer, with a mask token.
        config: batch size and precision.
        device: the model's device.
        length: what to do with proteins longer than the model's position table: error or window.

    Raises:
        DataError: the vocabulary has no mask token.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: TAPETokenizer,
        config: InferenceConfig,
        device: torch.device,
        length: str = "window",
    ) -> None:
        if tokenizer.mask_id is None:
            raise DataError(f"the {tokenizer.name} vocabulary has no mask token, which scoring variants needs")
        self._model, self._tokenizer, self._config, self._device = model, tokenizer, config, device
        self._mask_id, self._length = tokenizer.mask_id, length
        limit = position_limit(model)
        self._longest = None if limit is None else limit - 2
        self._remedies = MemoryRemedies(("a smaller --batch_size",), _HALF if config.precision == "fp32" else ())

    def score(
        self, variants: Sequence[Variant], proteins: Mapping[str, str], methods: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Score variants.

        Args:
            variants: N variants without a problem.
            proteins: their wild types by name.
            methods: names of scores.

        Returns:
            (N,) float64 of each method; ``nan`` where it is not defined for the variant.

        Raises:
            DataError: a sequence is longer than the model's position table, and no windows are allowed.
        """
        longest: dict[str, str] = {}
        for one in variants:
            longest[one.protein] = max(longest.get(one.protein, proteins[one.protein]), one.sequence, key=len)
        self.check_lengths(longest)
        scores: dict[str, np.ndarray] = {}
        for method in methods:
            if method not in PSEUDO_LIKELIHOODS:
                scores[method] = self._marginals(method, variants, proteins)
        if set(methods) & set(PSEUDO_LIKELIHOODS):
            likelihoods = self.pseudo_likelihoods(
                dict.fromkeys([variant.sequence for variant in variants] + [proteins[v.protein] for v in variants])
            )
            for method in set(methods) & set(PSEUDO_LIKELIHOODS):
                values = [_from_likelihoods(method, likelihoods, v, proteins[v.protein]) for v in variants]
                scores[method] = np.array(values, dtype=np.float64)
        return {method: scores[method] for method in methods}

    def check_lengths(self, proteins: Mapping[str, str]) -> None:
        """Check that the model can read proteins, given by name, and announce those that are read in windows.

        Raises:
            DataError: one is longer than the model's position table, and no windows are allowed.
        """
        longer = [name for name, sequence in proteins.items() if len(sequence) > (self._longest or len(sequence))]
        if longer and self._length == "error":
            raise DataError(
                f"protein {quoted(longer[0])}: {len(proteins[longer[0]])} residues, but the model has positions for"
                f" {self._longest}; --length window reads it in overlapping windows"
            )
        if longer:
            logger.warning("%d of %d proteins are read in windows of %d", len(longer), len(proteins), self._longest)

    def _marginals(self, method: str, variants: Sequence[Variant], proteins: Mapping[str, str]) -> np.ndarray:
        queries = [_marginal_query(method, variant, proteins[variant.protein]) for variant in variants]
        wanted = {query for query in queries if query is not None}
        rows = dict(self.log_probabilities(sorted(wanted, key=_by_length, reverse=True), method))
        scores = np.full(len(variants), np.nan)
        for number, (variant, query) in enumerate(zip(variants, queries, strict=True)):
            if query is None or variant.positions is None:
                continue
            row: dict[int, np.ndarray] = dict(zip(query.read, rows[query], strict=True))
            wild, mutant = (self._tokenizer.encode_residues(s) for s in (proteins[variant.protein], variant.sequence))
            scores[number] = float(sum(row[i][mutant[i]] - row[i][wild[i]] for i in variant.positions))
        return scores

    def pseudo_likelihoods(self, sequences: Iterable[str]) -> dict[str, float]:
        """PLL of each sequence, in nats."""
        found = dict.fromkeys(sequences, 0.0)
        queries = [Query(s, (i,), (i,)) for s in sorted(found, key=len, reverse=True) for i in range(len(s))]
        ids = {sequence: self._tokenizer.encode_residues(sequence) for sequence in found}
        for query, row in self.log_probabilities(queries, "pseudo-likelihood"):
            found[query.sequence] += float(row[0][ids[query.sequence][query.read[0]]])
        return found

    def position_log_probabilities(self, sequence: str, *, masked: bool) -> np.ndarray:
        """log p (L, V) float64 at each position of a protein of L residues.

        Args:
            sequence: the protein.
            masked: mask each position while reading it, in a forward pass for each; otherwise, one pass over the
                protein, or over each of its windows.
        """
        everything = tuple(range(len(sequence)))
        queries = [Query(sequence, (i,), (i,)) for i in everything] if masked else [Query(sequence, (), everything)]
        title = "masked positions" if masked else "wild type"
        return np.concatenate([rows for _, rows in self.log_probabilities(queries, title)])

    def log_probabilities(self, queries: Sequence[Query], title: str) -> Iterator[tuple[Query, np.ndarray]]:
        """Yield each query with log p (len(read), V) float64, in the order of the queries.

        Only windows of the same length share a batch.
        """
        passes = [one for query in queries for one in self._passes(query)]
        rows: list[np.ndarray] = []
        with evaluation_mode(self._model), progress_bar(title, len(passes), "pass") as bar:
            for batch in _batches(passes, self._config.batch_size_for(TaskType.MASKED_LM)):
                ids = torch.from_numpy(np.stack([one.ids(self._tokenizer, self._mask_id) for one in batch]))
                with (
                    explain_out_of_memory("the forward pass", ids.shape, self._remedies),
                    autocast(self._config.precision, self._device),
                ):
                    logits = self._model(ids.to(self._device))[0]
                for one, row in zip(batch, logits, strict=True):
                    places = [i - one.start + 1 for i in one.read]
                    wanted = row[torch.tensor(places, dtype=torch.int64, device=row.device)]
                    rows.append(wanted.double().log_softmax(-1).cpu().numpy())
                    if one.is_last:
                        yield one.query, np.concatenate(rows)
                        rows = []
                bar.update(len(batch))

    def _passes(self, query: Query) -> list[_Pass]:
        """The forward passes of a query: one, or one per window in which it reads a residue."""
        size = min(self._longest or len(query.sequence), len(query.sequence))
        starts = window_starts(len(query.sequence), size)
        nearest = nearest_windows(query.read, starts, size)
        used = sorted(set(nearest)) or [0]
        return [
            _Pass(
                query,
                starts[window],
                query.sequence[starts[window] : starts[window] + size],
                tuple(i for i, own in zip(query.read, nearest, strict=True) if own == window),
                window == used[-1],
            )
            for window in used
        ]


def nearest_windows(positions: Sequence[int], starts: Sequence[int], size: int) -> list[int]:
    """For each position, the number of the window whose middle is nearest to it, the first of two.

    Args:
        positions: residues from 0.
        starts: first residues of the windows, see :func:`tape.evaluation.windows.window_starts`.
        size: residues of a window.
    """
    middles = np.asarray(starts) + (size - 1) / 2
    distances = np.abs(np.asarray(positions, dtype=np.float64)[:, None] - middles)
    return [int(number) for number in distances.argmin(axis=1)]


def _marginal_query(method: str, variant: Variant, wild_type: str) -> Query | None:
    """The query of a variant; None for insertions and deletions."""
    if variant.positions is None:
        return None
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


def _batches(passes: Sequence[_Pass], size: int) -> Iterator[list[_Pass]]:
    """Batches of at most ``size`` consecutive passes of the same length."""
    batch: list[_Pass] = []
    for one in passes:
        if batch and (len(batch) == size or len(one.residues) != len(batch[0].residues)):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch

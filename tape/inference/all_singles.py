"""Scores of every single substitution of a protein (``tape-score --all-singles``), as in deep mutational scanning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tape.tokenizers import TAPETokenizer

from .variant_effects import VariantScorer

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


@dataclass(frozen=True)
class SingleScores:
    """Scores of the substitutions of one protein by one method.

    Attributes:
        protein: name of the protein.
        sequence: the L residues of the wild type.
        method: one of :data:`tape.inference.variants.SINGLE_METHODS`.
        values: (L, 20) float64 in the order of :data:`AMINO_ACIDS`, in nats; 0 at the wild type.
    """

    protein: str
    sequence: str
    method: str
    values: np.ndarray


def single_scores(
    scorer: VariantScorer, tokenizer: TAPETokenizer, protein: str, sequence: str, method: str
) -> SingleScores:
    """Score all single substitutions of a protein.

    Args:
        scorer: the model.
        tokenizer: its tokenizer.
        protein, sequence: name and residues of the wild type.
        method: one of :data:`tape.inference.variants.SINGLE_METHODS`; ``masked_marginal`` takes a forward pass per
            residue, ``wild_type_marginal`` one for all of them, or one per window.
    """
    table = scorer.position_log_probabilities(sequence, masked=method == "masked_marginal")
    wild_type = table[np.arange(len(sequence)), tokenizer.encode_residues(sequence)]
    values = table[:, tokenizer.encode_residues(AMINO_ACIDS)] - wild_type[:, None]
    return SingleScores(protein, sequence, method, values)


def substitutions(sequence: str, first_residue: int = 1) -> Iterator[tuple[str, int, int]]:
    """Yield each substitution of a protein by another amino acid, as ``A123G``, with its place in ``values``.

    There are 19 at each of the 20 amino acids, and 20 at other residues, such as X.
    """
    for position, residue in enumerate(sequence):
        for column, amino_acid in enumerate(AMINO_ACIDS):
            if amino_acid != residue:
                yield f"{residue}{position + first_residue}{amino_acid}", position, column

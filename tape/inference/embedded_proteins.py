"""The embeddings of a file's proteins as output files hold them, read from a journal one protein at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tape.errors import ConfigError, quoted

from .embedding_journal import Embedding, StoredEmbedding

SCHEMA = "proteinlm-embeddings"  # of HDF5 and Parquet files
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class EmbeddedProteins:
    """The embeddings to write.

    Attributes:
        identifiers: N unique ids.
        sequence: number of a protein -> its residues as its file has them.
        lengths: (N,) number of residues that were embedded.
        places: for each protein, where its pooled vector is stored, and its mean or its states of L + 2 tokens.
        full_sequence: True for the states.
        layers: numbers of the K layers, whose vectors of H numbers are stored one after the other.
        dtype: one of :data:`DTYPES`.
    """

    identifiers: Sequence[str]
    sequence: Callable[[int], str]
    lengths: np.ndarray
    places: Sequence[StoredEmbedding]
    full_sequence: bool
    layers: tuple[int, ...] = (-1,)
    dtype: str = "float32"

    @property
    def hidden_size(self) -> int:
        """H, the size of a layer's vectors."""
        return self.places[0].columns // len(self.layers)

    def read(self, number: int) -> Embedding:
        """Read a protein's embedding in the type of the file.

        Returns:
            (H,) or (L + 2, H), with several layers (K, H) or (K, L + 2, H); and the pooled vector (P,).

        Raises:
            ConfigError: a value is too large for the type.
        """
        stored, pooled = self.places[number].read()
        values = split_layers(stored, len(self.layers), self.full_sequence)
        return self._cast(number, values), self._cast(number, pooled)

    def residues(self, number: int) -> np.ndarray:
        """As the first value of :meth:`read`, but states without those of ``<cls>`` and ``<sep>``: (L, H)."""
        values = self.read(number)[0]
        return values[..., 1:-1, :] if self.full_sequence else values

    def _cast(self, number: int, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            cast = values.astype(self.dtype)
        if np.isinf(cast).any() and not np.isinf(values).any():
            raise ConfigError(
                f"the embedding of {quoted(self.identifiers[number])} has the value {np.abs(values).max():.6g}, which"
                f" {self.dtype} can't hold; give --dtype float32 (nothing is computed again)"
            )
        return cast


def split_layers(stored: np.ndarray, layers: int, full_sequence: bool) -> np.ndarray:
    """Vectors of K layers, one after the other, as an array with the layers as its first dimension.

    Args:
        stored: (L + 2, K * H), or (1, K * H) without ``full_sequence``.
        layers: K.
        full_sequence: whether there is a row for each token.

    Returns:
        (K, L + 2, H) or (K, H); without the first dimension if K is 1.
    """
    values = stored.reshape(len(stored), layers, -1).transpose(1, 0, 2)
    kept: np.ndarray = values if full_sequence else values[:, 0]
    return kept[0] if layers == 1 else kept

"""The tokenizer, with TAPE's vocabularies ``iupac`` (30 tokens) and ``unirep``.

Pretraining, conversion and finetuning all use the ids of this module. Corpora, checkpoints and model directories record
:attr:`TAPETokenizer.fingerprint`, and reading one with another vocabulary is an error.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .compatibility.names import names_of
from .errors import ConfigError, UnknownResidueError, quoted

__getattr__ = names_of(__name__)  # of tape-proteins 0.5

SPECIAL_TOKENS = ("<pad>", "<mask>", "<cls>", "<sep>", "<unk>")
SPECIAL_TOKENS_PER_PROTEIN = 2  # <cls> and <sep>
# Names of the special tokens in Megatron-LM's vocabulary files.
MEGATRON_SPECIAL_TOKENS = {"[PAD]": "<pad>", "[MASK]": "<mask>", "[CLS]": "<cls>", "[SEP]": "<sep>", "[UNK]": "<unk>"}

# All letters except J: the 20 amino acids, U and O (selenocysteine, pyrrolysine), and the ambiguity codes B, X, Z.
IUPAC_VOCAB: dict[str, int] = {
    token: index for index, token in enumerate((*SPECIAL_TOKENS, *"ABCDEFGHIKLMNOPQRSTUVWXYZ"))
}

# In the order of UniRep (Alley et al. 2019). X, Z, B and J share one id.
UNIREP_VOCAB: dict[str, int] = {
    "<pad>": 0,
    **{residue: index for index, residue in enumerate("MRHKDESTNQCUGPAVIFYWLO", start=1)},
    **dict.fromkeys("XZBJ", 23),
    "<cls>": 24,
    "<sep>": 25,
}

VOCABULARIES = {"iupac": IUPAC_VOCAB, "unirep": UNIREP_VOCAB}


def refuse_names(texts: Any, taker: str) -> None:
    """Refuse a dictionary or a DataFrame as a list of texts, since its names would be taken for the texts.

    Args:
        texts: what was given.
        taker: what takes texts, for the message.

    Raises:
        ConfigError: ``texts`` is such a table.
    """
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        found = type(texts).__name__
        raise ConfigError(f"{taker} takes text or a list of texts, not {found}; give one of its columns, or its values")


class TAPETokenizer:
    """Tokenizer with one token per residue, and TAPE's method names.

    Args:
        vocab: ``"iupac"`` or ``"unirep"``.

    Raises:
        ConfigError: unknown vocabulary.
    """

    def __init__(self, vocab: str = "iupac") -> None:
        if vocab not in VOCABULARIES:
            raise ConfigError(f"unknown tokenizer {quoted(vocab)}; choose one of {', '.join(VOCABULARIES)}")
        self.name = vocab
        self.vocab = VOCABULARIES[vocab]
        self.tokens = list(self.vocab)
        # Four letters of UniRep have the same id, which is decoded as the first of them.
        self._token_of_id: dict[int, str] = {}
        for token, index in self.vocab.items():
            self._token_of_id.setdefault(index, token)
        self._letters = frozenset(token for token in self.vocab if len(token) == 1)
        self._table = np.full(256, -1, dtype=np.int64)
        for token, index in self.vocab.items():
            if len(token) == 1:
                self._table[ord(token)] = index

    @property
    def vocab_size(self) -> int:
        """Number of tokens. For ``unirep``, 29: the four letters of id 23 count separately, as in TAPE."""
        return len(self.vocab)

    start_token = "<cls>"
    stop_token = "<sep>"

    @property
    def mask_token(self) -> str:
        if "<mask>" not in self.vocab:
            raise ConfigError(f"the {self.name} vocabulary has no mask token")
        return "<mask>"

    @property
    def pad_id(self) -> int:
        return self.vocab["<pad>"]

    @property
    def mask_id(self) -> int | None:
        return self.vocab.get("<mask>")

    @property
    def cls_id(self) -> int:
        return self.vocab["<cls>"]

    @property
    def sep_id(self) -> int:
        return self.vocab["<sep>"]

    @property
    def unk_id(self) -> int | None:
        return self.vocab.get("<unk>")

    @property
    def residue_ids(self) -> np.ndarray:
        """Ids of the residues in ascending order, without special tokens."""
        return np.array(sorted({index for token, index in self.vocab.items() if len(token) == 1}), dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of ``token<TAB>id`` lines."""
        return vocabulary_fingerprint(self.vocab)

    def tokenize(self, text: str) -> list[str]:
        return list(text)

    def convert_token_to_id(self, token: str) -> int:
        try:
            return self.vocab[token]
        except KeyError:
            raise UnknownResidueError(f"unrecognized token {quoted(token)}; {self._allowed()}") from None

    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        return [self.convert_token_to_id(token) for token in tokens]

    def convert_id_to_token(self, index: int) -> str:
        try:
            return self._token_of_id[int(index)]
        except KeyError:
            raise UnknownResidueError(
                f"unrecognized id {index}; {self.name} has 0 to {max(self._token_of_id)}"
            ) from None

    def convert_ids_to_tokens(self, indices: Iterable[int]) -> list[str]:
        return [self.convert_id_to_token(index) for index in indices]

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)

    def add_special_tokens(self, tokens: list[str]) -> list[str]:
        return [self.start_token, *tokens, self.stop_token]

    def __call__(self, text: str | Iterable[str]) -> dict[str, np.ndarray]:
        """Encode one or many proteins as a padded batch, see :meth:`encode`.

        Args:
            text: the residues of a protein, or of N proteins.

        Returns:
            ``input_ids`` and ``input_mask``, both (N, S) int64, where S is the number of tokens of the longest protein:
            its residues, ``<cls>`` and ``<sep>``. The mask is 1 at tokens and 0 at padding. One protein is a batch of
            one, as models expect; ``torch.from_numpy`` makes their tensors.

        Raises:
            UnknownResidueError: a character is not in the vocabulary. Names the protein, from 1.
            ConfigError: ``text`` is neither text nor texts, or there is no protein.
        """
        proteins = [text] if isinstance(text, str) else self._texts(text)
        encoded = []
        for number, protein in enumerate(proteins, start=1):
            try:
                encoded.append(self.encode(protein))
            except UnknownResidueError as error:
                raise UnknownResidueError(f"protein {number}: {error}") from None
        lengths = [len(ids) for ids in encoded]
        input_ids = np.full((len(encoded), max(lengths)), self.pad_id, dtype=np.int64)
        for row, ids in zip(input_ids, encoded, strict=True):
            row[: len(ids)] = ids
        input_mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        return {"input_ids": input_ids, "input_mask": input_mask}

    def _texts(self, texts: Any) -> list[str]:
        refuse_names(texts, "the tokenizer")
        proteins = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, bytes) else [texts]
        if not proteins:
            raise ConfigError("there are no proteins to encode")
        for protein in proteins:
            if not isinstance(protein, str):
                found = type(protein).__name__
                raise ConfigError(
                    f"the tokenizer takes the residues of a protein as text, or a list of these, not {found}"
                )
        return proteins

    def encode(self, text: str | Sequence[str] | np.ndarray) -> np.ndarray:
        """``<cls> residues <sep>`` as int64 ids, shape (L + 2,).

        As in the commands, lower case is read as upper case, and J as X if the vocabulary has no J; both cause a
        warning. Gaps, stops and white space are errors, because removing them would shift labels.

        Args:
            text: the residues of one protein, as text, as the list that :meth:`tokenize` returns, or as an array of
                single letters. A list or array may also have special tokens, such as ``<mask>``.

        Raises:
            UnknownResidueError: a character is not in the vocabulary. Names it and its position (from 1).
            ConfigError: ``text`` is neither text nor a list or array of tokens.
        """
        residues, special = self._joined(text)
        if not self._has_all(residues):
            residues = self._normalized(residues)
        ids = np.empty(len(residues) + 2, dtype=np.int64)
        ids[0], ids[-1] = self.cls_id, self.sep_id
        ids[1:-1] = self.encode_residues(residues)
        for place, index in special.items():
            ids[place + 1] = index
        return ids

    def _joined(self, text: str | Sequence[str] | np.ndarray) -> tuple[str, dict[int, int]]:
        """A protein as text, with X in place of special tokens, and the ids of these by their place."""
        if isinstance(text, str):
            return text, {}
        if isinstance(text, np.ndarray) and text.ndim == 1:
            text = text.tolist()
        if not isinstance(text, Sequence) or not all(isinstance(item, str) for item in text):
            raise ConfigError(f"encode takes the residues of a protein, as text or a list, not {type(text).__name__}")
        special = {place: self.vocab[item] for place, item in enumerate(text) if len(item) != 1 and item in self.vocab}
        several = next((item for place, item in enumerate(text) if len(item) != 1 and place not in special), None)
        if several is not None:
            raise ConfigError(
                f"encode takes one protein, and its list has {quoted(several)} as a residue; for several proteins, call"
                " encode for each, and pad the results with tape.datasets.pad_sequences"
            )
        return "".join("X" if place in special else item for place, item in enumerate(text)), special

    def _has_all(self, residues: str) -> bool:
        return self._letters.issuperset(residues)

    def _normalized(self, residues: str) -> str:
        normalized = residues.translate(_UPPER)
        if "J" not in self._letters:
            normalized = normalized.replace("J", "X")
        if self._has_all(normalized):
            warnings.warn(
                "lower-case residues are read as upper case, and J (leucine or isoleucine) as X, if the vocabulary has"
                " no J",
                stacklevel=3,
            )
            return normalized
        return normalized  # encode_residues raises the error

    def encode_residues(self, text: str) -> np.ndarray:
        """Residues as int64 ids without special tokens, shape (L,).

        Raises:
            UnknownResidueError: a character is not in the vocabulary. Names it and its position (from 1).
        """
        codes = np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8)
        ids = self._table[codes]
        if ids.size and ids.min() < 0:
            position = int(np.argmax(ids < 0))
            raise UnknownResidueError(
                f"unknown residue {text[position]!r} at position {position + 1}; {self._allowed()}"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Residues of ``ids`` as text, without special tokens."""
        tokens = self.convert_ids_to_tokens(ids)
        return "".join(token for token in tokens if len(token) == 1)

    @classmethod
    def from_pretrained(cls, vocab: str = "iupac", **_: object) -> TAPETokenizer:
        return cls(vocab)

    def _allowed(self) -> str:
        letters = "".join(sorted(token for token in self.vocab if len(token) == 1))
        return f"the {self.name} vocabulary has {letters}"


def as_tokenizer(tokenizer: str | TAPETokenizer) -> TAPETokenizer:
    """``tokenizer`` itself, or the tokenizer of the named vocabulary."""
    return TAPETokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer


def vocabulary_fingerprint(vocabulary: dict[str, int]) -> str:
    """Fingerprint of a token -> id map: first 16 hex digits of the SHA-256 of its ``token<TAB>id`` lines."""
    lines = "".join(
        f"{token}\t{index}\n" for token, index in sorted(vocabulary.items(), key=lambda item: (item[1], item[0]))
    )
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


# str.upper() would also change letters of other alphabets, some of them to two letters
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_GAPS = str.maketrans("", "", "-.")
_LETTERS = frozenset("ABCDEFGHIKLMNOPQRSTUVWXYZ")


def normalize_sequence(sequence: str, *, drop_gaps: bool, drop_stop: bool = False) -> tuple[str, Counter[str]]:
    """Normalize a sequence to the ``iupac`` alphabet, and count the changes.

    White space is removed, lower case becomes upper case, and J (leucine or isoleucine) becomes X.

    Args:
        sequence: residues as read from a file.
        drop_gaps: True for corpora: remove gaps ``-`` ``.`` and stops ``*``. False for records with a label per
            residue, where this would shift the labels; these characters are then an error.
        drop_stop: without ``drop_gaps``, for proteins without labels: remove stops ``*`` after the last residue, with
            which translated genes end. Gaps, and stops between residues, are an error.

    Returns:
        The sequence, and the counts ``lower_case``, ``J_to_X``, ``gap_removed``, ``stop_removed`` that are not 0.

    Raises:
        UnknownResidueError: any other character. Names it and its position (from 1, without white space).
    """
    changes: Counter[str] = Counter()
    text = "".join(sequence.split())
    if _LETTERS.issuperset(text):
        return text, changes
    upper = text.translate(_UPPER)
    if upper != text:
        changes["lower_case"] = sum(a != b for a, b in zip(text, upper, strict=True))
    if "J" in upper:
        changes["J_to_X"] = upper.count("J")
        upper = upper.replace("J", "X")
    if drop_gaps:
        without_gaps = upper.translate(_GAPS)
        clean = without_gaps.replace("*", "")
        changes["gap_removed"] = len(upper) - len(without_gaps)
        changes["stop_removed"] = len(without_gaps) - len(clean)
    elif drop_stop:
        clean = upper.rstrip("*")
        changes["stop_removed"] = len(upper) - len(clean)
    else:
        clean = upper
    for position, character in enumerate(clean, start=1):
        if character not in _LETTERS:
            allowed = f"allowed are the letters A to Z{_allowed_beside_letters(drop_gaps, drop_stop)}"
            raise UnknownResidueError(f"unknown residue {character!r} at position {position}; {allowed}")
    return clean, +changes


def _allowed_beside_letters(drop_gaps: bool, drop_stop: bool) -> str:
    if drop_gaps:
        return ", gaps '-' '.' and stops '*'"
    return " and stops '*' after the last of them" if drop_stop else " (no gaps or stops in a labeled record)"

"""The ids that TAPE's tokens have in a ``transformers`` model, from the tokenizer of its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, import_extra, quoted
from tape.tokenizers import IUPAC_VOCAB, SPECIAL_TOKENS

_RESIDUES = tuple(token for token in IUPAC_VOCAB if token not in SPECIAL_TOKENS)
_AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_REQUIRED = ("<pad>", "<cls>", "<sep>")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")
_SHOWN_TOKENS = 8  # of a wrong encoding, in its error


def import_transformers() -> Any:
    """The package ``transformers``.

    Raises:
        ConfigError: it is not installed.
    """
    return import_extra("transformers", "the model type huggingface needs the package transformers", "hf")


def read_token_ids(directory: Path) -> dict[str, int]:
    """The model's id of each token of the ``iupac`` vocabulary, by name.

    The tokenizer itself has to encode a protein, with or without spaces between its residues, as these ids. It is
    loaded from files alone: code in the directory is not executed.

    Args:
        directory: a directory with the files of a ``transformers`` tokenizer.

    Returns:
        Token of ``IUPAC_VOCAB`` -> id. ``<mask>`` is missing if the tokenizer has none. Residues that it lacks have the
        id of X, or without one that of the unknown token; see :func:`replaced_residues`.

    Raises:
        CheckpointError: there is no tokenizer, or none of single residues between two special tokens.
    """
    tokenizer = _load_tokenizer(directory)
    vocabulary = {str(token): int(index) for token, index in tokenizer.get_vocab().items()}
    ids = _special_ids(tokenizer, directory)
    own = {residue: index for residue in _RESIDUES if (index := _residue_id(vocabulary, residue)) is not None}
    lacking = [residue for residue in _AMINO_ACIDS if residue not in own]
    if lacking:
        raise CheckpointError(
            f"{directory}: its tokenizer has no token for {', '.join(lacking)}; only tokenizers with one token per"
            " residue are supported"
        )
    joint = next((token for token in vocabulary if len(token) > 1 and set(token) <= set(_AMINO_ACIDS)), None)
    if joint is not None:
        raise CheckpointError(
            f"{directory}: its tokenizer has tokens of several residues, such as {quoted(joint)}; only tokenizers with"
            " one token per residue are supported"
        )
    _check_encoding(tokenizer, {**ids, **own}, "".join(own), directory)
    substitute = own.get("X", ids.get("<unk>"))
    others = [residue for residue in _RESIDUES if residue not in own]
    if others and substitute is None:
        raise CheckpointError(
            f"{directory}: its tokenizer has no token for {', '.join(others)}, and neither X nor an unknown token"
        )
    ids.setdefault("<unk>", own.get("X", ids["<pad>"]))
    return {**ids, **own, **{residue: substitute for residue in others if substitute is not None}}


def replaced_residues(token_ids: Mapping[str, int]) -> list[str]:
    """The residues that the model has no token of its own for, so that it reads them as X or unknown."""
    substitutes = {token_ids["<unk>"], token_ids["X"]}
    return [residue for residue in _RESIDUES if token_ids[residue] in substitutes and residue != "X"]


def _load_tokenizer(directory: Path) -> Any:
    transformers = import_transformers()
    try:
        if not any(file for pattern in _TOKENIZER_FILES for file in directory.glob(pattern)):
            raise FileNotFoundError(f"no {', '.join(_TOKENIZER_FILES)}")  # transformers 5 makes an empty tokenizer then
        return transformers.AutoTokenizer.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers package raises plain Exception
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{directory}: transformers can't load a tokenizer from it ({reason}); save the one of the model beside"
            " its weights, as tokenizer.save_pretrained does"
        ) from error


def _special_ids(tokenizer: Any, directory: Path) -> dict[str, int]:
    """Ids of the special tokens; BERT's models end a sequence with the separator, ESM's with the end token."""
    names = {
        "<pad>": ("pad",),
        "<mask>": ("mask",),
        "<cls>": ("cls", "bos"),
        "<sep>": ("sep", "eos"),
        "<unk>": ("unk",),
    }
    found: dict[str, int] = {}
    for token, roles in names.items():
        ids = [getattr(tokenizer, f"{role}_token_id", None) for role in roles]
        chosen = next((index for index in ids if index is not None), None)
        if chosen is not None:
            found[token] = int(chosen)
    missing = [token for token in _REQUIRED if token not in found]
    if missing:
        raise CheckpointError(
            f"{directory}: its tokenizer has no token for {', '.join(missing)}, which encoders of proteins begin, end"
            " and are padded with"
        )
    return found


def _residue_id(vocabulary: Mapping[str, int], residue: str) -> int | None:
    """The id of a residue: its letter, that letter in SentencePiece's form, or in lower case."""
    return next((vocabulary[name] for name in (residue, f"▁{residue}", residue.lower()) if name in vocabulary), None)


def _check_encoding(tokenizer: Any, ids: Mapping[str, int], residues: str, directory: Path) -> None:
    """Check that the tokenizer encodes ``residues`` as their ids between those of ``<cls>`` and ``<sep>``."""
    protein = "M" + residues + residues[::-1]
    expected = [ids["<cls>"], *(ids[residue] for residue in protein), ids["<sep>"]]
    encodings = [list(tokenizer(text)["input_ids"]) for text in (protein, " ".join(protein))]
    if expected in encodings:
        return
    shown = " ".join(map(str, tokenizer.convert_ids_to_tokens(encodings[0][:_SHOWN_TOKENS])))
    raise CheckpointError(
        f"{directory}: its tokenizer encodes {quoted(protein[:_SHOWN_TOKENS])}... as {quoted(shown)}..., not as one"
        " token per residue between a first and a last special token, which is the only form supported"
    )

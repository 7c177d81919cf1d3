"""The tokenizer files of a Hugging Face directory: reading the vocabulary, and writing TAPE's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.formats.model_files import ModelFiles
from tape.errors import CheckpointError, quoted
from tape.io.json_files import read_json_object
from tape.io.vocabulary_files import read_vocabulary_file
from tape.io.writing import write_json
from tape.tokenizers import IUPAC_VOCAB, SPECIAL_TOKENS

_MOST_TOKENS = 1 << 24  # as in tape.configs; a list of all ids is made
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def read_vocabulary(files: ModelFiles, given: tuple[str, ...] | None) -> tuple[tuple[str, ...], str]:
    """Tokens by embedding row, and what states them: the option ``given``, or a file.

    Raises:
        CheckpointError: if neither does.
    """
    if given:
        return given, "option"
    folder = files.directory
    if (folder / "tokenizer.json").is_file():
        return _tokenizer_tokens(read_json_object(folder / "tokenizer.json"), folder), "tokenizer.json"
    if (folder / "vocab.txt").is_file():
        return read_vocabulary_file(folder / "vocab.txt").tokens, "vocab.txt"
    raise CheckpointError(
        f"{folder}: contains neither tokenizer.json nor vocab.txt, so the order of its {files.values.get('vocab_size')}"
        " tokens is unknown: give --vocab-file with the tokens of the embedding rows, one per line"
    )


def _tokenizer_tokens(values: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    try:
        ids = {str(token): int(number) for token, number in values["model"]["vocab"].items()}
        added = {str(entry["content"]): int(entry["id"]) for entry in values.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: contains no list of tokens with ids ({quoted(error)})"
        ) from error
    differing = next((token for token, number in added.items() if ids.get(token, number) != number), None)
    if differing is not None:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: token {quoted(differing)} has id {quoted(ids[differing])} in model.vocab,"
            f" but {quoted(added[differing])} in added_tokens"
        )
    ids |= added
    by_id: dict[int, str] = {}
    for token, number in ids.items():
        if number in by_id:
            raise CheckpointError(
                f"{folder / 'tokenizer.json'}: tokens {quoted(by_id[number])} and {quoted(token)} have the same id"
                f" {quoted(number)}"
            )
        by_id[number] = token
        if not 0 <= number < _MOST_TOKENS:
            raise CheckpointError(
                f"{folder / 'tokenizer.json'}: token {quoted(token)} has id {quoted(number)}, which is not from 0 to"
                f" {_MOST_TOKENS - 1:,}"
            )
    return tuple(by_id.get(number, "") for number in range(max(by_id, default=-1) + 1))


def write_tokenizer(folder: Path, longest: int) -> None:
    """Write a tokenizer with one token per letter between ``<cls>`` and ``<sep>``, which normalizes as TAPE's does."""
    write_json(folder / "tokenizer.json", tokenizer())
    names = {f"{token.strip('<>')}_token": token for token in SPECIAL_TOKENS}
    write_json(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    inputs = {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {**settings, **inputs, **names})


def tokenizer() -> dict[str, Any]:
    """``tokenizer.json`` of the ``tokenizers`` library, format 1.0."""
    upper = [_replace({"String": letter}, letter.upper()) for letter in "abcdefghijklmnopqrstuvwxyz"]
    rest = [_replace({"String": "J"}, "X"), _replace({"Regex": r"\s"}, "")]
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<cls>", "<sep>"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token) for token in SPECIAL_TOKENS],
        "normalizer": {"type": "Sequence", "normalizers": upper + rest},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, second, sep],
            "special_tokens": {
                token: {"id": token, "ids": [IUPAC_VOCAB[token]], "tokens": [token]} for token in ("<cls>", "<sep>")
            },
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": dict(IUPAC_VOCAB), "unk_token": "<unk>"},
    }


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _added(token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": IUPAC_VOCAB[token], "content": token, "special": True, **flags}

"""Corpora record the vocabulary of their ids; a corpus with another vocabulary is an error that names both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pretrain.data.corpus import open_corpus, read_description
from pretrain.data.indexed_dataset import IndexedDatasetWriter
from pretrain.data.vocabulary import MEGATRON_TOKENS, TAPE_TOKENS
from tape.errors import DataError, VocabularyMismatchError
from tape.io.vocabulary_files import read_vocabulary_file
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()
PROTEIN_TOOLS = Path(__file__).parents[3] / "pretrain" / "protein_tools"
MEGATRON = PROTEIN_TOOLS / "megatron_iupac_vocab.txt"


def write_megatron(prefix: Path, proteins: list[str]) -> Path:
    """Write a corpus like Megatron-LM's: 31 tokens, no sidecar."""
    tokens = read_vocabulary_file(MEGATRON).tokens
    with IndexedDatasetWriter(prefix, 31) as writer:
        for protein in proteins:
            writer.add(np.array([tokens.index(residue) for residue in protein]), [len(protein)], [1])
    return prefix


def test_embedded_vocabulary_files_are_those_of_tape_and_megatron() -> None:
    ours, megatrons = read_vocabulary_file(PROTEIN_TOOLS / "iupac_vocab.txt"), read_vocabulary_file(MEGATRON)
    assert list(ours.tokens) == TOKENIZER.tokens
    assert ours.fingerprint == TOKENIZER.fingerprint
    assert megatrons.tokens[:7] == ("[PAD]", "[MASK]", "[CLS]", "[SEP]", "[UNK]", "[unused1]", "A")
    assert (len(megatrons.tokens), megatrons.tokens[30]) == (31, "Z")
    assert megatrons.fingerprint != ours.fingerprint
    assert (ours.tokens, megatrons.tokens) == (TAPE_TOKENS, MEGATRON_TOKENS)


def test_residues_decode_to_the_proteins(corpus_prefix: Path, proteins: list[str]) -> None:
    corpus = open_corpus(corpus_prefix, TOKENIZER)
    assert len(corpus) == len(proteins)
    assert [TOKENIZER.decode(corpus.residues(i)) for i in range(5)] == proteins[:5]
    assert TOKENIZER.decode(corpus.residues(3, 2, 3)) == proteins[3][2:5]


def test_prefix_may_have_a_suffix(corpus_prefix: Path) -> None:
    assert open_corpus(f"{corpus_prefix}.bin", TOKENIZER).prefix == str(corpus_prefix)


def test_error_for_another_vocabulary_names_both(tmp_path: Path) -> None:
    prefix = write_megatron(tmp_path / "old", ["ACDEF"])
    megatrons = read_vocabulary_file(MEGATRON)
    description = {
        "format": "proteinlm-corpus",
        "version": 1,
        "documents": 1,
        "tokens": 5,
        "tokenizer": "other31",
        "vocabulary_fingerprint": megatrons.fingerprint,
        "sources": [],
        "substitutions": {},
        "filtered": {},
    }
    (tmp_path / "old.json").write_text(json.dumps(description))
    with pytest.raises(VocabularyMismatchError, match=f"old: .*other31.*{megatrons.fingerprint}.*iupac"):
        open_corpus(prefix, TOKENIZER)
    assert TOKENIZER.decode(open_corpus(prefix, TOKENIZER, MEGATRON).residues(0)) == "ACDEF"


def test_corpus_without_sidecar_requires_its_vocabulary_file(tmp_path: Path) -> None:
    prefix = write_megatron(tmp_path / "old", ["ACDEFGHIKLMNPQRSTVWYZ" * 200])
    with pytest.raises(VocabularyMismatchError, match=r"old.json is missing.*--vocab-file"):
        open_corpus(prefix, TOKENIZER)
    assert TOKENIZER.decode(open_corpus(prefix, TOKENIZER, MEGATRON).residues(0, 0, 21)) == "ACDEFGHIKLMNPQRSTVWYZ"


def test_wrong_vocabulary_file_is_detected(tmp_path: Path) -> None:
    """With the 30-token file every residue would shift by one; the absence of alanine reveals it."""
    prefix = write_megatron(tmp_path / "old", ["ACDEFGHIKLMNPQRSTVWY" * 200])
    with pytest.raises(VocabularyMismatchError, match="no alanine"):
        open_corpus(prefix, TOKENIZER, PROTEIN_TOOLS / "iupac_vocab.txt")
    prefix = write_megatron(tmp_path / "short", ["ACZ"])
    with pytest.raises(VocabularyMismatchError, match="has id 30"):
        open_corpus(prefix, TOKENIZER, PROTEIN_TOOLS / "iupac_vocab.txt")


NATURAL = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"


def write_ours(prefix: Path, protein: str) -> Path:
    """Write a corpus of TAPE's ids without sidecar."""
    with IndexedDatasetWriter(prefix, 30) as writer:
        writer.add(TOKENIZER.encode_residues(protein), [len(protein)], [1])
    return prefix


@pytest.mark.parametrize("length", [20, 56])
def test_wrong_vocabulary_file_is_detected_in_a_small_corpus(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By the residue frequencies; the right file causes no warning."""
    protein = NATURAL[:length]
    prefix = write_megatron(tmp_path / "old", [protein])
    with pytest.raises(VocabularyMismatchError, match=r"old: not written with .*iupac_vocab.txt: .*Megatron's 31"):
        open_corpus(prefix, TOKENIZER, PROTEIN_TOOLS / "iupac_vocab.txt")
    assert TOKENIZER.decode(open_corpus(prefix, TOKENIZER, MEGATRON).residues(0)) == protein
    prefix = write_ours(tmp_path / "ours", NATURAL.replace("A", "G"))
    with pytest.raises(VocabularyMismatchError, match=r"ours: not written with .*: .*TAPE's 30"):
        open_corpus(prefix, TOKENIZER, MEGATRON)
    assert len(open_corpus(prefix, TOKENIZER, PROTEIN_TOOLS / "iupac_vocab.txt")) == 1
    assert not caplog.records


def test_too_few_residues_to_check_the_vocabulary_cause_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = write_megatron(tmp_path / "old", ["MKQ"])
    assert TOKENIZER.decode(open_corpus(prefix, TOKENIZER, MEGATRON).residues(0)) == "MKQ"
    (message,) = caplog.messages
    assert message == f"{prefix}: too few residues to distinguish {MEGATRON} from TAPE's 30 tokens"


def test_a_corpus_without_documents_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = write_ours(tmp_path / "merged", NATURAL)
    index = bytearray((tmp_path / "merged.idx").read_bytes()[:-8])
    index[26:34] = (1).to_bytes(8, "little")
    (tmp_path / "merged.idx").write_bytes(index)
    assert len(open_corpus(prefix, TOKENIZER, PROTEIN_TOOLS / "iupac_vocab.txt")) == 1
    assert f"{prefix}.idx: has no document boundaries" in caplog.messages[0]


def test_long_runs_of_x_do_not_affect_the_vocabulary_check(tmp_path: Path) -> None:
    protein = NATURAL[:20] + "X" * 500 + NATURAL[20:] + "Q" * 40
    prefix = write_megatron(tmp_path / "old", [protein])
    assert TOKENIZER.decode(open_corpus(prefix, TOKENIZER, MEGATRON).residues(0)) == protein
    with pytest.raises(VocabularyMismatchError):
        open_corpus(prefix, TOKENIZER, PROTEIN_TOOLS / "iupac_vocab.txt")


def test_reading_an_id_that_is_not_a_residue_is_an_error(tmp_path: Path) -> None:
    prefix = write_megatron(tmp_path / "old", ["ACDEF", "ACDEF"])
    content = bytearray((tmp_path / "old.bin").read_bytes())
    corpus = open_corpus(prefix, TOKENIZER, MEGATRON)
    content[-2:] = b"\x02\x00"  # [CLS]
    (tmp_path / "old.bin").write_bytes(content)
    with pytest.raises(DataError, match="protein 1 has an id"):
        corpus.residues(1)


@pytest.mark.parametrize("content", ["{", '{"format": "x", "version": 1}', "[]"])
def test_error_names_the_damaged_sidecar(tmp_path: Path, content: str) -> None:
    write_megatron(tmp_path / "x", ["ACD"])
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x\.json"):
        read_description(tmp_path / "x")


def test_sidecar_of_another_corpus_is_an_error(corpus_prefix: Path, tmp_path: Path) -> None:
    write_megatron(tmp_path / "x", ["ACD"])
    (tmp_path / "x.json").write_text(Path(f"{corpus_prefix}.json").read_text())
    with pytest.raises(DataError, match=r"x\.json: records"):
        open_corpus(tmp_path / "x", TOKENIZER)


@pytest.mark.parametrize(("content", "message"), [("", "empty"), ("A\nA\n", "twice"), ("A\nC\n", "lacks")])
def test_invalid_vocabulary_file_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    prefix = write_megatron(tmp_path / "x", ["ACD"])
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        open_corpus(prefix, TOKENIZER, path)

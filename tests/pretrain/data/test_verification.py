"""The digests in a corpus's sidecar: written by preprocessing, compared by a run in the background or at its start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.data.corpus import read_description
from pretrain.data.verification import CorpusVerification, verify_corpus
from tape.errors import ConfigError, DataError
from tape.io.checksums import sha256_of

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]


@pytest.fixture
def prefix(corpus_prefix: Path, tmp_path: Path) -> str:
    """A copy of the tiny corpus."""
    for suffix in (".bin", ".idx", ".json"):
        shutil.copy(f"{corpus_prefix}{suffix}", tmp_path / f"copy{suffix}")
    return str(tmp_path / "copy")


def flip(path: str) -> None:
    """Change one bit; the size stays."""
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)


def test_preprocessing_records_the_digests_of_both_files(prefix: str) -> None:
    description = read_description(prefix)
    assert description is not None
    assert description.sha256 == {name: sha256_of(Path(f"{prefix}.{name}")) for name in ("bin", "idx")}
    verify_corpus(prefix)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_flipped_bit_is_an_error_that_names_the_file(prefix: str, suffix: str) -> None:
    flip(prefix + suffix)
    with pytest.raises(DataError, match=rf"copy\{suffix}: damaged, or changed .* copy\.json beside it has "):
        verify_corpus(prefix)


def test_a_corpus_without_digests_passes(prefix: str) -> None:
    values = json.loads(Path(f"{prefix}.json").read_text())
    del values["sha256"]
    Path(f"{prefix}.json").write_text(json.dumps(values))
    flip(f"{prefix}.bin")
    verify_corpus(prefix)
    Path(f"{prefix}.json").unlink()  # as Megatron-LM's corpora
    verify_corpus(prefix)


def test_at_the_start_the_error_comes_before_the_block(prefix: str) -> None:
    flip(f"{prefix}.bin")
    with pytest.raises(DataError, match="damaged"), CorpusVerification([prefix], "start"):
        pytest.fail("the block was entered")


def test_in_the_background_the_error_comes_with_the_next_batch(prefix: str) -> None:
    flip(f"{prefix}.bin")
    with CorpusVerification([prefix], "background") as verification:
        with pytest.raises(DataError, match=r"copy\.bin: damaged"):
            verification.finish(60)
        with pytest.raises(DataError, match=r"copy\.bin: damaged"):
            next(verification.checked([1]))


def test_whole_corpora_hand_on_every_batch(prefix: str) -> None:
    with CorpusVerification([prefix, prefix], "background") as verification:
        verification.finish(60)
        assert list(verification.checked([1, 2])) == [1, 2]


def test_a_damaged_corpus_is_read_without_verification(prefix: str) -> None:
    flip(f"{prefix}.bin")
    with CorpusVerification([prefix], "never") as verification:
        assert list(verification.checked([1])) == [1]


def test_leaving_the_block_stops_the_comparison(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends early does not wait for a large corpus."""
    monkeypatch.setattr("pretrain.data.verification._BLOCK_BYTES", 1)
    with CorpusVerification([prefix], "background") as verification:
        pass
    assert not verification._thread.is_alive()


def test_an_unknown_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="--verify-data must be one of background, start, never, not later"):
        CorpusVerification([], "later")


def test_a_run_ends_with_the_error(prefix: str, flags: Flags, pretrain_here: Run) -> None:
    flip(f"{prefix}.bin")
    command = flags("--data-path", prefix, "--eval-iters", 0, train_iters=3)
    for extra in ([], ["--verify-data"]):
        with pytest.raises(DataError, match=r"copy\.bin: damaged, or changed after it was written"):
            pretrain_here([*command, *extra])
    pretrain_here([*command, "--verify-data", "never"])


@pytest.mark.distributed
@pytest.mark.parametrize("extra", [[], ["--verify-data"]])
def test_all_ranks_end_with_the_error_of_the_main_rank(
    prefix: str, flags: Flags, torchrun: Callable[..., Any], repository_root: Path, extra: list[str]
) -> None:
    flip(f"{prefix}.bin")
    script = repository_root / "pretrain" / "pretrain_tape.py"
    command = flags("--data-path", prefix, "--eval-iters", 0, "--tensor-model-parallel-size", 2, *extra)
    result = torchrun(2, script, *command, check=False)
    assert result.returncode != 0
    assert f"error: {prefix}.bin: damaged, or changed after it was written" in result.stderr
    assert f'File "{script}"' not in result.stderr  # no traceback but the launcher's

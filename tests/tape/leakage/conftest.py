"""Training proteins of known identity to the test protein, and the stand-in for MMseqs2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.leakage.proteins import Protein
from tests.support.fake_mmseqs import install_fake_mmseqs
from tests.support.known_identities import RELATIVES, random_sequence


@pytest.fixture(params=list(RELATIVES))
def relative(request: pytest.FixtureRequest) -> tuple[Protein, float, float]:
    """(training protein, its identity to QUERY, coverage of QUERY)."""
    sequence, identity, coverage = RELATIVES[request.param]
    return Protein(request.param, sequence), identity, coverage


@pytest.fixture
def unrelated() -> list[Protein]:
    return [Protein(f"unrelated {number}", random_sequence(200, 100 + number)) for number in range(5)]


@pytest.fixture
def fake_mmseqs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in for MMseqs2, which is the only program on the PATH."""
    program = install_fake_mmseqs(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(program.parent))
    return program

"""Searching with MMseqs2: the program itself where it is installed, and a stand-in for the command that is run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tape.errors import ProteinLMError
from tape.leakage.config import SearchSettings
from tape.leakage.hits import Hit
from tape.leakage.mmseqs import find_mmseqs, mmseqs_options, mmseqs_version, search_mmseqs
from tape.leakage.proteins import Protein
from tests.support.child_processes import exit_code_of_child
from tests.support.fake_mmseqs import VERSION
from tests.support.known_identities import QUERY, mutated, random_sequence

SETTINGS = SearchSettings()


def has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def mmseqs() -> str:
    program = find_mmseqs()
    if program is None:
        pytest.skip("needs MMseqs2: apt install mmseqs2")
    return program


def test_identity_is_that_of_the_made_alignment(
    mmseqs: str, relative: tuple[Protein, float, float], unrelated: list[Protein]
) -> None:
    protein, identity, coverage = relative
    hits = search_mmseqs(mmseqs, [QUERY, random_sequence(200, 7)], [*unrelated, protein], SETTINGS)
    assert hits[0] is not None
    assert hits[0].identifier == protein.identifier
    assert hits[0].identity == pytest.approx(identity)
    assert hits[0].coverage == pytest.approx(coverage, abs=0.1)
    assert hits[1] is None


def test_the_conditions_of_a_hit_are_kept(mmseqs: str) -> None:
    proteins = [Protein("x", QUERY[:80]), Protein("sp|P83570|NAME", "ACDEFG")]
    assert search_mmseqs(mmseqs, [QUERY, "ACDEFG"], proteins, SETTINGS) == [None, Hit("sp|P83570|NAME", 100.0, 100.0)]
    (hit,) = search_mmseqs(mmseqs, [QUERY], proteins, SearchSettings(coverage=0.3))
    assert hit is not None


def test_the_best_hit_of_each_query_is_read(fake_mmseqs: Path) -> None:
    proteins = [
        Protein("far", mutated(QUERY, 4)),
        Protein("near one|x", mutated(QUERY, 10)),
        Protein("other", random_sequence(200, 8)),
    ]
    hits = search_mmseqs(str(fake_mmseqs), [QUERY, "WWWW", proteins[2].residues], proteins, SETTINGS)
    assert hits == [Hit("near one|x", 90.0, 100.0), None, Hit("other", 100.0, 100.0)]
    words = (fake_mmseqs.parent / "arguments").read_text().splitlines()
    assert words[0] == "easy-search"
    assert words[5:-4] == mmseqs_options(SETTINGS)
    assert words[-4:] == ["--format-output", "query,nident,alnlen,qcov,theader", "--threads", "1"]


def test_queries_that_are_all_in_the_training_data_need_no_search(fake_mmseqs: Path) -> None:
    assert search_mmseqs(str(fake_mmseqs), ["ACDC"], [Protein("x", "ACDC")], SETTINGS) == [Hit("x", 100.0, 100.0)]
    assert not (fake_mmseqs.parent / "arguments").exists()


def test_a_failure_shows_the_end_of_the_output(fake_mmseqs: Path) -> None:
    (fake_mmseqs.parent / "fail").touch()
    with pytest.raises(ProteinLMError, match=r"MMseqs2 failed \(exit code 3\)") as caught:
        search_mmseqs(str(fake_mmseqs), [QUERY], [Protein("x", "ACDC")], SETTINGS)
    assert list(caught.value.details) == ["Can not allocate memory"]


def test_an_unreadable_table_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "mmseqs"
    program.write_text('#!/bin/sh\necho "0 nothing" > "$4"\n')
    program.chmod(0o755)
    with pytest.raises(ProteinLMError, match=r"MMseqs2 wrote '0 nothing\\n', not query, nident"):
        search_mmseqs(str(program), [QUERY], [Protein("x", "ACDC")], SETTINGS)


def test_the_version_is_the_programs(fake_mmseqs: Path, tmp_path: Path) -> None:
    assert mmseqs_version(str(fake_mmseqs)) == VERSION
    with pytest.raises(ProteinLMError, match="can't be run .* install MMseqs2 again"):
        mmseqs_version(str(tmp_path / "gone"))


def test_a_stop_signal_also_ends_the_processes_of_the_search(tmp_path: Path) -> None:
    """MMseqs2 is a shell script that starts others, which a signal to this process would leave running."""
    program = tmp_path / "mmseqs"
    program.write_text(f"#!/bin/sh\n(echo $$ > {tmp_path}/running; exec sleep 60)\necho late > {tmp_path}/late\n")
    program.chmod(0o755)

    def interrupted() -> int:
        parent = os.getpid()
        if os.fork() == 0:
            while not (tmp_path / "running").exists():
                time.sleep(0.02)
            os.kill(parent, signal.SIGINT)
            os._exit(0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            search_mmseqs(str(program), [QUERY], [Protein("x", "ACDC")], SETTINGS)
        except KeyboardInterrupt:
            return 7
        return 0

    assert exit_code_of_child(interrupted, seconds=20) == 7
    group = int((tmp_path / "running").read_text())
    for _ in range(100):  # until init has collected the members of the group
        if not has_processes(group):
            break
        time.sleep(0.05)
    assert not has_processes(group)
    assert not (tmp_path / "late").exists()

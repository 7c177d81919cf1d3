"""One command at a time writes an output directory or file."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tape.errors import ConfigError, OutputError
from tape.io import file_locks
from tape.runtime import run_lock as module
from tape.runtime.process_identity import identify
from tape.runtime.run_lock import lock_beside, lock_in, read_owner, run_lock
from tests.support.run_locks import idle_process, owner_of, write_lock

ELSEWHERE = "node9 pid:[1] boot"


def test_the_lock_names_this_process_and_is_removed_at_the_end(tmp_path: Path) -> None:
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        owner = read_owner(lock_in(tmp_path))
        assert owner is not None
        assert owner.process == identify(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_directory_made_for_the_lock_alone_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    with run_lock(lock_in(directory), directory, "choose another"):
        assert directory.is_dir()
    assert not directory.exists()


def test_the_lock_beside_a_file_is_hidden_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert lock_beside(tmp_path / "link" / "o.npz") == tmp_path.resolve() / "real" / ".o.npz.lock"


def test_a_second_command_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    with idle_process() as child:
        write_lock(lock_in(tmp_path), owner_of(child.pid))
        with pytest.raises(ConfigError) as caught, run_lock(lock_in(tmp_path), tmp_path, "choose another --save"):
            pass
    for part in (str(tmp_path), f"process {child.pid} on", "pretrain_tape.py --save X", "choose another --save"):
        assert part in str(caught.value)
    assert read_owner(lock_in(tmp_path)) is not None  # the owner keeps it


@pytest.mark.parametrize("kind", ["directory", "dangling link"])
def test_what_is_no_lock_is_named_at_once(tmp_path: Path, kind: str) -> None:
    if kind == "directory":
        lock_in(tmp_path).mkdir()
    else:
        lock_in(tmp_path).symlink_to(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"\.lock is not a lock"), run_lock(lock_in(tmp_path), tmp_path, "wait"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with idle_process() as child:
        write_lock(lock_in(tmp_path), owner_of(child.pid))
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        owner = read_owner(lock_in(tmp_path))
    assert owner is not None
    assert owner.process.number == os.getpid()
    assert f"process {child.pid} on" in caplog.text
    assert "ended without removing its lock; taken over" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"process": 1}'])
def test_a_damaged_lock_has_no_known_owner(tmp_path: Path, content: bytes) -> None:
    lock_in(tmp_path).write_bytes(content)
    assert read_owner(lock_in(tmp_path)) is None


def test_a_process_on_another_machine_that_renews_its_lock_keeps_it(tmp_path: Path) -> None:
    file = lock_in(tmp_path)
    write_lock(file, owner_of(1, machine=ELSEWHERE))
    timer = threading.Timer(0.7, os.utime, (file,))
    timer.start()
    with pytest.raises(ConfigError, match="in use by process 1 on node9"), run_lock(file, tmp_path, "choose another"):
        pass
    timer.join()


@pytest.mark.parametrize("content", [None, "", "[]", '{"process": 1}'])
def test_a_silent_owner_that_cannot_be_looked_at_loses_its_lock(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is on another machine, or the lock is damaged."""
    monkeypatch.setattr(module, "SILENCE_SECONDS", 1.0)
    write_lock(lock_in(tmp_path), owner_of(1, machine=ELSEWHERE))
    if content is not None:
        lock_in(tmp_path).write_text(content, encoding="utf-8")
    began = time.monotonic()
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        assert time.monotonic() - began >= 1.0
    assert "watching for 1 s whether it is alive" in caplog.text


def test_an_owner_whose_launcher_has_ended_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with idle_process() as child:
        orphan = replace(owner_of(child.pid), launcher=replace(identify(os.getpid()), started="1"))
        write_lock(lock_in(tmp_path), orphan)
        timer = threading.Timer(0.7, child.kill)
        timer.start()
        with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
            assert child.wait() < 0
        timer.join()
    assert "for it to end, since its launcher has ended" in caplog.text


def test_an_orphan_that_does_not_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ORPHAN_SECONDS", 1.0)
    with idle_process() as child:
        write_lock(
            lock_in(tmp_path), replace(owner_of(child.pid), launcher=replace(identify(os.getpid()), started="1"))
        )
        with pytest.raises(ConfigError, match="in use by"), run_lock(lock_in(tmp_path), tmp_path, "choose another"):
            pass


def test_without_hard_links_the_lock_is_exclusive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(os, "link", link)
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"), pytest.raises(ConfigError, match="in use by"):
        with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
            pass
    assert list(tmp_path.iterdir()) == []


def _refuse_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(file_locks, "_announced", set())


def test_a_takeover_without_file_locks_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise, the lock's owner need not be found by file locks."""
    _refuse_locks(monkeypatch)
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        assert caplog.messages == []
    with idle_process() as child:
        write_lock(lock_in(tmp_path), owner_of(child.pid))
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        pass
    assert "has no locks (Function not implemented); do not start two commands" in caplog.messages[0]
    assert "taken over" in caplog.messages[1]


def test_without_file_locks_a_run_removes_the_leftovers_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_locks(monkeypatch)
    (tmp_path / ".iter_0000002.abcdefgh.tmp").mkdir()
    (tmp_path / ".iter_0000002.abcdefgh.tmp" / "lock").touch()
    (tmp_path / ".model.abcdefgh.tmp").touch()
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    (tmp_path / ".model.abcdefgh.tmp").touch()
    with run_lock(lock_beside(tmp_path / "model"), tmp_path / "model", "choose another"):
        assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_a_command_whose_unfinished_lock_was_removed_as_a_leftover_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the owner of the lock, on a file system without file locks."""
    link, removed = os.link, []

    def remove_first(source: Path, target: Path) -> None:
        if not removed:
            removed.append(source)
            source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", remove_first)
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert len(removed) == 1


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with (
        pytest.raises(OutputError, match=r"\.lock: can't be written: No space left.* are free"),
        run_lock(lock_in(tmp_path), tmp_path, "choose another"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def _contend(folder: str, start: float, results: multiprocessing.Queue[bool], end: Event) -> None:
    time.sleep(max(0.0, start - time.time()))
    try:
        with run_lock(lock_in(Path(folder)), Path(folder), "choose another"):
            results.put(True)
            end.wait(30)
    except ConfigError:
        results.put(False)


@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_of_several_commands_started_at_once_one_gets_the_lock(stale: bool, tmp_path: Path) -> None:
    if stale:
        write_lock(lock_in(tmp_path), owner_of(os.getpid(), started="1"))
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[bool] = context.Queue()
    end = context.Event()
    arguments = (str(tmp_path), time.time() + 0.2, results, end)
    processes = [context.Process(target=_contend, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=30) for _ in processes]
    end.set()
    for process in processes:
        process.join()
    assert sorted(outcomes) == [False] * 5 + [True]


_HOLD = """
import sys, time
from pathlib import Path
from tape.runtime import run_lock as module
module.HEARTBEAT_SECONDS = 0.1
with module.run_lock(Path(sys.argv[1]), Path("X"), ""):
    print("held", flush=True)
    time.sleep(20)
"""


def test_a_process_whose_lock_was_taken_over_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(lock_in(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        temporary = tmp_path / "other"
        write_lock(temporary, owner_of(os.getpid()))
        os.replace(temporary, lock_in(tmp_path))
        _, shown = child.communicate(timeout=10)
    assert child.returncode == 1
    assert f"error: X: taken over by process {os.getpid()}" in shown


def test_the_modification_time_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    with run_lock(lock_in(tmp_path), tmp_path, "choose another"):
        os.utime(lock_in(tmp_path), (1, 1))
        deadline = time.monotonic() + 5
        while lock_in(tmp_path).stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)

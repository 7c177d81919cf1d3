"""The lock of an output directory or file: one command at a time writes there.

The lock is a hidden JSON file that names its owner: host, process, start of the process, command. It is created
complete, under a temporary name, and gets its own name by link(2), which fails if the name exists, over NFS too. While
the command runs, a thread renews the modification time every few seconds; at the end, also after an error, the file is
removed. A killed process leaves it behind. The next command decides by the owner:

- on the same machine, a process that has ended has lost the lock; it is taken over with a notice;
- a process whose launcher (torchrun) has ended is about to end itself, and is waited for;
- any other process on the same machine keeps the lock: an error that names it;
- a process on another machine, or in another container, keeps the lock if the modification time changes while it is
  watched, and has lost it if the time does not change for a minute. Clocks of different machines are not compared.

A process that finds its own lock in other hands, because it was suspended for more than a minute, ends.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from tape.errors import ConfigError, OutputError, print_error
from tape.interrupts import stop_allowed, stop_deferred
from tape.io.credentials import without_credentials
from tape.io.file_locks import lock_file
from tape.io.writing import output_errors, remove_leftovers, temporary_file

from .launcher_monitor import GRACE_SECONDS
from .process_identity import ProcessIdentity, find_launcher, identify, this_machine

HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 60.0
"""Without a heartbeat for so long, the owner on another machine is taken to be dead."""
ORPHAN_SECONDS = GRACE_SECONDS + 30
"""How long to wait for a process whose launcher has ended; :mod:`tape.runtime.launcher_monitor` ends it before."""
_POLL_SECONDS = 0.5
_LONGEST_COMMAND = 200
_LARGEST_LOCK = 1 << 16  # bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LockOwner:
    """The content of a lock.

    Attributes:
        token: unique per lock.
        process: the process that holds it.
        launcher: the torchrun process that started the owner; None without torchrun.
        since: UTC time of its creation.
        command: command line of the process, shortened.
    """

    token: str
    process: ProcessIdentity
    launcher: ProcessIdentity | None
    since: str
    command: str

    def __str__(self) -> str:
        host = self.process.machine.partition(" ")[0]
        return f"process {self.process.number} on {host} since {self.since} ({self.command})"


def lock_in(directory: Path) -> Path:
    """The lock file of a directory into which a command writes."""
    return directory / ".lock"


def lock_beside(target: Path) -> Path:
    """The lock file of a file or directory that a command creates or replaces as a whole."""
    target = target.resolve()
    return target.with_name(f".{target.name}.lock")


@contextmanager
def run_lock(file: Path, target: Path, advice: str) -> Iterator[None]:
    """Hold a lock inside the block.

    Args:
        file: the lock file, from :func:`lock_in` or :func:`lock_beside`; its folder is created if it does not exist.
        target: what it protects, for messages.
        advice: what the user can do if another command holds it, such as ``choose another --save``.

    Raises:
        ConfigError: another command holds it. Names the owner. Or the lock's name belongs to something else.
    """
    is_new = not file.parent.exists()
    owner = _this_process()
    with stop_deferred():
        try:
            with stop_allowed():
                file.parent.mkdir(parents=True, exist_ok=True)
                _acquire(file, target, owner, advice)
                _remove_leftovers(file)
                with _renewed(file, target, owner):
                    yield
        finally:
            if _is_owned_by(file, owner):
                file.unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):  # not empty: the command has written something
                    file.parent.rmdir()


@contextmanager
def _renewed(file: Path, target: Path, owner: LockOwner) -> Iterator[None]:
    """Renew the modification time of a lock inside the block."""
    closed = threading.Event()
    arguments = (file, target, owner, closed)
    thread = threading.Thread(target=_renew, args=arguments, name="run lock", daemon=True)
    with stop_deferred():
        thread.start()
        try:
            with stop_allowed():
                yield
        finally:
            closed.set()
            thread.join()


def _remove_leftovers(file: Path) -> None:
    """Remove what earlier commands that were killed have left of what this lock protects, and of the lock itself."""
    name = file.name.removeprefix(".").removesuffix(".lock")
    if file.name == lock_in(file.parent).name:
        remove_leftovers(file.parent, exclusive=True)
    else:
        remove_leftovers(file.parent, name, exclusive=True)
        remove_leftovers(file.parent, f"{name}.lock")


def read_owner(file: Path) -> LockOwner | None:
    """The owner of a lock; None if there is no lock, or a damaged one."""
    try:
        with file.open("rb") as stream:
            values = json.loads(stream.read(_LARGEST_LOCK))
        launcher = values["launcher"] and ProcessIdentity(**values["launcher"])
        return LockOwner(**values | {"process": ProcessIdentity(**values["process"]), "launcher": launcher})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _this_process() -> LockOwner:
    command = without_credentials(shlex.join(sys.orig_argv))
    return LockOwner(
        token=uuid.uuid4().hex,
        process=identify(os.getpid()),
        launcher=find_launcher(os.environ),
        since=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        command=command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]}...",
    )


def _acquire(file: Path, target: Path, owner: LockOwner, advice: str) -> None:
    watch = _Watch(file)
    while not _create(file, owner):
        if os.path.lexists(file) and (file.is_symlink() or file.is_dir()):
            raise ConfigError(f"{target}: {file} is not a lock, but a link or a directory; remove it")
        found = read_owner(file)
        if not file.exists():
            continue
        if watch.is_abandoned(found):
            _take_over(file, target, found)
        elif found is not None and watch.is_held(found):
            raise ConfigError(
                f"{target}: in use by {found}. Wait until it ends, or {advice}; if nothing writes there, remove {file}"
            )
        else:
            watch.announce(target, found)
            time.sleep(_POLL_SECONDS)


class _Watch:
    """Observation of a lock that another process owns."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._began = time.monotonic()
        self._seen: tuple[str, int] | None = None
        self._announced = False

    def is_abandoned(self, owner: LockOwner | None) -> bool:
        """Whether the owner has lost the lock."""
        if owner is not None and owner.process.has_ended():
            return True
        return self._is_unknown(owner) and not self._has_changed(owner) and self._seconds >= SILENCE_SECONDS

    def is_held(self, owner: LockOwner) -> bool:
        """Whether the owner is alive and is not about to end."""
        if self._is_unknown(owner):
            return self._has_changed(owner)
        orphaned = owner.launcher is not None and owner.launcher.has_ended()
        return not orphaned or self._seconds >= ORPHAN_SECONDS

    def announce(self, target: Path, owner: LockOwner | None) -> None:
        """Log once what is being waited for."""
        if not self._announced:
            if owner is None or self._is_unknown(owner):
                text = f"watching for {SILENCE_SECONDS:.0f} s whether it is alive"
            else:
                text = f"waiting at most {ORPHAN_SECONDS:.0f} s for it to end, since its launcher has ended"
            logger.warning("%s: in use by %s; %s", target, owner or "an unknown process", text)
        self._announced = True

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _is_unknown(self, owner: LockOwner | None) -> bool:
        """Whether the owner's process can't be looked at from here."""
        return owner is None or owner.process.machine != this_machine()

    def _has_changed(self, owner: LockOwner | None) -> bool:
        """Whether the modification time has changed since this owner was first seen."""
        try:
            with self._file.open("rb") as stream:  # opening a file makes NFS ask the server for its attributes
                now = (owner.token if owner is not None else "", os.fstat(stream.fileno()).st_mtime_ns)
        except OSError:
            return False
        if self._seen is None or self._seen[0] != now[0]:
            self._seen, self._began = now, time.monotonic()
        return self._seen != now


def _create(file: Path, owner: LockOwner) -> bool:
    """Create the lock; False if it exists."""
    content, name = json.dumps(asdict(owner)), file.name.removeprefix(".")
    with stop_deferred(), output_errors(file), temporary_file(file.parent, name, "w") as (temporary, stream):
        os.fchmod(stream.fileno(), 0o644)  # other users may see who it is
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
        return _link(temporary, file, content)


def _link(temporary: Path, file: Path, content: str) -> bool:
    """Give a complete file its name, if that is free; False if not."""
    try:
        os.link(temporary, file)
    except (FileExistsError, FileNotFoundError):  # not found: without file locks, the owner takes it for a leftover
        return False
    except OSError:  # a file system without hard links
        return _create_without_links(file, content)
    return True


def _create_without_links(file: Path, content: str) -> bool:
    try:
        stream = file.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with stream:
            stream.write(content)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return True


def _take_over(file: Path, target: Path, owner: LockOwner | None) -> None:
    """Remove the lock of a dead owner, unless another process has done so meanwhile."""
    try:
        with file.open("rb+") as stream:
            lock_file(stream, file, "do not start two commands that write there at the same moment")
            if read_owner(file) == owner and os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                found = owner or "an unknown process"
                logger.warning("%s: %s ended without removing its lock; taken over", target, found)
                file.unlink()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # another process has removed it (ESTALE: on NFS)
            raise


def _is_owned_by(file: Path, owner: LockOwner) -> bool:
    found = read_owner(file)
    return found is not None and found.token == owner.token


def _renew(file: Path, target: Path, owner: LockOwner, closed: threading.Event) -> None:
    """Renew the modification time until the lock is released; end the process if another one has taken the lock."""
    while not closed.wait(HEARTBEAT_SECONDS):
        found = read_owner(file)
        if found is not None and found.token != owner.token:
            print_error(f"{target}: taken over by {found}; this process ends")
            os._exit(1)
        with suppress(OSError, OutputError):
            if found is None and not file.exists():
                _create(file, owner)  # a user has removed it
            else:
                os.utime(file)

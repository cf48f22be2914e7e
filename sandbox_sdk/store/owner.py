"""Who holds a lease, and whether that process still lives.

A process is known by its pid, its start time and the boot, so that a reused pid is not taken for
it. A pid means nothing in another pid namespace (a container that shares the folder), so every
owner also keeps a file locked, which the kernel unlocks at its death.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

import attrs

from sandbox_sdk.errors import StateError


@attrs.frozen(kw_only=True)
class Owner:
    """One store of one process.

    Attributes:
        pid: Its process.
        start_time: When that process started, in clock ticks since boot.
        boot_id: The boot it belongs to.
        pid_namespace: Where ``pid`` means something.
        token: Tells apart the stores of one process; the name of its lock file.
    """

    pid: int
    start_time: int
    boot_id: str
    pid_namespace: str
    token: str

    @classmethod
    def current(cls) -> Owner:
        """Return a new owner for this process; reads ``/proc``.

        Raises:
            StateError: ``/proc`` does not show this process.
        """
        pid = os.getpid()
        start_time = process_start(pid)
        if start_time is None:
            raise StateError(f"process {pid}, this one, is not in /proc; mount /proc for it")
        return cls(
            pid=pid,
            start_time=start_time,
            boot_id=boot_id(),
            pid_namespace=os.readlink("/proc/self/ns/pid"),
            token=secrets.token_hex(16),
        )

    def lives(self, locks: Path) -> bool:
        """Return whether the owner's process still runs.

        Args:
            locks: The folder of the owners' lock files.
        """
        if self.boot_id != boot_id():
            return False
        if self.pid_namespace == os.readlink("/proc/self/ns/pid"):
            return process_start(self.pid) == self.start_time
        return _locked(locks / self.token)


def lock(owner: Owner, locks: Path) -> int:
    """Make and lock an owner's file; return the descriptor, which holds it until closed."""
    descriptor = os.open(locks / owner.token, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def unlock(owner: Owner, locks: Path, descriptor: int) -> None:
    """Remove an owner's file and close its descriptor."""
    (locks / owner.token).unlink(missing_ok=True)
    os.close(descriptor)


def live(locks: Path) -> frozenset[str]:
    """Return the tokens of all owners that live; it reads the lock files' folder."""
    return frozenset(path.name for path in locks.iterdir() if _locked(path))


def sweep(locks: Path) -> None:
    """Remove the files of owners that died; the caller keeps others from making one meanwhile."""
    for path in locks.iterdir():
        if not _locked(path):
            path.unlink(missing_ok=True)


def process_start(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot, ``None`` if it does not live.

    A zombie does not live: it holds nothing any more. Source: proc_pid_stat(5).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """Return the kernel's random name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

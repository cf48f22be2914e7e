"""Who drives a run: one live process at a time, known by a lease with a fence.

``lease.json`` in the run's folder names the owner and counts the drivers so far, the fence. It is
only ever replaced by a new file, under a lock on the folder that is held for that moment. A driver
compares the file with the one it made before each write to the journal, so one that was taken for
dead writes nothing after another took over.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.errors import SandboxBusy, StateError
from sandbox_sdk.store.owner import Owner

LEASE = "lease.json"


class RunLease:
    """The right to drive a run, taken with ``take()``, given back with ``release()``."""

    def __init__(self, folder: Path, fence: int, descriptor: int) -> None:
        self.fence = fence
        self._folder = folder
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep the lease from being taken while the context lasts.

        Raises:
            SandboxBusy: Another process has taken over.
        """
        with _locked(self._folder, fcntl.LOCK_SH):
            # The number is nobody else's while our descriptor keeps the file.
            if _inode(self._folder / LEASE) != self._inode:
                raise SandboxBusy(
                    f"the run {self._folder.name} was taken over by another process, so this one "
                    "records nothing more of it"
                )
            yield

    def release(self) -> None:
        """Give it back, if it is still ours. Idempotent."""
        if self._descriptor < 0:
            return
        try:
            with _locked(self._folder, fcntl.LOCK_EX):
                if _inode(self._folder / LEASE) == self._inode:
                    os.close(_put(self._folder, None, self.fence))
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


def take(folder: Path, owner: Owner) -> RunLease:
    """Take a run from nobody, or from a driver that died.

    Raises:
        SandboxBusy: A live process drives it.
        StateError: The folder cannot be written.
    """
    try:
        with _locked(folder, fcntl.LOCK_EX):
            holder, fence = _read(folder)
            if holder is not None and holder.lives(_owners(folder)):
                raise SandboxBusy(
                    f"the run {folder.name} is driven by process {holder.pid}; wait for its end, "
                    'or start another with run="new"',
                    owner_pid=holder.pid,
                )
            return RunLease(folder, fence + 1, _put(folder, owner, fence + 1))
    except OSError as error:
        raise StateError(
            f"the run {folder.name} cannot be taken: {error.strerror or error}; free space or "
            "repair the disk",
            errno=error.errno,
        ) from error


def is_driven(folder: Path) -> bool:
    """Return whether a live process drives the run."""
    holder, _ = _read(folder)
    return holder is not None and holder.lives(_owners(folder))


def _owners(folder: Path) -> Path:
    """Where the state folder keeps the lock files of live owners."""
    return folder.parent.parent / "owners"


def _read(folder: Path) -> tuple[Owner | None, int]:
    """Return who holds the lease, and the fence.

    A file that a crash of the machine left half written is nobody's: its owner died with it.
    """
    try:
        lease: Any = json.loads((folder / LEASE).read_bytes())
    except FileNotFoundError:
        return None, 0
    except ValueError:
        return None, 0
    match lease:
        case {"fence": int() as fence, "owner": dict()}:
            return Owner(**lease["owner"]), fence
        case {"fence": int() as fence}:
            return None, fence
        case _:
            return None, 0


def _put(folder: Path, owner: Owner | None, fence: int) -> int:
    """Replace the lease and return the descriptor of the new file."""
    draft = folder / f".{LEASE}.{secrets.token_hex(4)}"
    data = json.dumps({"owner": owner and attrs.asdict(owner), "fence": fence}).encode()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        draft.replace(folder / LEASE)
    except BaseException:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        raise
    return descriptor


@contextmanager
def _locked(folder: Path, kind: int) -> Generator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1

"""Open the state database, and say in our words what SQLite refused."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from sandbox_sdk.errors import SandboxError, StateError
from sandbox_sdk.store.folders import state_error

BUSY_SECONDS = 10.0
"""How long a write waits for another process's write."""

_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
}
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on that disk, or set state_dir to a folder on another",
    sqlite3.SQLITE_READONLY: "make it writable, or set state_dir to another folder",
    sqlite3.SQLITE_BUSY: f"another process held it for {BUSY_SECONDS:g} s; try again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away, or restore it",
    sqlite3.SQLITE_NOTADB: "the file is damaged or of another program; move it away",
}


def connect(path: Path, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """Return a connection that commits durably, after ``prepare`` ran on it.

    One process at a time gets so far, and ``prepare`` may count on it.
    """
    with _alone(path.with_suffix(".lock")):
        connection = _open(path)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def explain(error: Exception, path: Path) -> Exception:
    """Return the ``StateError`` for what SQLite or the kernel refused; others as they are."""
    if isinstance(error, sqlite3.Error):
        # Python's own misuse errors have no code; an extended code's low byte is the kind.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        advice = _ADVICE.get(code, "look at the disk and at the folder's permissions")
        explained = StateError(f"{path}: {error}; {advice}", errno=_ERRNO.get(code))
    elif isinstance(error, OSError) and not isinstance(error, SandboxError):
        explained = state_error(error, f"{path} cannot be used")
    else:
        return error
    explained.__cause__ = error
    return explained


def _open(path: Path) -> sqlite3.Connection:
    _make(path)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _set_up(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    """Make the file if there is none, for its owner alone.

    SQLite would make it world-readable, and gives its side files the same mode. One that is there
    is not opened: to close it would drop the locks that every other connection of this process
    holds on it (fcntl(2)), and the next process to close it would then take its log away.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StateError(f"{path}: this file system cannot hold SQLite's write-ahead log")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Let one process at a time open: a switch to WAL does not wait for another by itself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)

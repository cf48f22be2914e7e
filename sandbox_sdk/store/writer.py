"""One thread that owns one SQLite connection and commits waiting writes together.

A write is durable when its call returns: the database is in WAL mode with ``synchronous=FULL``,
so each commit waits for the disk, and writes that arrive meanwhile share the next commit.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs

from sandbox_sdk.errors import SandboxClosed, SandboxError, StateError
from sandbox_sdk.store.folders import state_error

T = TypeVar("T")

BUSY_SECONDS = 10.0
"""How long a write waits for another process's write."""

_BATCH = 512
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


@attrs.frozen
class _Job:
    """One call to make on the connection, and where its caller waits for the outcome."""

    # Any: the result's type is known to the caller of run() only.
    call: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: Future[Any] = attrs.field(factory=Future)


@attrs.frozen
class _Outcome:
    """What a call returned or raised, kept until the commit makes it true."""

    job: _Job
    result: Any = None
    error: Exception | None = None


class Writer:
    """Runs calls on one connection, in the order they come, in a thread of its own.

    The connection never leaves that thread, so that a forked child cannot touch it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Guards _closed against a job put behind the end of the queue.
        self._lock = threading.Lock()
        self._closed = False
        self._ended: Future[None] = Future()

    async def start(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Open the database in the thread and run ``prepare`` on it, one process at a time.

        Raises:
            StateError: It cannot be opened, or ``prepare`` raised that.
        """
        opened: Future[None] = Future()
        # A daemon: a client that is never closed must not hang the interpreter at exit, and what
        # was reported as written is on disk.
        threading.Thread(
            target=self._work, args=(prepare, opened), name="sandbox-sdk-store", daemon=True
        ).start()
        # asyncio: anyio cannot wait for a concurrent future.
        await asyncio.wrap_future(opened)

    async def run(self, call: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        """Run a call on the connection and return what it returned, once it is durable.

        Args:
            call: Gets the connection; if it raises, only its own changes are undone.
            writes: Whether it changes anything.

        Raises:
            StateError: SQLite could not read or write.
            SandboxClosed: The writer is closed.
        """
        if os.getpid() != self._pid:
            raise StateError(
                f"this client was made by process {self._pid} before a fork and cannot be used in "
                f"its child {os.getpid()}; make a new client there"
            )
        job = _Job(call, writes)
        with self._lock:
            if self._closed:
                raise SandboxClosed("the client is closed; make a new one")
            self._jobs.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    async def stop(self, last: Callable[[sqlite3.Connection], None]) -> None:
        """Finish the calls that wait, run ``last``, and close the connection; again is nothing.

        Raises:
            StateError: SQLite could not read or write; the connection is closed all the same.
        """
        if os.getpid() != self._pid:
            return
        job = _Job(last, writes=True)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(job)
            self._jobs.put(None)
        try:
            await asyncio.wrap_future(job.future)
        finally:
            await asyncio.wrap_future(self._ended)

    def _work(self, prepare: Callable[[sqlite3.Connection], None], opened: Future[None]) -> None:
        try:
            with _alone(self._path.with_suffix(".lock")):
                connection = _connect(self._path)
                try:
                    prepare(connection)
                except BaseException:
                    connection.close()
                    raise
        except Exception as error:  # noqa: BLE001 - handed to the caller of start()
            opened.set_exception(self._explain(error))
            return
        opened.set_result(None)
        try:
            with closing(connection):
                while (job := self._jobs.get()) is not None:
                    self._run(connection, [job, *self._waiting()])
        finally:
            self._ended.set_result(None)

    def _waiting(self) -> Generator[_Job]:
        """Take the jobs that wait by now."""
        for _ in range(_BATCH):
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            yield job

    def _run(self, connection: sqlite3.Connection, waiting: Sequence[_Job]) -> None:
        """Run jobs in one transaction and tell each caller how its own went."""
        # A job whose caller was cancelled before it began is left out.
        batch = [job for job in waiting if job.future.set_running_or_notify_cancel()]
        try:
            connection.execute(
                "BEGIN IMMEDIATE" if any(job.writes for job in batch) else "BEGIN DEFERRED"
            )
            outcomes = [_attempt(connection, job) for job in batch]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to every caller; the thread goes on
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in batch:
                job.future.set_exception(self._explain(error))
            return
        for outcome in outcomes:
            if outcome.error is None:
                outcome.job.future.set_result(outcome.result)
            else:
                outcome.job.future.set_exception(self._explain(outcome.error))

    def _explain(self, error: Exception) -> Exception:
        """Return the ``StateError`` for what SQLite or the kernel refused; others as they are."""
        if isinstance(error, sqlite3.Error):
            # Python's own misuse errors have no code; an extended code's low byte is the kind.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, "look at the disk and at the folder's permissions")
            explained = StateError(f"{self._path}: {error}; {advice}", errno=_ERRNO.get(code))
        elif isinstance(error, OSError) and not isinstance(error, SandboxError):
            explained = state_error(error, f"{self._path} cannot be used")
        else:
            return error
        explained.__cause__ = error
        return explained


def _attempt(connection: sqlite3.Connection, job: _Job) -> _Outcome:
    """Run one job; if it raises, undo its own changes only."""
    connection.execute("SAVEPOINT job")
    try:
        outcome = _Outcome(job, result=job.call(connection))
    except Exception as error:
        # SQLite undoes the whole transaction itself when the disk is full, for example.
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO job")
        outcome = _Outcome(job, error=error)
    connection.execute("RELEASE job")
    return outcome


def _connect(path: Path) -> sqlite3.Connection:
    # SQLite gives its side files the mode of the database, which it would make world-readable.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _set_up(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


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

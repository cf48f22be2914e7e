"""One thread that owns one SQLite connection and commits waiting writes together.

A write is durable when its call returns: the database is in WAL mode with ``synchronous=FULL``,
so each commit waits for the disk, and writes that arrive meanwhile share the next commit.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs

from sandbox_sdk.errors import SandboxClosed, StateError
from sandbox_sdk.store.connection import connect, explain

T = TypeVar("T")

_BATCH = 512


@attrs.frozen
class _Job:
    """One call to make on the connection, and where its caller waits for the outcome."""

    # Any: the result's type is known to the caller of run() only.
    call: Callable[[sqlite3.Connection], Any]
    writes: bool
    # asyncio: anyio has nothing that a thread can complete for many waiters at once.
    future: asyncio.Future[Any] = attrs.field(
        factory=lambda: asyncio.get_running_loop().create_future()
    )


@attrs.frozen
class _Outcome:
    """What a call returned or raised, kept until the commit makes it true."""

    job: _Job
    result: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        """Hand it to the caller, on the caller's loop."""
        if self.job.future.done():  # cancelled meanwhile
            return
        if self.error is None:
            self.job.future.set_result(self.result)
        else:
            self.job.future.set_exception(self.error)


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
        try:
            await asyncio.wrap_future(opened)
        except BaseException:
            # Cancelled, or failed: nobody will close what may still open.
            self._closed = True
            self._jobs.put(None)
            raise

    async def run(self, call: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        """Run a call on the connection and return what it returned, once it is durable.

        Args and Raises: see ``submit``.
        """
        return await self.submit(call, writes=writes)

    def submit(self, call: Callable[[sqlite3.Connection], T], *, writes: bool) -> asyncio.Future[T]:
        """Have a call run on the connection; await what is returned for its outcome.

        Args:
            call: Gets the connection; if it raises, only its own changes are undone.
            writes: Whether it changes anything.

        Raises:
            StateError: SQLite could not read or write; raised when awaited.
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
        return job.future

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
        # Shielded: a lease that is not released lasts as long as this process.
        with anyio.CancelScope(shield=True):
            try:
                await job.future
            finally:
                await asyncio.wrap_future(self._ended)

    def _work(self, prepare: Callable[[sqlite3.Connection], None], opened: Future[None]) -> None:
        if not opened.set_running_or_notify_cancel():
            return
        try:
            connection = connect(self._path, prepare)
        except Exception as error:  # noqa: BLE001 - handed to the caller of start()
            opened.set_exception(explain(error, self._path))
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
        batch = [job for job in waiting if not job.future.cancelled()]
        try:
            connection.execute(
                "BEGIN IMMEDIATE" if any(job.writes for job in batch) else "BEGIN DEFERRED"
            )
            outcomes = [_attempt(connection, job) for job in batch]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to every caller; the thread goes on
            # Should this fail as well, the next BEGIN does, and its callers are told.
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            outcomes = [_Outcome(job, error=error) for job in batch]
        _tell([self._explained(outcome) for outcome in outcomes])

    def _explained(self, outcome: _Outcome) -> _Outcome:
        if outcome.error is None:
            return outcome
        return attrs.evolve(outcome, error=explain(outcome.error, self._path))


def _tell(outcomes: Sequence[_Outcome]) -> None:
    """Wake each loop once, however many of its callers wait."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome.job.future.get_loop(), []).append(outcome)
    for loop, told in by_loop.items():
        # A closed loop has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell_all, told)


def _tell_all(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


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

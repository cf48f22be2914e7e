"""The journal of a run: an append-only file of events, durable in groups, the only truth.

Events are appended in memory and made durable together: whoever calls ``commit()`` waits for one
``fdatasync`` that covers everything appended before it, his own events and all others'. A last
line torn by a crash is ignored on reading; damage anywhere else is an error.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import IntegrityError, SandboxBusy, StateError
from sandbox_sdk.experiments.records.events import (
    Event,
    Halves,
    ends_group,
    read_group,
    write_group,
)
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.records.redactions import Redactions
from sandbox_sdk.experiments.records.run_lease import RunLease

JOURNAL = "events.jsonl"


Durable = Callable[[Event, int, int], None]
"""Told of each event once it is on the disk, with where its line begins and ends."""


class Journal:
    """Appends the events of one run to a file. Made with ``open()``; closed with ``aclose()``.

    Every event passes the redactor before it is kept, so the file, and everything derived from
    it, holds no known secret. After a write has failed, every later ``append()`` and ``commit()``
    fails too. Only events that are not yet on the disk are held in memory.

    Args:
        path: The file.
        run: The run's id.
        redactor: Removes secrets.
        descriptor: The file, open for appending.
        payloads: Keeps what the events hold.
        lease: The right to write it.
        size: Bytes it has.
        events: Events it has.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        redactor: Redactor,
        descriptor: int,
        *,
        payloads: Payloads = PLAIN,
        lease: RunLease | None = None,
        size: int = 0,
        events: int = 0,
    ) -> None:
        self.path = path
        self.run = run
        self.on_durable: Durable | None = None
        self._redactor = redactor
        self._descriptor = descriptor
        self._payloads = payloads
        self._redactions = Redactions(path.parent, payloads)
        self._lease = lease
        self._size = size
        self._count = self._durable = events
        self._pending: list[tuple[Event, Halves]] = []
        self._failure: StateError | SandboxBusy | None = None
        self._writing = anyio.Lock(fast_acquire=True)  # guards the file; held while a thread writes

    @classmethod
    async def open(
        cls,
        path: Path,
        run: str,
        redactor: Redactor,
        *,
        payloads: Payloads = PLAIN,
        lease: RunLease | None = None,
        size: int = 0,
        events: int = 0,
    ) -> Journal:
        """Open the file, made if need be, in a folder that exists.

        Args:
            path: The file.
            run: The run's id.
            redactor: Removes secrets.
            payloads: Keeps what the events hold.
            lease: The right to write it, looked at before each write.
            size: Bytes of it that are good, as ``scan_events`` told; what follows is cut off.
            events: How many events these hold.

        Raises:
            StateError: It cannot be opened.
        """
        descriptor = await anyio.to_thread.run_sync(_open, path, size)
        return cls(
            path,
            run,
            redactor,
            descriptor,
            payloads=payloads,
            lease=lease,
            size=size,
            events=events,
        )

    @property
    def failure(self) -> StateError | SandboxBusy | None:
        """Why nothing more can be recorded, if nothing can."""
        return self._failure

    def append(
        self, type: str, *, trial: str | None = None, attempt: int | None = None, **data: Any
    ) -> Event:
        """Append an event; it is durable after the next ``commit()``.

        Raises:
            StateError: An earlier write failed.
            SandboxBusy: Another process has taken the run over.
        """
        if self._failure:
            raise self._failure
        event = Event(
            seq=self._count + 1,
            time=time.time(),
            monotonic=time.monotonic(),
            type=type,
            run=self.run,
            trial=trial,
            attempt=attempt,
            data=data,
        )
        halves = Halves.of(event, self._payloads)
        if self._redactor.finds(halves.head) or self._redactor.finds(halves.closed):
            secrets = self._redactor.found(halves.head + halves.closed)
            kept = {**self._redactor.value(data), "redacted": self._redactions.of(secrets)}
            event = attrs.evolve(event, data=kept)
            halves = Halves.of(event, self._payloads)
        self._pending.append((event, halves))
        self._count += 1
        return event

    async def commit(self) -> None:
        """Return when every event appended so far is on the disk.

        Raises:
            StateError: It cannot be: the disk is full or failed.
            SandboxBusy: Another process has taken the run over.
        """
        target = self._count
        async with self._writing:
            if self._failure:
                raise self._failure
            if self._durable >= target:
                return  # another writer's commit covered ours while we waited
            batch = self._pending[:]
            group = [halves for _, halves in batch]
            # A cancelled caller still waits for the thread, so the counts below always hold.
            try:
                lengths = await anyio.to_thread.run_sync(self._write, group)
            except (StateError, SandboxBusy) as error:
                self._failure = error
                raise
            del self._pending[: len(batch)]
            self._durable += len(batch)
            self._tell([event for event, _ in batch], lengths)

    async def aclose(self) -> None:
        """Make durable what is pending, unless a write failed, and close the file."""
        with anyio.CancelScope(shield=True):
            try:
                if self._pending and self._failure is None:
                    await self.commit()
            finally:
                descriptor, self._descriptor = self._descriptor, -1
                if descriptor >= 0:
                    os.close(descriptor)

    def _tell(self, events: list[Event], lengths: list[int]) -> None:
        for event, length in zip(events, lengths, strict=True):
            start = self._size
            self._size += length
            if self.on_durable is not None:
                self.on_durable(event, start, self._size)

    def _write(self, group: list[Halves]) -> list[int]:
        """Write events, and return how long the line of each is."""
        lines = write_group(group, self._payloads)
        data = b"".join(lines)
        try:
            with self._lease.held() if self._lease else contextlib.nullcontext():
                self._redactions.save()
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
                os.fdatasync(self._descriptor)
        except OSError as error:
            if isinstance(error, StateError):
                raise
            # Half a line must not stay in front of nothing: readers would call it torn for ever.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise state_error("written", self.path, error) from error
        return [len(line) for line in lines]


@attrs.frozen
class Placed:
    """An event and where its line stands in the journal.

    Attributes:
        event: The event.
        start: Where its line begins.
        end: Where the next one begins.
    """

    event: Event
    start: int
    end: int


def scan_events(path: Path, payloads: Payloads = PLAIN) -> Iterator[Placed]:
    """Yield the events of a journal one by one; a last line torn by a crash is left out.

    Args:
        path: The journal.
        payloads: Keeps what its events hold.

    Raises:
        IntegrityError: It is sealed, and an event was changed, moved or is another run's.
        StateError: It cannot be read, or is damaged anywhere but at its end.
    """
    bad = count = start = 0
    lines: list[bytes] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # its write did not finish
                lines.append(line)
                if not ends_group(line, payloads):
                    continue
                group, lines = lines, []
                try:
                    events = read_group(group, payloads)
                except IntegrityError as error:
                    raise changed(path, f"line {number - len(group) + 1}", error) from error
                except ValueError:
                    bad = bad or number
                    start += sum(map(len, group))
                    continue
                for one, event in zip(group, events, strict=True):
                    count += 1
                    if bad or event.seq != count:
                        raise StateError(
                            f"the journal {path} is damaged at line {bad or count}: events before "
                            "and after it cannot be trusted together; restore the file from a copy"
                        )
                    yield Placed(event, start, start + len(one))
                    start += len(one)
    except OSError as error:
        if isinstance(error, StateError):
            raise
        raise state_error("read", path, error) from error


def read_events(path: Path, payloads: Payloads = PLAIN) -> list[Event]:
    """Return the events of a journal; a last line torn by a crash is left out.

    Raises:
        IntegrityError: It is sealed, and an event was changed, moved or is another run's.
        StateError: It cannot be read, or is damaged anywhere but at its end.
    """
    return [placed.event for placed in scan_events(path, payloads)]


def changed(path: Path, what: str, error: IntegrityError) -> IntegrityError:
    """Return the error for a place that is not as it was written; its caller raises it."""
    return IntegrityError(
        f"the journal {path} was changed at {what}: {error.message}; restore the file from a copy",
        path=str(path),
    )


def _open(path: Path, size: int) -> int:
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            if not size and b"\n" in path.read_bytes():
                raise StateError(
                    f"the journal {path} exists and holds none of the events it should; restore "
                    "it from a copy; it was not touched"
                )
            # What follows the last good line would make the next one unreadable.
            os.ftruncate(descriptor, size)
            sync_folder(path.parent)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        if isinstance(error, StateError):
            raise
        raise state_error("opened", path, error) from error
    return descriptor


def state_error(verb: str, path: Path, error: OSError) -> StateError:
    """Return the error for a journal that the kernel refuses; its caller raises it."""
    return StateError(
        f"{path} cannot be {verb}: {error.strerror or error}. Free space or repair the "
        "disk, then run again; nothing was sent or counted after this",
        errno=error.errno,
    )

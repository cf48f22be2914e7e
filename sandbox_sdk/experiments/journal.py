"""The journal of a run: an append-only file of events, durable in groups, the only truth.

Events are appended in memory and made durable together: whoever calls ``commit()`` waits for one
``fdatasync`` that covers everything appended before it, his own events and all others'. A last
line torn by a crash is ignored on reading; damage anywhere else is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.redaction import Redactor

JOURNAL = "events.jsonl"


# Any: an event's data is JSON, whose shape its type decides.
@attrs.frozen(kw_only=True)
class Event:
    """One line of the journal.

    Attributes:
        seq: Its number in the journal, from 1 without gaps.
        time: Seconds since the epoch.
        monotonic: Seconds of a clock that never steps back.
        type: What happened, for example ``model.requested``.
        run: The run's id.
        trial: The trial's key, where it is about one.
        attempt: The attempt's number, where it is about one.
        data: What else there is to say, as JSON.
    """

    seq: int
    time: float
    monotonic: float
    type: str
    run: str
    trial: str | None = None
    attempt: int | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def to_line(self) -> bytes:
        """Return the event as one line of JSON in ASCII."""
        fields = {name: getattr(self, name) for name in _NAMES}
        text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
        return text.encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Event:
        """Return the event that a line holds; fields a newer version added are ignored.

        Raises:
            ValueError: The line holds none.
        """
        try:
            match json.loads(line):
                case {
                    "seq": int(),
                    "time": int() | float(),
                    "monotonic": int() | float(),
                    "type": str(),
                    "run": str(),
                    "trial": str() | None,
                    "attempt": int() | None,
                    "data": dict(),
                } as fields:
                    return cls(**{name: fields[name] for name in _NAMES})
                case _:
                    raise ValueError("not an event")
        except RecursionError:
            raise ValueError("nested too deep") from None


_NAMES = tuple(field.name for field in attrs.fields(Event))


class Journal:
    """Appends the events of one run to a file. Made with ``create()``; closed with ``aclose()``.

    Every event passes the redactor before it is kept, so the file, and everything derived from
    it, holds no known secret. After a write has failed, every later ``commit()`` fails too.
    """

    def __init__(self, path: Path, run: str, redactor: Redactor, descriptor: int) -> None:
        self.path = path
        self.run = run
        self.events: list[Event] = []
        self._redactor = redactor
        self._descriptor = descriptor
        self._pending: list[bytes] = []
        self._durable = 0
        self._size = 0
        self._failure: StateError | None = None
        self._writing = anyio.Lock()  # guards the file; held while a thread writes

    @classmethod
    async def create(cls, path: Path, run: str, redactor: Redactor) -> Journal:
        """Create the file, which must not exist, in a folder that does.

        Raises:
            StateError: It cannot be created.
        """
        descriptor = await anyio.to_thread.run_sync(_create, path)
        return cls(path, run, redactor, descriptor)

    def append(
        self, type: str, *, trial: str | None = None, attempt: int | None = None, **data: Any
    ) -> Event:
        """Append an event; it is durable after the next ``commit()``.

        Raises:
            StateError: An earlier write failed.
        """
        if self._failure:
            raise self._failure
        event = Event(
            seq=len(self.events) + 1,
            time=time.time(),
            monotonic=time.monotonic(),
            type=type,
            run=self.run,
            trial=trial,
            attempt=attempt,
            data=self._redactor.value(data),
        )
        self._pending.append(event.to_line())
        self.events.append(event)
        return event

    async def commit(self) -> None:
        """Return when every event appended so far is on the disk.

        Raises:
            StateError: It cannot be: the disk is full or failed.
        """
        target = len(self.events)
        async with self._writing:
            if self._failure:
                raise self._failure
            if self._durable >= target:
                return  # another writer's commit covered ours while we waited
            lines = self._pending[:]
            # A cancelled caller still waits for the thread, so the counts below always hold.
            try:
                await anyio.to_thread.run_sync(self._write, lines)
            except StateError as error:
                self._failure = error
                raise
            self._durable += len(lines)
            del self._pending[: len(lines)]

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

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fdatasync(self._descriptor)
        except OSError as error:
            # Half a line must not stay in front of nothing: readers would call it torn for ever.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise _state_error("written", self.path, error) from error
        self._size += len(data)


def read_events(path: Path) -> list[Event]:
    """Return the events of a journal; a last line torn by a crash is left out.

    Raises:
        StateError: It cannot be read, or is damaged anywhere but at its end.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise _state_error("read", path, error) from error
    # What follows the last newline is empty, or a line whose write did not finish.
    events: list[Event] = []
    bad = 0
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = Event.from_line(line)
        except ValueError:
            bad = bad or number
            continue
        if bad or event.seq != len(events) + 1:
            raise StateError(
                f"the journal {path} is damaged at line {bad or number}: events before and after "
                "it cannot be trusted together; restore the file from a copy"
            )
        events.append(event)
    return events


def _create(path: Path) -> int:
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            # Held while the run lives; the kernel lets go when its process dies. Waits only for
            # a reader that looks at this moment: nobody else writes a file made just now.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            sync_folder(path.parent)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise _state_error("created", path, error) from error
    return descriptor


def is_held(path: Path) -> bool:
    """Return whether a live process has the journal open for writing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _state_error("read", path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _state_error(verb: str, path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path} cannot be {verb}: {error.strerror or error}. Free space or repair the "
        "disk, then run again; nothing was sent or counted after this",
        errno=error.errno,
    )

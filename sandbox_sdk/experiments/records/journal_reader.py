"""Single events of a journal, by the place where their line begins."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sandbox_sdk.errors import IntegrityError, StateError
from sandbox_sdk.experiments.records.events import Event, ends_group, group_start, read_group
from sandbox_sdk.experiments.records.journal import changed, state_error
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads

_RECENT = 16
"""Groups of a sealed journal that are kept open: trials beside each other stand in the same."""


class JournalReader:
    """Reads events by their places. Blocks on the disk; any thread may use it.

    Args:
        path: The journal.
        payloads: Keeps what its events hold.
    """

    def __init__(self, path: Path, payloads: Payloads = PLAIN) -> None:
        self.path = path
        self._payloads = payloads
        self._group = lru_cache(maxsize=_RECENT)(self._read_group)

    def at(self, start: int) -> Event:
        """Return the event whose line begins at a place.

        Raises:
            IntegrityError: It is sealed, and was changed, moved or is another run's.
            StateError: There is none.
        """
        try:
            if self._payloads.key_id is None:
                with self.path.open("rb") as file:
                    file.seek(start)
                    return Event.from_line(file.readline())
            events, _ = self._group(self._start(start))
            return next(event for place, event in events if place == start)
        except IntegrityError:
            raise
        except (OSError, ValueError, StopIteration) as error:
            raise StateError(
                f"the journal {self.path} cannot be read at byte {start}: {error}"
            ) from error

    def between(self, start: int, end: int, trial: str) -> Iterator[Event]:
        """Yield the events of a trial that stand between two places.

        Raises:
            IntegrityError: They are sealed, and one was changed, moved or is another run's.
            StateError: They cannot be read.
        """
        plain = self._payloads.key_id is None
        found = self._lines(start, end, trial) if plain else self._groups(start, end)
        try:
            for place, event in found:
                if start <= place < end and event.trial == trial:
                    yield event
        except OSError as error:
            if isinstance(error, StateError):
                raise
            raise state_error("read", self.path, error) from error

    def _lines(self, start: int, end: int, trial: str) -> Iterator[tuple[int, Event]]:
        mark = f'"trial":"{trial}"'.encode()
        with self.path.open("rb") as file:
            file.seek(start)
            while start < end and (line := file.readline()):
                # Others' events stand between: most are left out without reading them.
                if mark in line:
                    yield start, Event.from_line(line)
                start += len(line)

    def _groups(self, start: int, end: int) -> Iterator[tuple[int, Event]]:
        at = self._start(start)
        while at < end:
            events, at = self._group(at)
            yield from events

    def _start(self, at: int) -> int:
        with self.path.open("rb") as file:
            return group_start(file, at)

    def _read_group(self, at: int) -> tuple[list[tuple[int, Event]], int]:
        """Return the events of the sealed group that begins at a place, and where the next does."""
        lines: list[bytes] = []
        places: list[int] = []
        with self.path.open("rb") as file:
            file.seek(begins := at)
            while not lines or not ends_group(lines[-1], self._payloads):
                line = file.readline()
                if not line:
                    raise StateError(f"the journal {self.path} ends within what begins at {at}")
                lines.append(line)
                places.append(begins)
                begins += len(line)
        try:
            events = read_group(lines, self._payloads)
        except IntegrityError as error:
            raise changed(self.path, f"byte {at}", error) from error
        except ValueError as error:
            raise StateError(f"the journal {self.path} is damaged at byte {at}") from error
        return list(zip(places, events, strict=True)), begins

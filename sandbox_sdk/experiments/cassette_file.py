"""The file of a cassette: JSON lines that are appended whole, and found by their key."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import StateError

_SCHEMA = 1
_DIFF_LINES = 40
_DIFF_WIDTH = 160
_LOOKED_AT = 20  # calls that are compared to find the nearest


# Any: requests and outputs are JSON.
@attrs.frozen(kw_only=True)
class Entry:
    """One line of a cassette.

    Attributes:
        key: The digest of request, trial and call.
        trial: The trial's key.
        call: The number of the call within the trial, from 1.
        time: When it was recorded, in seconds since the epoch.
        request: What was asked.
        output: What was answered.
    """

    key: str
    trial: str
    call: int
    time: float
    request: Mapping[str, Any]
    output: Mapping[str, Any]

    def to_line(self) -> bytes:
        """Return it as one line of JSON in ASCII."""
        fields = {"schema": _SCHEMA, **attrs.asdict(self)}
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """Return the entry that a line holds; fields a newer version added are ignored.

        Raises:
            ValueError: The line holds none.
        """
        try:
            match json.loads(line):
                case {
                    "key": str(),
                    "trial": str(),
                    "call": int(),
                    "time": int() | float(),
                    "request": dict(),
                    "output": dict(),
                } as fields:
                    return cls(**{field.name: fields[field.name] for field in attrs.fields(cls)})
                case _:
                    raise ValueError("no answer of a model")
        except RecursionError:
            raise ValueError("nested too deep") from None


@attrs.frozen(kw_only=True)
class _Place:
    trial: str
    call: int
    start: int
    length: int


class CassetteFile:
    """Reads and appends entries; only where they stand is kept in memory. All of it blocks.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, _Place] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def load(self) -> None:
        """Find the entries; of several with one key the last counts. A torn last line is left out.

        Raises:
            StateError: The file cannot be read, or is damaged anywhere but at its end.
        """
        try:
            with self.path.open("rb") as file:
                start = 0
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    self._note(line, start, number)
                    start += len(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _state_error("read", self.path, error) from error

    def read(self, key: str) -> Entry:
        """Return the entry of a key.

        Raises:
            StateError: The file cannot be read, or was changed.
        """
        return self._at(self._places[key])

    def append(self, entry: Entry) -> None:
        """Write an entry, durable on return. Several processes may write to one file.

        Raises:
            StateError: It cannot be written.
        """
        line = entry.to_line()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            descriptor = os.open(self.path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                start = _whole_lines(descriptor)
                _write_whole(descriptor, line, start)
            finally:
                os.close(descriptor)
            if new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise _state_error("written", self.path, error) from error
        self._places[entry.key] = _Place(
            trial=entry.trial, call=entry.call, start=start, length=len(line)
        )

    def nearest(self, request: Mapping[str, Any], trial: str, call: int) -> str:
        """Return how the recorded call that is most like this one differs from it.

        Args:
            request: What was asked.
            trial: The trial's key.
            call: The number of the call.
        """
        wanted = _pretty(request, trial, call)
        same = [at for at in self._places.values() if (at.trial, at.call) == (trial, call)]
        near = same or [at for at in self._places.values() if at.call == call]
        found = [self._at(at) for at in (near or list(self._places.values()))[:_LOOKED_AT]]
        if not found:
            return "it holds no answers at all"
        texts = [_pretty(entry.request, entry.trial, entry.call) for entry in found]
        matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)

        def likeness(text: Sequence[str]) -> float:
            matcher.set_seq1(text)
            return matcher.quick_ratio()

        closest = max(texts, key=likeness)
        diff = difflib.unified_diff(closest, wanted, "recorded", "asked", n=1, lineterm="")
        lines = [line[:_DIFF_WIDTH] for line in diff]
        more = [f"... {len(lines) - _DIFF_LINES} more lines"] if len(lines) > _DIFF_LINES else []
        return "the nearest differs in this:\n" + "\n".join([*lines[:_DIFF_LINES], *more]) + "\n"

    def _note(self, line: bytes, start: int, number: int) -> None:
        try:
            entry = Entry.from_line(line)
        except ValueError as error:
            raise damaged(self.path, f"line {number} is {error}") from error
        self._places[entry.key] = _Place(
            trial=entry.trial, call=entry.call, start=start, length=len(line)
        )

    def _at(self, place: _Place) -> Entry:
        try:
            with self.path.open("rb") as file:
                file.seek(place.start)
                return Entry.from_line(file.read(place.length))
        except OSError as error:
            raise _state_error("read", self.path, error) from error
        except ValueError as error:
            raise damaged(self.path, "it was changed while it was in use") from error


def damaged(path: Path, why: str) -> StateError:
    """Return the error for a cassette that cannot be understood."""
    return StateError(
        f"the cassette {path} is damaged: {why}; restore it from a copy, or record it again"
    )


def _whole_lines(descriptor: int) -> int:
    """Cut off a last line that a crash tore, and return where the next begins."""
    size = os.fstat(descriptor).st_size
    end = size
    while end and os.pread(descriptor, 1, end - 1) != b"\n":
        block = os.pread(descriptor, min(end, 1 << 16), max(0, end - (1 << 16)))
        end -= len(block) - (block.rfind(b"\n") + 1)
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _write_whole(descriptor: int, line: bytes, start: int) -> None:
    try:
        written = 0
        while written < len(line):
            written += os.write(descriptor, line[written:])
        os.fdatasync(descriptor)
    except OSError:
        os.ftruncate(descriptor, start)
        raise


def _pretty(request: Mapping[str, Any], trial: str, call: int) -> list[str]:
    told = {"trial": trial, "call": call, **request}
    return json.dumps(told, indent=1, sort_keys=True).splitlines()


def _state_error(verb: str, path: Path, error: OSError) -> StateError:
    return StateError(
        f"the cassette {path} cannot be {verb}: {error.strerror or error}; free space, or correct "
        "its path or permissions",
        errno=error.errno,
    )

"""The files of a log, and its end as one process last saw it.

    <first sequence>.jsonl   lines, the first of which says how the log stood before it
    checkpoint               the newest checkpoint
    .lock                    held by whoever appends

Several processes append: each takes the lock, reads what others wrote since, and goes on there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import attrs

from sandbox_sdk.audit.events import (
    CHECKPOINT,
    LARGEST_LINE,
    NOTHING_BEFORE,
    RECOVERED,
    SEGMENT,
    Entry,
    Line,
    line_hash,
)
from sandbox_sdk.audit.merkle import Tree
from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import IntegrityError

CHECKPOINT_FILE = "checkpoint"

LOCK_SECONDS = 10.0
"""How long an append waits for another process's."""

_POLL_SECONDS = 0.001
_ADVICE = (
    "look with sandbox-sdk audit verify, then move the folder away: the next event begins a new log"
)


@attrs.define
class _Open:
    """The segment that is appended to."""

    path: Path
    descriptor: int
    inode: int
    first: int
    size: int = 0
    began: float = 0.0


class Segments:
    """The log in one folder. Not for several threads at once; use what follows ``locked()`` in it.

    Args:
        folder: The folder, which exists.
        secrets: Texts that must not come into it.

    Attributes:
        origin: The log's name; empty until it was opened.
        tree: The tree over its lines.
        covered: The lines that the newest checkpoint in it covers, that checkpoint's included.
    """

    def __init__(self, folder: Path, secrets: Collection[str] = ()) -> None:
        self.folder = folder
        self.origin = ""
        self.tree = Tree()
        self.covered = 0
        self._secrets = secrets
        self._previous = NOTHING_BEFORE
        self._open: _Open | None = None

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Let one process at a time append.

        Raises:
            TimeoutError: Another one held it for too long.
            OSError: The folder cannot be used.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / ".lock", flags, 0o600)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(
                            errno.ETIMEDOUT, f"another process held it for {LOCK_SECONDS:g} s"
                        ) from None
                    time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def catch_up(
        self, known: Mapping[int, bytes], *, replaces: Mapping[str, object] | None = None
    ) -> None:
        """Read what others appended; at first the newest segment. Makes a log where there is none.

        Args:
            known: Size -> root that the log is known to have had; looked at when it is opened.
            replaces: What the first line of a new log says of the one that was here before.

        Raises:
            IntegrityError: What is there is not what was written.
            OSError: It cannot be read or written.
        """
        if self._open is None:
            self._load(known, replaces)
            return
        try:
            found = self._open.path.stat()
        except FileNotFoundError:
            raise self._wrong("was removed while it was open") from None
        if found.st_ino != self._open.inode or found.st_size < self._open.size:
            raise self._wrong("was replaced or cut while it was open")
        if found.st_size > self._open.size:
            self._read_on({})
            self._follow()

    def append(self, entries: Sequence[Entry]) -> None:
        """Append lines, durable on return, or none of them.

        Raises:
            OSError: They cannot be written.
        """
        opened = self._writable()
        tree, previous, data = self.tree.copy(), self._previous, bytearray()
        covered = self.covered
        for entry in entries:
            line = entry.to_line(
                origin=self.origin,
                sequence=tree.size + 1,
                previous=previous,
                secrets=self._secrets,
            )
            tree.append(line)
            previous = line_hash(line)
            data += line
            if entry.type == CHECKPOINT:
                covered = tree.size
            elif entry.type == SEGMENT:
                opened.began = entry.time
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(opened.descriptor, data[written:], opened.size + written)
            os.fdatasync(opened.descriptor)
        except OSError:
            # Half a line, or lines of which nobody was told, must not stand before the next.
            with contextlib.suppress(OSError):
                os.ftruncate(opened.descriptor, opened.size)
            raise
        opened.size += len(data)
        self.tree, self._previous, self.covered = tree, previous, covered

    @property
    def size(self) -> int:
        """Bytes of the segment that is appended to."""
        return self._writable().size

    @property
    def began(self) -> float:
        """When the segment that is appended to began, in seconds since the epoch."""
        return self._writable().began

    @property
    def paths(self) -> list[Path]:
        """All segments, oldest first."""
        return segment_paths(self.folder)

    def rotate(self) -> None:
        """Begin a new segment.

        Raises:
            OSError: It cannot be written.
        """
        self.close()
        self._begin(self.tree.size + 1)

    def close(self) -> None:
        """Give the descriptor back; ``catch_up()`` would load the log anew."""
        if self._open is not None:
            os.close(self._open.descriptor)
            self._open = None

    def _load(self, known: Mapping[int, bytes], replaces: Mapping[str, object] | None) -> None:
        # A segment without its first line was being begun when its process died.
        paths = [path for path in self.paths if _is_begun(path)]
        if not paths:
            self._check_size(max(known, default=0))
            self.origin = f"sandbox-sdk/audit/{secrets.token_hex(8)}"
            self.tree, self._previous, self.covered = Tree(), NOTHING_BEFORE, 0
            self._begin(1, replaces)
            return
        self._open_at(paths[-1])
        try:
            self._start(known)
            self._read_on(known)
            self._follow()
            self._check_size(max(known, default=0))
        except BaseException:
            self.close()
            raise

    def _start(self, known: Mapping[int, bytes]) -> None:
        """Take from a segment's first line how the log stood before it."""
        opened = self._writable()
        with os.fdopen(os.dup(opened.descriptor), "rb") as file:
            file.seek(0)
            first = file.readline()
        try:
            line = Line.parse(first)
            frontier = [bytes.fromhex(each) for each in line.data["frontier"]]
            tree = Tree(opened.first - 1, frontier)
        except (IntegrityError, ValueError, KeyError, TypeError):
            raise self._wrong("does not begin as a segment does") from None
        if line.type != SEGMENT or line.sequence != opened.first:
            raise self._wrong("does not begin as a segment does")
        self.origin, self.tree, self._previous = line.source, tree, line.previous
        # A segment begins after a checkpoint, so that all before it is covered.
        self.covered = tree.size
        self._check(known)

    def _read_on(self, known: Mapping[int, bytes]) -> None:
        """Read lines from where the last look ended; what a crash tore is cut off."""
        opened = self._writable()
        with os.fdopen(os.dup(opened.descriptor), "rb") as file:
            file.seek(opened.size)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._take(line)
                opened.size += len(line)
                self._check(known)
            file.seek(opened.size)
            torn = file.read()
        if torn and _is_begun(segment_path(self.folder, self.tree.size + 1)):
            raise self._wrong("has more after its end than half a line that a crash left")
        if torn:
            os.ftruncate(opened.descriptor, opened.size)
            lost = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
            self.append([Entry(type=RECOVERED, data=lost)])

    def _take(self, line: bytes) -> None:
        try:
            parsed = Line.parse(line)
        except (IntegrityError, ValueError):
            raise self._wrong(f"is damaged at line {self.tree.size + 1} of the log") from None
        expected = (self.origin, self.tree.size + 1, self._previous)
        if (parsed.source, parsed.sequence, parsed.previous) != expected:
            raise self._wrong(f"is broken at line {self.tree.size + 1} of the log")
        self.tree.append(line)
        self._previous = line_hash(line)
        if parsed.type == CHECKPOINT:
            self.covered = self.tree.size
        elif parsed.type == SEGMENT:
            self._writable().began = datetime.fromisoformat(parsed.time).timestamp()

    def _check(self, known: Mapping[int, bytes]) -> None:
        if known.get(self.tree.size, self.tree.root) != self.tree.root:
            raise self._wrong(f"is not what it was when it had {self.tree.size} lines")

    def _check_size(self, known: int) -> None:
        if known > self.tree.size:
            raise self._wrong(f"has {self.tree.size} lines, and had {known}: it was cut")

    def _follow(self) -> None:
        """Go on to segments that another process began."""
        while True:
            path = segment_path(self.folder, self.tree.size + 1)
            if not path.exists():
                return
            self.close()
            if not _is_begun(path):
                self._begin(self.tree.size + 1)
                return
            self._open_at(path)
            self._read_on({})

    def _begin(self, first: int, replaces: Mapping[str, object] | None = None) -> None:
        """Make a segment, or fill one that was left empty."""
        self._open_at(segment_path(self.folder, first), os.O_CREAT | os.O_TRUNC)
        data: dict[str, object] = {
            "size": self.tree.size,
            "frontier": [each.hex() for each in self.tree.frontier],
        }
        if replaces:
            data["replaces"] = replaces
        try:
            sync_folder(self.folder)
            self.append([Entry(type=SEGMENT, data=data)])
        except BaseException:
            self.close()  # so that the next look begins it anew
            raise

    def _open_at(self, path: Path, flags: int = 0) -> None:
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        self._open = _Open(path, descriptor, os.fstat(descriptor).st_ino, int(path.stem))

    def _writable(self) -> _Open:
        if self._open is None:
            raise AssertionError("catch_up() comes first")
        return self._open

    def _wrong(self, what: str) -> IntegrityError:
        path = self.folder if self._open is None else self._open.path
        return IntegrityError(f"the audit log {path} {what}; {_ADVICE}", path=str(path))


def segment_path(folder: Path, first: int) -> Path:
    """Return the file of the segment that begins with a line's number."""
    return folder / f"{first:020}.jsonl"


def segment_paths(folder: Path) -> list[Path]:
    """Return the segments in a folder, oldest first."""
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())


def _is_begun(path: Path) -> bool:
    """Return whether a segment has its first line."""
    try:
        with path.open("rb") as file:
            return file.readline(LARGEST_LINE).endswith(b"\n")
    except FileNotFoundError:
        return False

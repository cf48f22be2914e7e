"""The thread that writes: events that wait share one write and one sync, and checkpoints follow."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import attrs

from sandbox_sdk.audit.events import CHECKPOINT, DROPPED, Entry
from sandbox_sdk.audit.notes import LARGEST_NOTE, Checkpoint, Verifier
from sandbox_sdk.audit.retention import prune
from sandbox_sdk.audit.segments import CHECKPOINT_FILE, Segments
from sandbox_sdk.crypto_utils import SigningKey
from sandbox_sdk.durable import write_durably
from sandbox_sdk.errors import IntegrityError, SandboxError, StateError
from sandbox_sdk.store.folders import state_error

log = logging.getLogger("sandbox_sdk.audit")

MOST_WAITING = 10_000
"""Events that are kept while the disk refuses them; of more, only their number is told."""

LINGER_SECONDS = 0.02
"""How long an event that nobody waits for waits for others."""

SEGMENT_SECONDS = 86400.0
"""Age at which a new segment begins, where old ones are removed."""

_RETRY_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Pace:
    """When what is done.

    Attributes:
        events: Lines after which there is a checkpoint.
        seconds: Seconds after which there is one, if there are lines.
        segment_bytes: Size at which a new segment begins.
        keep_days: Days after which segments are removed; ``None`` is never.
    """

    events: int = 256
    seconds: float = 10.0
    segment_bytes: int = 16 * 1024 * 1024
    keep_days: int | None = None


@attrs.frozen
class _Waiting:
    """An entry, and who waits for it to be on the disk."""

    entry: Entry
    durable: Future[None] | None = None


class Writer:
    """Writes one log, from a thread of its own that begins with the first event.

    Args:
        segments: The log's files.
        find_key: Returns the key that signs it, and keeps its public half where others find it.
        pace: When what is done.
        known: The checkpoint that is remembered elsewhere, if one is.
        opened: Gets the log's name and key once it is open, in the thread.
        told: Gets each new checkpoint, in the thread.

    Attributes:
        failure: Why the last write was none, if it was.
    """

    def __init__(
        self,
        segments: Segments,
        find_key: Callable[[], SigningKey],
        pace: Pace,
        *,
        known: Checkpoint | None,
        opened: Callable[[str, SigningKey], None],
        told: Callable[[Checkpoint], None],
    ) -> None:
        self.failure: SandboxError | None = None
        self._segments = segments
        self._find_key = find_key
        self._key: SigningKey | None = None
        self._pace = pace
        self._known = known
        self._opened = opened
        self._told = told
        self._waiting: deque[_Waiting] = deque()
        self._pid = os.getpid()
        self._dropped = 0
        self._is_open = False
        self._wake = threading.Event()
        self._now = threading.Event()
        self._closing = False
        self._since: float | None = None  # when the oldest line without a checkpoint was written
        # A daemon: a client that is never closed must not hang the interpreter at its exit.
        self._thread = threading.Thread(target=self._work, name="sandbox-sdk-audit", daemon=True)
        self._thread.start()

    def submit(self, entry: Entry) -> None:
        """Have an event written soon; returns at once.

        Raises:
            StateError: This is a child of the process that made it.
        """
        self._check_process()
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(_Waiting(entry))
        if not self._wake.is_set():
            self._wake.set()

    def submit_now(self, entry: Entry) -> Future[None]:
        """Have an event written at once, and whatever waits before it.

        Returns:
            Its outcome: ``None`` once it is on the disk, or the ``SandboxError`` for why it is not.

        Raises:
            StateError: This is a child of the process that made it.
        """
        self._check_process()
        waiting = _Waiting(entry, Future())
        self._waiting.append(waiting)
        self._now.set()
        self._wake.set()
        return waiting.durable or Future()

    def close(self) -> None:
        """Write what waits and a last checkpoint, and end. Blocks; again is nothing."""
        self._closing = True
        self._now.set()
        self._wake.set()
        self._thread.join()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"this client was made by process {self._pid} before a fork and cannot be used in "
                f"its child {os.getpid()}; make a new client there"
            )

    def _work(self) -> None:
        while True:
            self._wake.wait(self._patience())
            if self._wake.is_set():
                self._now.wait(LINGER_SECONDS)
            # Cleared before the look at what waits: an event that comes now wakes us again.
            closing = self._closing
            self._wake.clear()
            self._now.clear()
            self._attempt(closing)
            if closing:
                self._segments.close()
                return

    def _patience(self) -> float | None:
        """How long to wait for the next event."""
        if self._is_final:
            return None
        if self.failure is not None:
            return _RETRY_SECONDS
        if self._since is None:
            return None
        return max(0.0, self._since + self._pace.seconds - time.monotonic())

    @property
    def _is_final(self) -> bool:
        """Whether the log is not what was written, so that nothing may be added to it."""
        return isinstance(self.failure, IntegrityError)

    def _attempt(self, closing: bool) -> None:
        batch = [self._waiting[index] for index in range(len(self._waiting))]
        if self.failure is not None and self._is_final:
            for _ in batch:
                self._waiting.popleft()
            _settle(batch, self.failure)
            return
        try:
            with self._segments.locked():
                self._open()
                self._write(batch)
                written, batch = batch, []
                for _ in written:
                    self._waiting.popleft()
                if self.failure is not None:
                    log.info("audit.writable", extra={"lines": self._segments.tree.size})
                    self.failure = None
                _settle(written, None)
                self._after(closing)
        except Exception as error:  # noqa: BLE001 - told to whoever waits; the thread goes on
            self.failure = self._explained(error)
            # They stay, to be written once that is possible; nobody waits for them any longer.
            for index in range(min(len(batch), len(self._waiting))):
                self._waiting[index] = _Waiting(self._waiting[index].entry)
            _settle(batch, self.failure)

    def _open(self) -> None:
        """Find the key, and read what others wrote, or at first what there is.

        Raises:
            SandboxError: There is no key, or the log is not what was written.
            OSError: It cannot be read.
        """
        if self._key is None:
            self._key = self._find_key()
        if self._is_open:
            self._segments.catch_up({})
            return
        here = _read_checkpoint(self._segments, self._key)
        known = {each.size: each.root for each in (here,) if each is not None}
        replaces: Mapping[str, object] | None = None
        if self._known is not None:
            if here is None and not self._segments.paths:
                replaces = {"origin": self._known.origin, "size": self._known.size}
                log.warning("audit.begun_anew", extra=replaces)
            else:
                known[self._known.size] = self._known.root
        self._segments.catch_up(known, replaces=replaces)
        self._opened(self._segments.origin, self._key)
        self._is_open = True

    def _write(self, batch: list[_Waiting]) -> None:
        dropped, self._dropped = self._dropped, 0
        entries = [waiting.entry for waiting in batch]
        if dropped:
            entries.append(Entry(type=DROPPED, data={"count": dropped}))
        try:
            if entries:
                self._segments.append(entries)
        except OSError:
            self._dropped += dropped
            raise

    def _after(self, closing: bool) -> None:
        """Sign what is due, and begin a new segment or remove old ones if that is."""
        segments, pace = self._segments, self._pace
        unsigned = segments.tree.size - segments.covered
        full = segments.size >= pace.segment_bytes
        if pace.keep_days is not None:  # else a log that grows slowly would keep all of its lines
            full |= time.time() >= segments.began + SEGMENT_SECONDS
        if unsigned and self._since is None:
            self._since = time.monotonic()
        late = self._since is not None and time.monotonic() >= self._since + pace.seconds
        if unsigned and (closing or full or late or unsigned >= pace.events):
            self._sign()
        if full and not closing:  # so that a checkpoint is the last line
            segments.rotate()
            if pace.keep_days is not None and prune(segments, pace.keep_days, time.time()):
                self._sign()
        if segments.tree.size == segments.covered:
            self._since = None

    def _sign(self) -> None:
        """Append a checkpoint, and write the one that covers it too beside the segments."""
        if self._key is None:
            raise AssertionError("a log is opened with its key")
        segments = self._segments
        note = self._checkpoint().sign(self._key)
        segments.append([Entry(type=CHECKPOINT, data={"note": note})])
        newest = self._checkpoint()
        write_durably(segments.folder / CHECKPOINT_FILE, newest.sign(self._key).encode())
        self._told(newest)

    def _checkpoint(self) -> Checkpoint:
        tree = self._segments.tree
        return Checkpoint(origin=self._segments.origin, size=tree.size, root=tree.root)

    def _explained(self, error: Exception) -> SandboxError:
        if isinstance(error, SandboxError):
            return error
        if isinstance(error, OSError):
            return state_error(error, f"the audit log {self._segments.folder} cannot be written")
        log.error("audit.bug", exc_info=error)
        return StateError(f"the audit log {self._segments.folder} cannot be written: {error!r}")


def _settle(batch: list[_Waiting], error: SandboxError | None) -> None:
    for waiting in batch:
        if waiting.durable is None or not waiting.durable.set_running_or_notify_cancel():
            continue
        if error is None:
            waiting.durable.set_result(None)
        else:
            waiting.durable.set_exception(error)


def _read_checkpoint(segments: Segments, key: SigningKey) -> Checkpoint | None:
    """Return the newest checkpoint, which must be ours, or ``None`` if there is none yet.

    Raises:
        IntegrityError: It is signed by another key, or was changed.
    """
    try:
        with (segments.folder / CHECKPOINT_FILE).open("rb") as file:
            note = file.read(LARGEST_NOTE).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    name = note.partition("\n")[0]
    return Checkpoint.parse(note, [Verifier(name=name, key=key.public)])

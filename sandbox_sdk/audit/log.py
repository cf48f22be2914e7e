"""The audit log of one client: events go in, and what the state database remembers of it."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.to_thread

from sandbox_sdk.audit.events import Entry
from sandbox_sdk.errors import SandboxClosed, SandboxError, StateError
from sandbox_sdk.store.folders import state_error

if TYPE_CHECKING:
    from sandbox_sdk.audit.notes import Checkpoint
    from sandbox_sdk.audit.writer import Pace, Writer
    from sandbox_sdk.crypto_utils import SigningKey
    from sandbox_sdk.vault import Vault

log = logging.getLogger("sandbox_sdk.audit")

FOLDER = "audit"
"""Where the log lies in the state folder."""

VERIFIER_FILE = "audit.vkey"
"""Where its public key lies in the folder of keys."""

NOTES = "audit"
"""The kind of notes under which the state database remembers it."""

NEWEST = "newest"
"""The one note of that kind: name, size and root of the newest checkpoint, as JSON."""


class Notes(Protocol):
    """Where the newest checkpoint is remembered beside the log."""

    async def notes(self, kind: str) -> Mapping[str, str]:
        """Return name -> text of one kind."""
        ...

    async def change_note(
        self, kind: str, name: str, new: Callable[[str | None], str | None]
    ) -> None:
        """Replace one text by what ``new`` makes of it."""
        ...


class Background(Protocol):
    """Runs tasks that outlive a call."""

    async def start_soon(self, func: Callable[[], Awaitable[None]]) -> None:
        """Start ``func()`` in the background."""
        ...


class AuditLog:
    """One log. Nothing is read or made before the first event.

    Args:
        state_dir: The state folder.
        vault: The keys; the log's is made if there is none.
        notes: Where its newest checkpoint is remembered; ``None`` is nowhere.
        background: Runs what remembers it.
        secrets: Texts that must not come into it.
        keep_days: Days after which whole segments are removed; ``None`` is never.
        pace: When what is done; ``None`` is the defaults, and ``keep_days``.
    """

    def __init__(
        self,
        state_dir: Path,
        vault: Vault,
        *,
        notes: Notes | None = None,
        background: Background | None = None,
        secrets: Collection[str] = (),
        keep_days: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.folder = state_dir / FOLDER
        self._vault = vault
        self._notes = notes
        self._background = background
        self._secrets = secrets
        self._keep_days = keep_days
        self._pace = pace
        self._writer: Writer | None = None
        self._starting = anyio.Lock(fast_acquire=True)  # guards _writer
        self._newest: Checkpoint | None = None
        self._remembered: Checkpoint | None = None
        self._news = anyio.Event()
        self._closed = False
        self._warned = False

    async def open(self) -> None:
        """Be ready for ``emit()``. Idempotent.

        Raises:
            StateError: The folder cannot be made.
            SandboxClosed: The log is closed.
        """
        await self._started()

    @property
    def is_open(self) -> bool:
        """Whether events can be emitted."""
        return self._writer is not None

    @property
    def failure(self) -> SandboxError | None:
        """Why the last write was none, if it was not."""
        return self._writer.failure if self._writer else None

    def check(self) -> None:
        """Go on if the last write was one.

        Raises:
            StateError: It was not, and what must be recorded would not be.
        """
        if (failure := self.failure) is not None:
            raise StateError(
                f"nothing new is begun at this security level while events cannot be recorded: "
                f"{failure.message}",
                errno=failure.errno if isinstance(failure, OSError) else None,
            ) from failure

    def emit(self, entry: Entry) -> None:
        """Have an event written within 50 ms, and return at once; ``open()`` comes first."""
        if self._writer is None:
            raise AssertionError("the audit log is not open")
        self._writer.submit(entry)
        self._tell(self._writer.failure)

    async def announce(self, entry: Entry) -> None:
        """Have an event written at once, without waiting for it."""
        (await self._started()).submit_now(entry)

    async def record(self, entry: Entry, *, must: bool) -> None:
        """Return once an event is on the disk.

        Args:
            entry: The event.
            must: Whether it is an error if it cannot be; else that is warned of once.

        Raises:
            StateError: It cannot be written, and must be.
            SandboxError: As it says, and must be: there is no key, or the log was changed.
        """
        writer = await self._started()
        try:
            await asyncio.wrap_future(writer.submit_now(entry))
        except SandboxError as error:
            if must:
                raise
            self._tell(error)
        else:
            self._tell(None)

    async def aclose(self) -> None:
        """Write what waits and a last checkpoint, and remember that one. Idempotent."""
        async with self._starting:
            self._closed = True
            if self._writer is None:
                return
            writer, self._writer = self._writer, None
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.close)
                self._tell(writer.failure)
                await self._remember_newest()

    async def _started(self) -> Writer:
        if self._writer is not None:
            return self._writer
        async with self._starting:
            if self._closed:
                raise SandboxClosed("the client is closed; make a new one")
            if self._writer is None:
                self._writer = await self._start()
            return self._writer

    async def _start(self) -> Writer:
        from sandbox_sdk.audit.segments import Segments
        from sandbox_sdk.audit.writer import Pace, Writer

        try:
            await anyio.Path(self.folder).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise state_error(error, f"{self.folder} cannot be made") from error
        known = None if self._notes is None else remembered(await self._notes.notes(NOTES))
        loop = asyncio.get_running_loop()

        def told(newest: Checkpoint) -> None:
            self._newest = newest
            loop.call_soon_threadsafe(self._news.set)

        segments = Segments(self.folder, self._secrets)
        writer = Writer(
            segments,
            self._find_key,
            self._pace or Pace(keep_days=self._keep_days),
            known=known,
            opened=self._publish,
            told=told,
        )
        if self._background is not None and self._notes is not None:
            await self._background.start_soon(self._remember)
        return writer

    def _find_key(self) -> SigningKey:
        ring = self._vault.ring(create=True)
        if ring is None:
            raise AssertionError("a ring that may be made is there")
        return ring.audit_key()

    def _publish(self, origin: str, key: SigningKey) -> None:
        """Put the public key where ``audit verify`` looks for it."""
        from sandbox_sdk.audit.notes import Verifier
        from sandbox_sdk.durable import write_durably

        path = self._vault.folder / VERIFIER_FILE
        text = f"{Verifier(name=origin, key=key.public).to_text()}\n"
        if not path.exists() or path.read_text() != text:
            write_durably(path, text.encode())

    async def _remember(self) -> None:
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            await self._remember_newest()

    async def _remember_newest(self) -> None:
        newest = self._newest
        if newest is None or newest is self._remembered or self._notes is None:
            return
        text = json.dumps({"origin": newest.origin, "size": newest.size, "root": newest.root.hex()})

        def newer(old: str | None) -> str:
            # Another process may have been further.
            before = None if old is None else remembered({NEWEST: old})
            if before and before.origin == newest.origin and before.size > newest.size:
                return old or text
            return text

        try:
            await self._notes.change_note(NOTES, NEWEST, newer)
        except SandboxError as error:
            # The next checkpoint says all that this one does.
            log.warning("audit.not_remembered", extra={"reason": error.message})
        else:
            self._remembered = newest

    def _tell(self, failure: SandboxError | None) -> None:
        if failure is None:
            self._warned = False
        elif not self._warned:
            self._warned = True
            log.error("audit.failed", extra={"reason": failure.message})
            warnings.warn(f"events are NOT recorded for now, {failure.message}", stacklevel=2)


def remembered(notes: Mapping[str, str]) -> Checkpoint | None:
    """Return the checkpoint that the state database remembers, if it does.

    Raises:
        StateError: What it remembers is no checkpoint.
    """
    from sandbox_sdk.audit.notes import Checkpoint

    if (text := notes.get(NEWEST)) is None:
        return None
    try:
        match json.loads(text):
            case {"origin": str(origin), "size": int(size), "root": str(root)}:
                return Checkpoint(origin=origin, size=size, root=bytes.fromhex(root))
            case _:
                pass
    except ValueError:
        pass
    raise StateError("the state database's note on the audit log was changed: it is no checkpoint")

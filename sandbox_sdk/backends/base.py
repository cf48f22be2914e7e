"""The two planes of a backend: lifecycle calls, and one channel of frames per sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

import attrs

from sandbox_sdk.store.base import Once
from sandbox_sdk.values import (
    Collected,
    Ended,
    Isolation,
    Limit,
    SandboxInfo,
    SandboxSpec,
    Shelf,
    Usage,
)


@attrs.frozen(kw_only=True)
class Standing:
    """What holds for a set-up sandbox.

    Attributes:
        isolation: What is in force, proven from inside.
        limits: Its limits and what holds each.
        info: Its record now.
    """

    isolation: Isolation
    limits: tuple[Limit, ...]
    info: SandboxInfo


@attrs.frozen(kw_only=True)
class LimitHits:
    """How often the kernel acted on a sandbox's limits since it was set up.

    Attributes:
        oom_kills: Processes killed for memory.
        pids_refused: Forks refused.
        used_up: What a workspace of fixed size has no more of now: ``disk``, ``disk_files``, or
            nothing.
    """

    oom_kills: int = 0
    pids_refused: int = 0
    used_up: str = ""


Noted = Callable[[], Awaitable[LimitHits]]
"""Gives what was counted at a time that has passed; may wait for it."""


async def none_hit() -> LimitHits:
    """Give that nothing was counted; a ``Noted``."""
    return LimitHits()


class Ahead(Protocol):
    """A Python context that was forked ahead, with streams of its own beside the channel."""

    def adopt(
        self, number: int, take: Callable[[int, bytes], int], end: Callable[[int], None]
    ) -> None:
        """Become an exchange.

        Args:
            number: The exchange.
            take: Gets bytes of a stream, and returns how many are done with.
            end: Is told the end of an output stream; the result's is that of the context itself,
                of which PID 1 tells.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send bytes to its standard input's stream; what has ended takes nothing."""
        ...

    def send_eof(self) -> None:
        """Tell that no more comes."""
        ...

    def give_credit(self, stream: int, count: int) -> None:
        """Take note of how much more of a stream is wanted."""
        ...

    def read(self) -> None:
        """Hand on what came, as far as there is credit."""
        ...

    def close(self) -> None:
        """Give everything back. Idempotent."""
        ...


class Channel(Protocol):
    """An ordered two-way stream of frames to the agent of one sandbox."""

    def take_ahead(self) -> Ahead | None:
        """Return the context that was forked ahead, once; ``None`` where there is none."""
        ...

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            ConnectionError: The agent is gone.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            ConnectionError: The agent is gone.
            ProtocolError: What came is no frame.
        """
        ...


class Watched(Protocol):
    """One call inside a sandbox, between its beginning and its end; must be quick and not fail."""

    def __enter__(self) -> Watched:
        """Take note of its beginning."""
        ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take note of its end."""
        ...

    def finished(self, ended: Ended, **more: object) -> None:
        """Take note of how it ended."""
        ...

    def wrote(self, **more: object) -> None:
        """Take note of what was done."""
        ...


class Watcher(Protocol):
    """Is told of every call inside one sandbox."""

    def call(
        self, what: str, content: bytes | str | Sequence[str] | None, about: Mapping[str, object]
    ) -> Watched:
        """Return a call to enter.

        Args:
            what: For example ``command``.
            content: What it is about, of which a digest is enough.
            about: What else there is to say.

        Raises:
            StateError: It must not be made now.
        """
        ...


class Observer(Protocol):
    """Is told of every sandbox that starts and ends, at once; must be quick and not fail."""

    def started(self, info: SandboxInfo, *, seconds: float, ready: bool) -> None:
        """Take note of a start.

        Args:
            info: The sandbox's record.
            seconds: How long it took.
            ready: Whether one stood ready for it.
        """
        ...

    def failed(self, spec: SandboxSpec) -> None:
        """Take note of a start that failed."""
        ...

    def ended(self, info: SandboxInfo, ended: Ended, usage: Usage) -> None:
        """Take note of an end, and what the sandbox used in all."""
        ...


class Gate(Protocol):
    """Says what of all this is allowed, by an operator's rules; every check raises its denial.

    A check is quick: it may look at a file, and waits for nothing.
    """

    async def refresh(self) -> None:
        """Learn what other processes have used, before what is asked next.

        Raises:
            StateError: It cannot be read.
        """
        ...

    def create(self, spec: SandboxSpec) -> None:
        """Let a sandbox be recorded.

        Raises:
            PolicyDenied: It is not allowed.
        """
        ...

    def starting(self, info: SandboxInfo) -> AbstractContextManager[None]:
        """Return what to start a sandbox within.

        Raises:
            PolicyDenied: On entering, it is not allowed.
        """
        ...

    def standing(self, standing: Standing) -> None:
        """Let code into a sandbox that stands.

        Raises:
            PolicyDenied: What is in force there is not allowed.
        """
        ...

    async def forget(self, id: str) -> None:
        """Take note that a sandbox was deleted."""
        ...


class Backend(Protocol):
    """Where sandboxes live. Calls are idempotent unless they say otherwise."""

    async def pin(self, spec: SandboxSpec) -> SandboxSpec:
        """Return the spec with its template's name replaced by what it means now.

        Raises:
            TemplateError: There is none of that name or key.
        """
        ...

    async def create(self, spec: SandboxSpec, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox; idempotent only with ``once``, by which the request is known.

        Raises:
            IdempotencyMismatch: The request's first time asked for something else.
        """
        ...

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, or return at once what holds if it runs here.

        Raises:
            SandboxNotFound: There is none.
            SandboxBusy: Another live process holds it.
            IsolationError: A wall could not be had or proven.
            LaunchError: It did not start.
        """
        ...

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        """End a sandbox and wait until nothing of it is left but its workspace and results.

        Args:
            id: The sandbox.
            why: How it ended then, if it was not its user's wish.

        Returns:
            Its record then.

        Raises:
            SandboxBusy: Another live process holds it.
        """
        ...

    async def delete(self, id: str) -> None:
        """Stop a sandbox and remove its record, workspace and results.

        Raises:
            SandboxNotFound: There is none.
            SandboxBusy: Another live process holds it.
        """
        ...

    async def get(self, id: str) -> SandboxInfo:
        """Return a sandbox's record.

        Raises:
            SandboxNotFound: There is none.
        """
        ...

    async def list(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first."""
        ...

    async def running(self) -> tuple[SandboxInfo, ...]:
        """Return the records of the sandboxes that run here, without a look at the store."""
        ...

    def observe(self, observer: Observer) -> None:
        """Tell an observer of every start and end from now on."""
        ...

    async def usage(self, ids: Sequence[str]) -> tuple[Usage, ...]:
        """Return what each sandbox uses now, or used in all if it ended, in the order asked."""
        ...

    async def limit_hits(self, id: str) -> LimitHits:
        """Return what the kernel counted against a running sandbox's limits."""
        ...

    async def note_hits(self, id: str) -> Noted:
        """Have that counted as it is before whatever is sent next; return what then gives it."""
        ...

    async def ended(self, id: str) -> Ended:
        """Wait until a sandbox that ran here has ended, and return how."""
        ...

    def connect(self, id: str) -> AbstractAsyncContextManager[Channel]:
        """Open the channel to a running sandbox; one at a time."""
        ...

    async def collect(
        self, id: str, patterns: Sequence[str], destination: Path | Shelf
    ) -> Collected:
        """Copy files of a workspace into a content-addressed folder, running or not."""
        ...

    def read_file(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a workspace, running or not; no link is followed.

        Raises:
            FileError: It is missing, no regular file, or not plainly inside the workspace.
        """
        ...

    async def aclose(self) -> None:
        """End every sandbox that runs here and give everything back."""
        ...

"""The live connection of a sandbox object to its agent, and the host's verdict on what ran."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio

from sandbox_sdk import verdicts
from sandbox_sdk.backends.base import Backend, Watched, Watcher
from sandbox_sdk.backends.exchanges import Exchange, Exchanges, Sink
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.errors import IdleTimeout, LifetimeExceeded, SandboxEnded
from sandbox_sdk.values import Ended, EndKind, Resources

KILL_SECONDS = 5.0
"""Longest wait for a killed call to be gone; then the whole sandbox is ended."""

_EXIT_SECONDS = 1.0  # for a context that has answered; then it is killed


class _Unwatched:
    """A call of which nobody takes note."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing."""

    def finished(self, ended: Ended, **more: object) -> None:
        """Do nothing."""

    def wrote(self, **more: object) -> None:
        """Do nothing."""


_UNWATCHED = _Unwatched()


def _allow() -> None:
    """Allow every call."""


class Link:
    """A connection to one set-up sandbox; a sandbox that is set up again gets a new one.

    Attributes:
        id: The sandbox.
        resources: Its limits.
        watched: Whether somebody takes note of its calls.
        ended: How the sandbox ended, once it did.
    """

    def __init__(
        self,
        id: str,
        backend: Backend,
        resources: Resources,
        supervisor: Supervisor,
        watcher: Watcher | None = None,
        allow: Callable[[], None] = _allow,
    ) -> None:
        self.id = id
        self.resources = resources
        self.watched = watcher is not None
        self._watcher = watcher
        self._allow = allow
        self._backend = backend
        self._supervisor = supervisor
        self._exchanges: Exchanges | None = None
        self._leaving: list[Exchange] = []
        self._ready = anyio.Event()
        self.ended: Ended | None = None

    @classmethod
    async def open(
        cls,
        id: str,
        backend: Backend,
        resources: Resources,
        supervisor: Supervisor,
        watcher: Watcher | None = None,
        allow: Callable[[], None] = _allow,
    ) -> Link:
        """Connect to a sandbox that has been started.

        Args:
            id: The sandbox.
            backend: Where it lives.
            resources: Its limits.
            supervisor: Runs what must go on in the background.
            watcher: Takes note of its calls.
            allow: Raises ``PolicyDenied`` where a call is not allowed now.
        """
        link = cls(id, backend, resources, supervisor, watcher, allow)
        await supervisor.start_soon(link._serve)
        await link._ready.wait()
        return link

    @property
    def lost(self) -> bool:
        """Whether the agent is gone."""
        return self._exchanges is None or self._exchanges.lost

    def watching(
        self, what: str, content: bytes | str | Sequence[str] | None = None, **about: object
    ) -> Watched:
        """Return a call to enter, of which whoever watches takes note; see ``Watcher.call``.

        Raises:
            StateError: It must not be made now.
        """
        return _UNWATCHED if self._watcher is None else self._watcher.call(what, content, about)

    async def start(self, request: Mapping[str, Any], sink: Sink) -> Exchange:
        """Start something inside.

        Raises:
            SandboxEnded: The sandbox has ended.
            PolicyDenied: A rule of the operator's does not allow it.
        """
        self._allow()
        for leaving in tuple(self._leaving):
            await leaving.over.wait()
        before = await self._backend.note_hits(self.id)
        if self._exchanges is None:
            raise await self.why_ended()
        async with self.explaining():
            exchange = await self._exchanges.open(request, sink)
        exchange.before = before
        return exchange

    async def leave(self, exchange: Exchange) -> None:
        """Let a context that has answered end by itself; what starts next finds it gone."""
        if not exchange.over.is_set():
            self._leaving.append(exchange)
            await self._supervisor.start_soon(self._see_off, exchange)

    async def _see_off(self, exchange: Exchange) -> None:
        """Wait for a context's end, and end it if it does not come."""
        with anyio.move_on_after(_EXIT_SECONDS):
            await exchange.over.wait()
        if not exchange.over.is_set():
            await self.kill(exchange)
        self._leaving.remove(exchange)

    async def begin(self, exchange: Exchange) -> None:
        """Note that a new call begins on a kept exchange.

        Raises:
            PolicyDenied: A rule of the operator's does not allow it.
        """
        self._allow()
        exchange.before = await self._backend.note_hits(self.id)
        if self._exchanges is not None:
            self._exchanges.begin(exchange)

    async def kill(self, exchange: Exchange) -> None:
        """End an exchange and all below it, and if that fails in time, the sandbox."""
        with anyio.CancelScope(shield=True):
            try:
                await exchange.kill()
            except ConnectionError:
                return
            with anyio.move_on_after(KILL_SECONDS) as patience:
                await exchange.over.wait()
            if patience.cancelled_caught:
                detail = f"a call that was ended still ran after {KILL_SECONDS:g} s"
                await self._backend.stop(self.id, Ended(kind=EndKind.CANCELLED, detail=detail))

    async def judge(self, exchange: Exchange, verdict: Ended | None) -> Ended:
        """Return how an exchange ended, from what only the host knows and PID 1 reported.

        Args:
            exchange: One that is over.
            verdict: What the host decided about it, if it did.
        """
        exchange.busy = False
        if verdict is not None:
            return verdict
        if exchange.report is None:
            return await self._lost()
        if verdicts.is_success(exchange.report):
            return Ended(kind=EndKind.OK, exit_code=0)
        before, now = await exchange.before(), await self._backend.limit_hits(self.id)
        return verdicts.decide(
            exchange.report, before, now, alone=exchange.alone, resources=self.resources
        )

    @asynccontextmanager
    async def explaining(self) -> AsyncGenerator[None, None]:
        """Raise what ended the sandbox where the block finds that the agent is gone.

        Raises:
            SandboxEnded: The sandbox has ended.
        """
        try:
            yield
        except ConnectionError as error:
            raise await self.why_ended() from error

    async def why_ended(self) -> SandboxEnded:
        """Return the error for a call on a sandbox that has ended."""
        ended = await self._find_end()
        text = f"sandbox {self.id} has ended: {ended}. Call setup() to start it anew over the same"
        if ended.limit == "lifetime":
            return LifetimeExceeded(
                f"{text} workspace; a larger timeout= gives it more time",
                sandbox_id=self.id,
                ended=ended,
            )
        if ended.limit == "idle_timeout":
            return IdleTimeout(
                f"{text} workspace; a larger idle_timeout= keeps it longer",
                sandbox_id=self.id,
                ended=ended,
            )
        return SandboxEnded(f"{text} workspace", sandbox_id=self.id, ended=ended)

    async def _lost(self) -> Ended:
        """What the end of the sandbox makes of a call that was in flight."""
        ended = await self._find_end()
        if ended.kind is EndKind.OK:
            return Ended(kind=EndKind.CANCELLED, detail=f"the sandbox ended: {ended.detail}")
        return ended

    async def _serve(self) -> None:
        try:
            async with self._backend.connect(self.id) as channel:
                self._exchanges = Exchanges(channel)
                self._ready.set()
                await self._exchanges.serve()
        finally:
            self._ready.set()
            await self._find_end()

    async def _find_end(self) -> Ended:
        """Wait for the sandbox's end, and keep how it was."""
        self.ended = await self._backend.ended(self.id)
        return self.ended

"""The one long-lived task of a client, which owns every background task of its sandboxes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import anyio
from anyio.abc import TaskGroup

from sandbox_sdk.errors import SandboxClosed

log = logging.getLogger("sandbox_sdk.supervisor")

Ts = TypeVarTuple("Ts")


class Supervisor:
    """Runs background tasks in one task group, from first use until ``aclose()``.

    A public call must not leave a cancel scope open behind it, so the task group lives in a task
    of its own; this is the only place where one is started beside the caller's.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._ready = anyio.Event()
        self._closing = anyio.Event()

    async def start_soon(self, func: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Start ``func(*args)`` in the background; an exception of it is logged, no more.

        Raises:
            SandboxClosed: The client was closed.
        """
        if self._closing.is_set():
            raise SandboxClosed("the client is closed; create a new one")
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._group is None:
            await self._ready.wait()
        if self._group is not None:
            self._group.start_soon(self._guarded, func, args)

    async def aclose(self) -> None:
        """Cancel what runs and wait for its end. Idempotent."""
        self._closing.set()
        if self._task is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._task])

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            self._ready.set()
            await self._closing.wait()
            group.cancel_scope.cancel()

    async def _guarded(self, func: Callable[[*Ts], Awaitable[None]], args: tuple[*Ts]) -> None:
        try:
            await func(*args)
        except Exception:
            # One sandbox's trouble must not end the tasks of all others.
            log.exception(
                "supervisor.task_failed", extra={"task": getattr(func, "__qualname__", "")}
            )

"""Sandboxes that stand ready before anyone asks for them; each is used by one owner, once.

How many are kept follows from the misses: every request that found none ready asks for half of
one more, every quiet while for one less.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import attrs

from sandbox_sdk.engine.blank import Blank, Shape
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.values import MIB, SandboxSpec

QUIET_SECONDS = 120.0
"""After so long without a miss one ready sandbox less is kept."""

PAUSE_SECONDS = 0.05
"""From a request to the refill: whoever just took one has the processors first."""

RESERVED_BYTES = 64 * MIB
"""Memory that must be free on the host for every sandbox made ahead."""

_GROWTH = 0.5

log = logging.getLogger("sandbox_sdk.pool")


@attrs.define(eq=False)
class _Shelf:
    """The ready sandboxes of one shape.

    Attributes:
        spec: One that has the shape.
        ready: The oldest first.
        spare: How many to keep; the next whole number.
        changed_at: When ``spare`` last changed.
    """

    spec: SandboxSpec
    ready: deque[Blank] = attrs.field(factory=deque[Blank])
    spare: float = 0.0
    changed_at: float = attrs.field(factory=anyio.current_time)


class Pool:
    """Keeps sandboxes ready, for shapes that were asked for."""

    def __init__(
        self,
        make: Callable[[SandboxSpec], Awaitable[Blank]],
        end: Callable[[Blank], Awaitable[None]],
        supervisor: Supervisor,
        *,
        most: int,
    ) -> None:
        """Make a pool.

        Args:
            make: Starts one.
            end: Ends one that nobody took.
            supervisor: Runs the task that refills.
            most: How many are kept of all shapes together; 0 keeps none.
        """
        self._make = make
        self._end = end
        self._supervisor = supervisor
        self._most = most
        self._shelves: dict[Shape, _Shelf] = {}
        self._wanted = anyio.Event()
        self._refilling = False
        self._closed = False

    async def take(self, shape: Shape, spec: SandboxSpec) -> Blank | None:
        """Return a ready sandbox of a shape, or ``None``; then some are made ahead for the next.

        Args:
            shape: What is needed.
            spec: One that has the shape.
        """
        if not self._most or self._closed:
            return None
        if not self._refilling:
            self._refilling = True
            await self._supervisor.start_soon(self._refill)
        if shape not in self._shelves:
            self._shelves[shape] = _Shelf(spec)
        shelf = self._shelves[shape]
        found = None
        while shelf.ready and found is None:
            blank = shelf.ready.popleft()
            if blank.launched.ended.is_set():
                await self._end(blank)
            else:
                found = blank
        if found is None:
            shelf.spare = min(float(self._most), shelf.spare + _GROWTH)
            shelf.changed_at = anyio.current_time()
        self._wanted.set()
        return found

    async def aclose(self) -> None:
        """End all that stand ready. Idempotent."""
        self._closed = True
        self._wanted.set()
        for shelf in self._shelves.values():
            while shelf.ready:
                await self._end(shelf.ready.popleft())

    async def _refill(self) -> None:
        while not self._closed:
            self._wanted = anyio.Event()
            for shelf in list(self._shelves.values()):  # a shape may come meanwhile
                await self._level(shelf)
            with anyio.move_on_after(QUIET_SECONDS):
                await self._wanted.wait()
            await anyio.sleep(PAUSE_SECONDS)

    async def _level(self, shelf: _Shelf) -> None:
        """Bring one shelf to what it should hold."""
        if shelf.spare and anyio.current_time() - shelf.changed_at >= QUIET_SECONDS:
            shelf.spare = max(0.0, shelf.spare - 1)
            shelf.changed_at = anyio.current_time()
        while len(shelf.ready) > math.ceil(shelf.spare):
            await self._end(shelf.ready.popleft())
        while len(shelf.ready) < math.ceil(shelf.spare) and await self._has_room():
            try:
                blank = await self._make(shelf.spec)
            except SandboxError as error:
                # Whoever asks next gets the error itself; nothing is tried again before that.
                log.info("pool.start_failed", extra={"reason": str(error)})
                shelf.spare = 0.0
                return
            if self._closed:
                await self._end(blank)
                return
            shelf.ready.append(blank)

    async def _has_room(self) -> bool:
        if self._closed or sum(len(each.ready) for each in self._shelves.values()) >= self._most:
            return False
        return await anyio.to_thread.run_sync(_available_bytes) > RESERVED_BYTES


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0

"""Lets sandboxes start as far as memory reaches: each reserves what its like have needed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import attrs

from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.policies.admission import SlotRequest, refusal
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.policies.scaling import MARGIN_BYTES, PlacesState, ScaleState, decide
from sandbox_sdk.values import MIB

FIRST_BYTES = 64 * MIB
"""What a sandbox reserves of whose template none has been seen yet."""

HEADROOM = 1.2
"""What a sandbox reserves, of the largest peak that was seen of its template."""

LOOK_SECONDS = 0.25
"""How often whoever is next looks whether there is room."""

_FRESH_SECONDS = 0.1


@attrs.define(eq=False)
class _Waiter:
    """Who waits for a place."""

    request: SlotRequest
    granted: anyio.Event = attrs.field(factory=anyio.Event)
    first: anyio.Event = attrs.field(factory=anyio.Event)


class ReservedAdmission:
    """An ``Admission`` by memory, first come, first served; one sandbox may always start.

    Args:
        read_host: Tells what the machine has left.
        peak_of: The largest peak seen of a template, by its name, or ``None``.
        places: How many may start at once at first.
        most: How many at most.
        scale_log: Is told what was changed and why.
        reserve: Whether a sandbox reserves by the peaks seen, or its whole memory limit.
    """

    def __init__(
        self,
        read_host: Callable[[], Awaitable[HostState]],
        peak_of: Callable[[str], int | None],
        *,
        places: int,
        most: int,
        scale_log: ScaleLog,
        reserve: Literal["peak", "limit"] = "peak",
    ) -> None:
        self._read_host = read_host
        self._peak_of = peak_of
        self._limit, self._least, self._most = min(places, most), 1, most
        self._log = scale_log
        self._reserve = reserve
        self._held: dict[_Waiter, None] = {}
        self._queue: deque[_Waiter] = deque()
        self._room = 0  # bytes for all reservations; measured when none was held
        self._host: HostState | None = None
        self._looked_at = float("-inf")
        self._freed = anyio.Event()
        self._changed_at = self._cut_at = float("-inf")
        self.waited: Callable[[float], None] = lambda _: None
        """Is told how many seconds each that got a place had waited."""

    @property
    def places(self) -> int:
        """How many may run at once now, if memory reaches."""
        return self._limit

    @property
    def held(self) -> int:
        """How many places are taken."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._queue)

    @property
    def reserved_bytes(self) -> int:
        """What those that hold a place have reserved together."""
        return sum(self._need(waiter.request) for waiter in self._held)

    @asynccontextmanager
    async def slot(self, request: SlotRequest) -> AsyncGenerator[None, None]:
        """Wait until there is room, and hold the place while the context lasts.

        Raises:
            AdmissionTimeout: Others held all places for too long; the message names them.
        """
        waiter = _Waiter(request)
        began = anyio.current_time()
        self._queue.append(waiter)
        try:
            await self._wait(waiter)
            self.waited(anyio.current_time() - began)
            yield
        finally:
            if waiter in self._held:
                del self._held[waiter]
            else:
                self._queue.remove(waiter)
            self._wake()

    async def _wait(self, waiter: _Waiter) -> None:
        """Wait for a place: in the queue, then, as the first of it, for room."""
        while not waiter.granted.is_set():
            with anyio.move_on_after(waiter.request.timeout):
                self._wake()
                await waiter.first.wait()
                await self._grant(waiter)
                return
            # Whoever waits for trials of its own run gets a place when one of them ends.
            owners = {holder.request.owner for holder in self._held}
            if owners and waiter.request.owner not in owners:
                holders = [holder.request.holder for holder in self._held]
                raise refusal(waiter.request, holders, self._limit)

    async def _grant(self, waiter: _Waiter) -> None:
        """Give the first of the queue its place as soon as there is room."""
        while True:
            host = await self._look()
            self._scale(host)
            if self._fits(waiter.request, host):
                self._queue.remove(waiter)
                self._held[waiter] = None
                waiter.granted.set()
                self._wake()
                return
            self._freed = anyio.Event()
            with anyio.move_on_after(LOOK_SECONDS):
                await self._freed.wait()

    async def _look(self) -> HostState:
        """What the host has left, as of a moment ago: what was granted since is in the sums."""
        now = anyio.current_time()
        if self._host is None or now - self._looked_at >= _FRESH_SECONDS:
            self._host, self._looked_at = await self._read_host(), now
        return self._host

    def _fits(self, request: SlotRequest, host: HostState) -> bool:
        free = host.available_bytes - MARGIN_BYTES
        if not self._held:
            self._room = free
            return True  # alone it may run, whatever it needs: else it would never
        need = self._need(request)
        self._room = max(self._room, free)  # others gave some back
        if len(self._held) >= self._limit or free < need:
            return False
        # What was reserved and not yet used is not free, though the host says so.
        return self.reserved_bytes + need <= self._room

    def _need(self, request: SlotRequest) -> int:
        limit = request.resources.memory_bytes
        if self._reserve == "limit":
            return limit
        peak = self._peak_of(request.template)
        return min(limit, FIRST_BYTES if peak is None else int(peak * HEADROOM))

    def _scale(self, host: HostState) -> None:
        now = anyio.current_time()
        state = PlacesState(
            limit=self._limit,
            held=len(self._held),
            waiting=len(self._queue),
            least=self._least,
            most=self._most,
            changed_seconds=now - self._changed_at,
            cut_seconds=now - self._cut_at,
        )
        decision = decide(ScaleState(host=host, places=state))
        if (change := decision.of("places")) is not None:
            if change.after < self._limit:
                self._cut_at = now
            self._limit, self._changed_at = int(change.after), now
            self._log.add(decision)

    def _wake(self) -> None:
        """Tell the first of the queue that it is, and that something has changed."""
        if self._queue:
            self._queue[0].first.set()
        self._freed.set()

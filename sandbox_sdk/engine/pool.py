"""Sandboxes that stand ready before anyone asks for them; each is used by one owner, once.

How many are kept follows from the misses, by ``policies.scaling``; or it is a fixed number.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
import attrs

from sandbox_sdk.engine.blank import Blank, Shape
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.policies import scaling
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.policies.scaling import Change, Decision, ScaleState, ShelfState
from sandbox_sdk.values import MIB, SandboxSpec

PAUSE_SECONDS = 0.05
"""From a request to the refill: whoever just took one has the processors first."""

log = logging.getLogger("sandbox_sdk.pool")


@attrs.frozen(kw_only=True)
class ShelfView:
    """How one shape of ready sandboxes stands.

    Attributes:
        name: Names the shape.
        target: How many are to be kept.
        ready: How many there are.
        misses: Requests that found none, in all.
    """

    name: str
    target: int
    ready: int
    misses: int


@attrs.define(eq=False)
class _Shelf:
    """The ready sandboxes of one shape.

    Attributes:
        spec: One that has the shape.
        name: Names it in events.
        ready: The oldest first.
        spare: How many to keep; the next whole number.
        changed_at: When ``spare`` last changed.
        missed: Requests that found none, since the last decision.
        misses: The same, in all.
        failures: Starts in a row that failed.
        failed_at: When the last one of them did.
    """

    spec: SandboxSpec
    name: str
    ready: deque[Blank] = attrs.field(factory=deque[Blank])
    spare: float = 0.0
    changed_at: float = attrs.field(factory=anyio.current_time)
    missed: int = 0
    misses: int = 0
    failures: int = 0
    failed_at: float = -math.inf

    def state(self, now: float) -> ShelfState:
        """What is decided by."""
        return ShelfState(
            name=self.name,
            spare=self.spare,
            missed=self.missed,
            quiet_seconds=now - self.changed_at,
            failures=self.failures,
            failed_seconds=now - self.failed_at,
        )


class Pool:
    """Keeps sandboxes ready, for shapes that were asked for."""

    def __init__(
        self,
        make: Callable[[SandboxSpec], Awaitable[Blank]],
        end: Callable[[Blank], Awaitable[None]],
        supervisor: Supervisor,
        *,
        most: int,
        read_host: Callable[[], Awaitable[HostState]],
        scale_log: ScaleLog,
        scaled: bool = True,
    ) -> None:
        """Make a pool.

        Args:
            make: Starts one.
            end: Ends one that nobody took.
            supervisor: Runs the task that refills.
            most: How many are kept of all shapes together; 0 keeps none.
            read_host: Tells what the machine has left.
            scale_log: Is told what was changed and why.
            scaled: Whether misses decide how many are kept; else it is ``most`` of each shape
                that was asked for, as far as all together allow.
        """
        self._read_host = read_host
        self._log = scale_log
        self._scaled = scaled
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
            self._shelves[shape] = _Shelf(spec, _name(shape))
        shelf = self._shelves[shape]
        found = None
        while shelf.ready and found is None:
            blank = shelf.ready.popleft()
            if blank.launched.ended.is_set():
                await self._end(blank)
            else:
                found = blank
        if found is None:
            shelf.missed += 1
            shelf.misses += 1
        self._wanted.set()
        return found

    async def aclose(self) -> None:
        """End all that stand ready. Idempotent."""
        self._closed = True
        self._wanted.set()
        for shelf in self._shelves.values():
            while shelf.ready:
                await self._end(shelf.ready.popleft())

    @property
    def shelves(self) -> tuple[ShelfView, ...]:
        """How each shape that was asked for stands."""
        return tuple(
            ShelfView(
                name=shelf.name,
                target=math.ceil(shelf.spare),
                ready=len(shelf.ready),
                misses=shelf.misses,
            )
            for shelf in self._shelves.values()
        )

    async def _refill(self) -> None:
        while not self._closed:
            self._wanted = anyio.Event()
            host = await self._read_host()
            self._scale(host)
            for shelf in list(self._shelves.values()):  # a shape may come meanwhile
                await self._level(shelf)
            with anyio.move_on_after(self._patience()):
                await self._wanted.wait()
            await anyio.sleep(PAUSE_SECONDS)

    def _scale(self, host: HostState) -> None:
        """Decide how many to keep of each shape."""
        now = anyio.current_time()
        states = tuple(shelf.state(now) for shelf in self._shelves.values())
        decided = scaling.decide(ScaleState(host=host, most_ready=self._most, shelves=states))
        if not self._scaled:
            decided = Decision(changes=tuple(filter(None, map(self._fixed, states))))
        for shelf in self._shelves.values():
            if (change := decided.of("ready", shelf.name)) is not None:
                shelf.spare, shelf.changed_at = change.after, now
            if shelf.failed_at + scaling.back_off(shelf.failures) <= now:
                shelf.missed = 0  # else they count once it is over
        self._log.add(decided)

    def _fixed(self, shelf: ShelfState) -> Change | None:
        """The change to the fixed number, but while starts fail."""
        waits = shelf.failed_seconds < scaling.back_off(shelf.failures)
        after = 0.0 if waits else float(self._most)
        reason = f"{shelf.failures} starts in a row failed" if waits else "pool_size is fixed"
        if after == shelf.spare:
            return None
        return Change(what="ready", name=shelf.name, before=shelf.spare, after=after, reason=reason)

    def _patience(self) -> float:
        """How long nothing changes by itself, in seconds."""
        now = anyio.current_time()
        waits = [
            left
            for shelf in self._shelves.values()
            if (left := shelf.failed_at + scaling.back_off(shelf.failures) - now) > 0
        ]
        return min([scaling.QUIET_SECONDS, *waits])

    async def _level(self, shelf: _Shelf) -> None:
        """Bring one shelf to what it should hold."""
        while len(shelf.ready) > math.ceil(shelf.spare):
            await self._end(shelf.ready.popleft())
        while len(shelf.ready) < math.ceil(shelf.spare) and await self._has_room():
            try:
                blank = await self._make(shelf.spec)
            except SandboxError as error:
                # Whoever asks next gets the error itself; nothing is tried again for a while.
                log.info("pool.start_failed", extra={"reason": str(error)})
                shelf.failures += 1
                shelf.failed_at = anyio.current_time()
                self._scale(await self._read_host())
                return
            shelf.failures = 0
            if self._closed:
                await self._end(blank)
                return
            shelf.ready.append(blank)

    async def _has_room(self) -> bool:
        if self._closed or sum(len(each.ready) for each in self._shelves.values()) >= self._most:
            return False
        return (await self._read_host()).available_bytes > scaling.MARGIN_BYTES


def _name(shape: Shape) -> str:
    """A name of a shape that people can read; shapes that differ in details share one."""
    memory = shape.resources.memory_bytes // MIB
    return f"{shape.template[:24]}/{shape.level}/{memory}MiB"

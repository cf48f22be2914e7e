"""Looks at all sandboxes of a client at once, and keeps what was seen."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import attrs

from sandbox_sdk.backends.base import Backend
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.orchestrator.snapshot import HistoryPoint, ResourceSnapshot
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.values import Ended, SandboxInfo, SandboxSpec, Usage

ANSWER_SECONDS = 5.0
"""Longest wait for one backend's figures; the others' are there all the same."""

HISTORY_POINTS = 1440
"""How many points of history are kept: a day, at one a minute."""

log = logging.getLogger("sandbox_sdk.monitor")


class Monitor:
    """Reads the figures of every running sandbox, one call to each backend, all concurrently.

    It asks no sandbox anything, only the kernel: one that hangs delays nobody's figures. What the
    kernel counts is not lost between two looks, so nothing is read but when someone asks, once in
    every interval for the history, and at each sandbox's end.

    Args:
        backends: Where sandboxes run.
        read_host: Tells what the machine has left.
        interval: Seconds between two points of history.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        read_host: Callable[[], Awaitable[HostState]],
        *,
        interval: float,
    ) -> None:
        self._backends = backends
        self._read_host = read_host
        self._interval = interval
        self._history: deque[HistoryPoint] = deque(maxlen=HISTORY_POINTS)
        self._before: dict[str, float] = {}  # sandbox -> its CPU time at the last point
        self._gone = _Gone()
        self._lively = anyio.Event()
        self._kept: list[Callable[[], Awaitable[None]]] = []
        self._seen: list[Callable[[Sequence[SandboxInfo], ResourceSnapshot], None]] = []
        for backend in backends:
            backend.observe(self)

    @property
    def history(self) -> tuple[HistoryPoint, ...]:
        """What was kept, oldest first."""
        return tuple(self._history)

    def tell(self, seen: Callable[[Sequence[SandboxInfo], ResourceSnapshot], None]) -> None:
        """Have a function called with every snapshot from now on."""
        self._seen.append(seen)

    def after_each_point(self, kept: Callable[[], Awaitable[None]]) -> None:
        """Have a function called after each point of history."""
        self._kept.append(kept)

    async def snapshot(self) -> ResourceSnapshot:
        """Return what every running sandbox uses now, read afresh."""
        found: dict[int, _Answer] = {}
        host: list[HostState] = []

        async def ask(number: int, backend: Backend) -> None:
            found[number] = await _ask(backend)

        async def look() -> None:
            try:
                host.append(await self._read_host())
            except (OSError, SandboxError) as error:
                log.warning("monitor.host_unread", extra={"reason": str(error)})

        taken_at = time.time()
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            for number, backend in enumerate(self._backends):
                group.start_soon(ask, number, backend)
        answers = [found[number] for number in sorted(found)]
        snapshot = ResourceSnapshot(
            taken_at=taken_at,
            sandboxes=tuple(usage for answer in answers for usage in answer.usages),
            host=host[0] if host else None,
        )
        infos = [info for answer in answers for info in answer.infos]
        for seen in self._seen:
            seen(infos, snapshot)
        return snapshot

    async def run(self) -> None:
        """Add a point to the history in every interval, as long as anything runs."""
        while True:
            await self._lively.wait()
            await anyio.sleep(self._interval)
            self._lively = anyio.Event()
            snapshot = await self.snapshot()
            if snapshot.sandboxes:
                self._lively.set()
            point = self._point(snapshot)
            self._history.append(point)
            log.info("monitor.point", extra=attrs.asdict(point))
            for kept in self._kept:
                await kept()

    def started(self, info: SandboxInfo, *, seconds: float, ready: bool) -> None:
        """Take note of a start; see ``Observer``."""
        self._lively.set()

    def failed(self, spec: SandboxSpec) -> None:
        """Take note of a start that failed; see ``Observer``."""

    def ended(self, info: SandboxInfo, ended: Ended, usage: Usage) -> None:
        """Take note of an end; see ``Observer``."""
        self._gone.add(usage, before=self._before.pop(usage.sandbox_id, 0.0))

    def _point(self, snapshot: ResourceSnapshot) -> HistoryPoint:
        gone, self._gone = self._gone, _Gone()
        before, self._before = self._before, {}
        spent = gone.cpu_seconds
        for usage in snapshot.sandboxes:
            used = usage.cpu_seconds or 0.0
            spent += used - before.get(usage.sandbox_id, 0.0)
            self._before[usage.sandbox_id] = used
        return HistoryPoint(
            taken_at=snapshot.taken_at,
            running=len(snapshot.sandboxes),
            ended=gone.count,
            cpu_seconds=spent,
            memory_bytes=snapshot.memory_bytes,
            pids=snapshot.pids,
            unmeasured=gone.unmeasured + sum(map(_unmeasured, snapshot.sandboxes)),
            available_bytes=snapshot.host.available_bytes if snapshot.host else None,
        )


@attrs.define
class _Gone:
    """What those that ended since the last point of history have used since the one before."""

    count: int = 0
    cpu_seconds: float = 0.0
    unmeasured: int = 0

    def add(self, usage: Usage, *, before: float) -> None:
        self.count += 1
        self.cpu_seconds += (usage.cpu_seconds or 0.0) - before
        self.unmeasured += _unmeasured(usage)


def _unmeasured(usage: Usage) -> bool:
    return None in (usage.cpu_seconds, usage.memory_bytes, usage.pids)


@attrs.frozen(kw_only=True)
class _Answer:
    """What one backend said of its sandboxes, as long as they ran: one for one."""

    infos: tuple[SandboxInfo, ...] = ()
    usages: tuple[Usage, ...] = ()


async def _ask(backend: Backend) -> _Answer:
    """Ask one backend for its figures; what it does not tell in time is told to be missing."""
    infos: tuple[SandboxInfo, ...] = ()
    reason = f"its backend did not answer within {ANSWER_SECONDS:g} s"
    try:
        with anyio.move_on_after(ANSWER_SECONDS):
            infos = await backend.running()
            usages = await backend.usage([info.id for info in infos])
            pairs = [pair for pair in zip(infos, usages, strict=True) if not pair[1].final]
            return _Answer(
                infos=tuple(info for info, _ in pairs), usages=tuple(usage for _, usage in pairs)
            )
    except SandboxError as error:
        reason = f"its backend failed: {error}"
    log.warning("monitor.no_answer", extra={"reason": reason})
    missing = tuple(Usage(sandbox_id=info.id, reason=reason) for info in infos)
    return _Answer(infos=infos, usages=missing)

"""Holds sandboxes to what no kernel limit holds: their time, and where it must, disk and memory.

One task looks after all sandboxes of a client. What takes long to measure is measured in a thread,
one at a time for each sandbox.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import attrs

from sandbox_sdk.engine import meters
from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.engine.limits import WATCH_SECONDS
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.isolation.walls.cgroups import Group
from sandbox_sdk.values import Ended, EndKind, SandboxSpec

log = logging.getLogger("sandbox_sdk.engine")

# A walk may take a twentieth of the time: large workspaces are looked at less often.
_WALK_SHARE = 20

_OWN_PROCESSES = 2  # the agent and a keeper

_AT_ONCE = 64  # sandboxes looked at before other tasks have their turn


@attrs.frozen(kw_only=True)
class Bound:
    """How large a folder may grow.

    Attributes:
        folder: The folder.
        limit: The limit's name.
        most_bytes: Bytes on disk.
        most_files: Files and folders; ``None`` is no bound.
    """

    folder: Path
    limit: str
    most_bytes: int
    most_files: int | None

    def check(self) -> Ended | None:
        """Walk the folder; return the verdict if it is too large."""
        most_files = self.most_files or sys.maxsize
        use = meters.folder_use(self.folder, most_bytes=self.most_bytes, most_files=most_files)
        if use.bytes > self.most_bytes:
            return Ended(kind=EndKind.DISK, limit=self.limit, limit_value=self.most_bytes)
        if use.files > most_files:
            limit = f"{self.limit}_files"
            return Ended(kind=EndKind.DISK, limit=limit, limit_value=most_files, detail=use.unseen)
        return None


@attrs.define(eq=False, kw_only=True)
class Watch:
    """What one sandbox is held to.

    Attributes:
        spec: How it was asked for.
        activity: When it was used.
        group: Its control group; without one its processes are summed.
        pid: Its PID 1.
        bounds: Of its folders.
        most_pids: Processes it may have, where only we count them.
        stop: Ends it with a verdict.
        started: When it began, on the event loop's clock.
        peak_bytes: The most memory seen, where no group counts it.
    """

    spec: SandboxSpec
    activity: Activity
    group: Group | None
    pid: int
    bounds: tuple[Bound, ...]
    most_pids: float
    stop: Callable[[Ended], None]
    started: float = attrs.field(factory=anyio.current_time)
    peak_bytes: int | None = None
    _ran: float | None = None
    _walk_at: float = -math.inf
    _measuring: bool = False
    _next_at: float = attrs.field(factory=lambda: anyio.current_time() + WATCH_SECONDS)

    def overdue(self, now: float) -> Ended | None:
        """Return the verdict if its time is over."""
        if now >= self._lifetime_at():
            value = self.spec.timeout
            return Ended(kind=EndKind.TIMEOUT, limit="lifetime", limit_value=value)
        if now >= self._idle_at(now):
            value = self.spec.idle_timeout
            return Ended(kind=EndKind.TIMEOUT, limit="idle_timeout", limit_value=value)
        return None

    def next_look(self, now: float) -> float:
        """Return when it is to be looked at again."""
        measured_at = max(self._next_at, now + WATCH_SECONDS) if self._measured else math.inf
        return min(self._lifetime_at(), self._idle_at(now), measured_at)

    @property
    def _measured(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.bounds) or self.group is None

    def due(self, now: float) -> bool:
        """Return whether it is to be measured now; then ``measure`` must be called."""
        if self._measuring or not self._measured or now < self._next_at:
            return False
        if self.group is not None:
            before, self._ran = self._ran, self._exact_cpu_seconds()
            if self._ran is not None and self._ran == before:
                return False  # nothing inside ran, so nothing was written since
        self._measuring = True
        return True

    async def measure(self) -> None:
        """Measure it in a thread, and end it if it has too much. What fails ends it as well."""
        try:
            verdict = await self._verdict()
        except Exception as error:
            log.exception("watchdog.failed")
            verdict = Ended(kind=EndKind.INFRA, detail=f"its use could not be measured: {error}")
        if verdict is not None:
            self.stop(verdict)
        self._next_at = anyio.current_time() + WATCH_SECONDS
        if self.group is not None:
            self._next_at = max(self._next_at, self._walk_at)
        self._measuring = False

    async def _verdict(self) -> Ended | None:
        """Measure what is due. However long a walk takes, processes are counted at every look."""
        if self.group is None and (
            verdict := await anyio.to_thread.run_sync(self._check_processes)
        ):
            return verdict
        began = anyio.current_time()
        if began < self._walk_at:
            return None
        verdict = await anyio.to_thread.run_sync(self._check_folders)
        now = anyio.current_time()
        self._walk_at = now + _WALK_SHARE * (now - began)
        return verdict

    def _check_folders(self) -> Ended | None:
        return next(filter(None, (bound.check() for bound in self.bounds)), None)

    def _check_processes(self) -> Ended | None:
        used, most = meters.process_sum(self.pid), self.spec.resources.memory_bytes
        self.peak_bytes = max(self.peak_bytes or 0, used.memory_bytes or 0)
        # First, for what a fork bomb shares is counted as memory of each of its processes.
        if (used.pids or 0) - _OWN_PROCESSES > self.most_pids:
            return Ended(kind=EndKind.PIDS, limit="pids", limit_value=self.most_pids)
        if (used.memory_bytes or 0) > most:
            return Ended(kind=EndKind.OOM, limit="memory", limit_value=most)
        return None

    def _lifetime_at(self) -> float:
        return math.inf if self.spec.timeout is None else self.started + self.spec.timeout

    def _idle_at(self, now: float) -> float:
        quiet_since = now if self.activity.calls else self.activity.last
        idle = self.spec.idle_timeout
        return math.inf if idle is None else quiet_since + idle

    def _exact_cpu_seconds(self) -> float | None:
        """CPU time to the nanosecond, or ``None`` where only clock ticks are counted."""
        try:
            return self.group.cpu_seconds() if self.group else None
        except OSError:
            return None  # it has just ended


class Watchdog:
    """Looks after every sandbox of a client."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._watched: set[Watch] = set()
        self._added = anyio.Event()
        self._wake_at = -math.inf  # no task runs yet

    async def add(self, watch: Watch) -> None:
        """Look after one more sandbox."""
        self._watched.add(watch)
        if self._wake_at == -math.inf:
            self._wake_at = math.inf
            await self._supervisor.start_soon(self._run)
        elif watch.next_look(anyio.current_time()) < self._wake_at:
            self._added.set()

    def discard(self, watch: Watch) -> None:
        """Leave a sandbox that has ended alone."""
        self._watched.discard(watch)

    async def _run(self) -> None:
        while True:
            self._added, self._wake_at = anyio.Event(), math.inf
            self._wake_at = await self._look()
            with anyio.CancelScope(deadline=self._wake_at):
                await self._added.wait()

    async def _look(self) -> float:
        """Look at every sandbox once; return when to look again."""
        wake_at = math.inf
        for number, watch in enumerate(list(self._watched), 1):
            now = anyio.current_time()
            if (verdict := watch.overdue(now)) is not None:
                watch.stop(verdict)
                self._watched.discard(watch)
                continue
            if watch.due(now):
                await self._supervisor.start_soon(watch.measure)
            wake_at = min(wake_at, watch.next_look(now))
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return wake_at

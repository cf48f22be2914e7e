"""One sandbox that runs on this machine: watched from its start to its last trace."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import attrs

from sandbox_sdk.engine import meters, reaper, saving
from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.engine.gauge import Gauge
from sandbox_sdk.engine.launcher import Launched, Launcher
from sandbox_sdk.engine.limits import WATCH_SECONDS
from sandbox_sdk.isolation.walls.cgroups import Counters, Group, GroupUsage
from sandbox_sdk.values import Ended, EndKind, Isolation, Limit, SandboxSpec, Usage

log = logging.getLogger("sandbox_sdk.engine")

# A walk may take a twentieth of the time: large workspaces are looked at less often.
_WALK_SHARE = 20

_OWN_PROCESSES = 2  # the agent and a keeper


@attrs.define(eq=False)
class Running:
    """A set-up sandbox.

    Attributes:
        sandbox_id: The sandbox.
        spec: How it was asked for.
        launched: The launcher's hold on it.
        launcher: The launcher.
        workspace: Its workspace as this process reaches it.
        saved: The host folder that a workspace in memory is saved to at its end.
        tmp: The host folder of its temporary files, which goes with it; ``None`` is none.
        group: Its control group, where there is one.
        isolation: What was proven in force.
        limits: Its limits, with what holds each.
        activity: Kept current by the channel.
        on_end: Called once when nothing of it is left on the host.
        verdict: How the host ended it, or will have.
        over: Set when nothing of it is left and ``on_end`` returned.
    """

    sandbox_id: str
    spec: SandboxSpec
    launched: Launched
    launcher: Launcher
    workspace: Path
    saved: Path | None
    tmp: Path | None
    group: Group | None
    isolation: Isolation
    limits: tuple[Limit, ...]
    activity: Activity
    on_end: Callable[[Running, Ended], Awaitable[None]]
    verdict: Ended | None = None
    over: anyio.Event = attrs.field(factory=anyio.Event)
    _gauge: Gauge | None = None

    async def end(self, verdict: Ended | None) -> None:
        """End the sandbox for this reason, unless it is ending for another, and wait.

        Without a reason the host finds out by itself why it ended.
        """
        if self.verdict is None:
            self.verdict = verdict
        await self.launcher.kill(self.launched)
        await self.over.wait()

    async def guard(self) -> None:
        """Keep its time, memory and disk until it ends, then clear up. One task runs this."""
        started = anyio.current_time()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch_clock, started)
                resources = self.spec.resources
                if self.saved is None:
                    most_bytes, most_files = resources.disk_bytes, resources.disk_files
                    group.start_soon(self._watch_disk, self.workspace, most_bytes, most_files)
                if self.tmp is not None:
                    most_bytes = resources.tmp_bytes
                    group.start_soon(self._watch_disk, self.tmp, most_bytes, None)
                if self.group is None:
                    group.start_soon(self._watch_processes)
                await anyio.wait_readable(self.launched.pidfd)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._clear_up()

    def counters(self) -> Counters:
        """Return what the kernel counted against its limits."""
        if self.group is None or self.over.is_set():
            return Counters()
        if self._gauge is None:
            self._gauge = Gauge(self.group)
        return self._gauge.read()

    def used_up(self) -> str:
        """Return the limit that a workspace in memory has reached, if it has."""
        return meters.used_up(self.launched.workspace) if self.launched.workspace >= 0 else ""

    def usage(self) -> Usage:
        """Return what it uses now."""
        try:
            used = self._group_usage()
        except OSError:  # between its end and our notice of it
            return Usage(sandbox_id=self.sandbox_id, reason="the sandbox has ended")
        return Usage(
            sandbox_id=self.sandbox_id,
            cpu_seconds=used.cpu_seconds,
            memory_bytes=used.memory_bytes,
            memory_peak_bytes=used.memory_peak_bytes,
            memory_stall_seconds=used.memory_stall_seconds,
            pids=used.pids,
            source=self.group.held_by if self.group else "proc-sum",
            reason="" if used.memory_peak_bytes is not None else "no peak is kept without cgroups",
        )

    def _group_usage(self) -> GroupUsage:
        return self.group.usage() if self.group else meters.process_sum(self.launched.pid)

    async def _watch_clock(self, started: float) -> None:
        """End the sandbox at its lifetime, or after its idle time."""
        lifetime, idle = self.spec.timeout, self.spec.idle_timeout
        deadline = math.inf if lifetime is None else started + lifetime
        while True:
            now = anyio.current_time()
            quiet = now if self.activity.calls else self.activity.last
            idle_at = math.inf if idle is None else quiet + idle
            if now >= deadline:
                return await self._stop(EndKind.TIMEOUT, "lifetime", lifetime)
            if now >= idle_at:
                return await self._stop(EndKind.TIMEOUT, "idle_timeout", idle)
            await anyio.sleep_until(min(deadline, idle_at))

    async def _watch_disk(self, folder: Path, most_bytes: int, most_files: int | None) -> None:
        """End the sandbox if a folder grows too large; the one without a bound on files is tmp."""
        pause = WATCH_SECONDS
        ran: float | None = None
        while True:
            await anyio.sleep(pause)
            before, ran = ran, self._exact_cpu_seconds()
            if ran is not None and ran == before:
                continue  # nothing inside ran, so nothing was written since
            began = anyio.current_time()
            use = await anyio.to_thread.run_sync(
                lambda: meters.folder_use(
                    folder, most_bytes=most_bytes, most_files=most_files or sys.maxsize
                )
            )
            if use.bytes > most_bytes:
                name = "disk" if most_files else "tmp"
                return await self._stop(EndKind.DISK, name, most_bytes)
            if use.files > (most_files or sys.maxsize):
                return await self._stop(EndKind.DISK, "disk_files", most_files, use.unseen)
            pause = max(WATCH_SECONDS, _WALK_SHARE * (anyio.current_time() - began))

    async def _watch_processes(self) -> None:
        most = self.spec.resources.memory_bytes
        held = {limit.name: limit.held_by for limit in self.limits}
        most_pids = self.spec.resources.pids if held["pids"] == "watchdog" else sys.maxsize
        while True:
            await anyio.sleep(WATCH_SECONDS)
            used = await anyio.to_thread.run_sync(meters.process_sum, self.launched.pid)
            # First, for what a fork bomb shares is counted as memory of each of its processes.
            if (used.pids or 0) - _OWN_PROCESSES > most_pids:
                return await self._stop(EndKind.PIDS, "pids", most_pids)
            if (used.memory_bytes or 0) > most:
                return await self._stop(EndKind.OOM, "memory", most)

    def _exact_cpu_seconds(self) -> float | None:
        """CPU time to the nanosecond, or ``None`` where only clock ticks are counted."""
        try:
            return self.group.cpu_seconds() if self.group else None
        except OSError:
            return None  # it has just ended

    async def _stop(self, kind: EndKind, limit: str, value: float | None, detail: str = "") -> None:
        """Kill with a verdict; the guard sees the end."""
        if self.verdict is None:
            self.verdict = Ended(kind=kind, limit=limit, limit_value=value, detail=detail)
        await self.launcher.kill(self.launched)

    async def _clear_up(self) -> None:
        """Wait until nothing is left on the host, then hand over how it ended."""
        try:
            await self.launcher.kill(self.launched)
            await self.launched.ended.wait()
            unsaved = await self._save() or await self._remove_tmp()
            self.launched.release()
            if self.group is not None and not self.launcher.alive:
                await anyio.to_thread.run_sync(reaper.remove_group, self.group)
            if self.verdict is None:
                self.verdict = self._found_dead()
            if unsaved:
                said = f"{self.verdict.detail}; {unsaved}" if self.verdict.detail else unsaved
                self.verdict = attrs.evolve(self.verdict, detail=said)
            log.info(
                "sandbox.ended",
                extra={"sandbox_id": self.sandbox_id, "ended": str(self.verdict)},
            )
            await self.on_end(self, self.verdict)
        finally:
            self.over.set()
            if self._gauge is not None:
                self._gauge.close()

    async def _save(self) -> str:
        """Save a workspace in memory; return what could not be."""
        if self.saved is None:
            return ""
        try:
            left_out = await anyio.to_thread.run_sync(saving.save, self.workspace, self.saved)
        except OSError as error:
            return f"its workspace could not be saved, the former state stays: {error}"
        return f"not saved: {', '.join(left_out)}" if left_out else ""

    async def _remove_tmp(self) -> str:
        """Remove its temporary files; return what could not be."""
        if self.tmp is None:
            return ""
        try:
            await anyio.to_thread.run_sync(reaper.remove_tree, self.tmp)
        except OSError as error:
            return f"its temporary files could not be removed: {error}"
        return ""

    def _found_dead(self) -> Ended:
        if self.launched.counted.oom_kills:
            most = self.spec.resources.memory_bytes
            return Ended(kind=EndKind.OOM, limit="memory", limit_value=most)
        detail = f"PID 1 ended without being asked to ({self.launched.stderr or 'no word'})"
        if not self.launcher.alive:
            detail = "its launcher was killed"
        return Ended(kind=EndKind.SANDBOX_DIED, detail=detail)

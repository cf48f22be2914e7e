"""One sandbox that runs on this machine: watched from its start to its last trace."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import anyio
import attrs

from sandbox_sdk.engine import meters, reaper, saving
from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.engine.gauge import Gauge
from sandbox_sdk.engine.launcher import Launched, Launcher
from sandbox_sdk.engine.watchdog import Bound, Watch, Watchdog
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.isolation.walls.cgroup_files import GONE
from sandbox_sdk.isolation.walls.cgroups import Counters, Group, GroupUsage
from sandbox_sdk.values import Ended, EndKind, Isolation, Limit, SandboxSpec, Usage
from sandbox_sdk.vault import Vault

log = logging.getLogger("sandbox_sdk.engine")


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
        vault: Has the key that a workspace in memory is sealed with when it is saved.
        on_end: Called once when nothing of it is left on the host.
        verdict: How the host ended it, or will have.
        final: What it used in all, once nothing of it is left.
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
    vault: Vault
    on_end: Callable[[Running, Ended], Awaitable[None]]
    verdict: Ended | None = None
    over: anyio.Event = attrs.field(factory=anyio.Event)
    final: Usage | None = None
    _gauge: Gauge | None = None
    _watched: Watch | None = None
    _cpu_seen: float = 0.0
    _bounds: Mapping[str, float | None] | None = None

    async def end(self, verdict: Ended | None) -> None:
        """End the sandbox for this reason, unless it is ending for another, and wait.

        Without a reason the host finds out by itself why it ended.
        """
        if self.verdict is None:
            self.verdict = verdict
        await self.launcher.kill(self.launched)
        await self.over.wait()

    async def guard(self, watchdog: Watchdog) -> None:
        """Wait for its end, held to its limits meanwhile, then clear up. One task runs this."""
        watch = self._watched = self._watch()
        try:
            await watchdog.add(watch)
            await anyio.wait_readable(self.launched.pidfd)
        finally:
            watchdog.discard(watch)
            with anyio.CancelScope(shield=True):
                await self._clear_up()

    def _watch(self) -> Watch:
        """What the host itself holds it to."""
        resources = self.spec.resources
        bounds: list[Bound] = []
        if self.saved is None:
            bounds.append(
                Bound(
                    folder=self.workspace,
                    limit="disk",
                    most_bytes=resources.disk_bytes,
                    most_files=resources.disk_files,
                )
            )
        if self.tmp is not None:
            bounds.append(
                Bound(folder=self.tmp, limit="tmp", most_bytes=resources.tmp_bytes, most_files=None)
            )
        counted = any(limit.name == "pids" and limit.held_by == "watchdog" for limit in self.limits)
        return Watch(
            spec=self.spec,
            activity=self.activity,
            group=self.group,
            pid=self.launched.pid,
            bounds=tuple(bounds),
            most_pids=resources.pids if counted else math.inf,
            stop=self._stop,
        )

    def _stop(self, verdict: Ended) -> None:
        """Kill it with a verdict; the guard sees the end."""
        if self.verdict is None:
            self.verdict = verdict
        self.launched.kill()

    def counters(self) -> Counters:
        """Return what the kernel counted against its limits."""
        if self.group is None or self.over.is_set():
            return Counters()
        if self._gauge is None:
            self._gauge = Gauge(self.group)
        return self._gauge.read()

    def limits_now(self) -> tuple[Limit, ...]:
        """Return its limits, each as its control group is bound now, if somebody changed that.

        What the group was bound to is read when this is first called.
        """
        if self.group is None or self.over.is_set():
            return self.limits
        try:
            now = self.group.limits()
        except OSError as error:
            if error.errno not in GONE:
                raise
            return self.limits
        if self._bounds is None:
            self._bounds = now
        return tuple(_as_bound(limit, self._bounds, now) for limit in self.limits)

    def used_up(self) -> str:
        """Return the limit that a workspace in memory has reached, if it has."""
        return meters.used_up(self.launched.workspace) if self.launched.workspace >= 0 else ""

    def usage(self) -> Usage:
        """Return what it uses now, or in all once it has ended."""
        if self.final is not None:
            return self.final
        try:
            used = self._group_usage()
        except OSError:  # between its end and our notice of it
            return Usage(sandbox_id=self.sandbox_id, reason="the sandbox has ended")
        self._cpu_seen = max(self._cpu_seen, used.cpu_seconds or 0.0)
        peak, peak_source, reason = self._peak(used)
        return Usage(
            sandbox_id=self.sandbox_id,
            cpu_seconds=used.cpu_seconds,
            memory_bytes=used.memory_bytes,
            memory_peak_bytes=peak,
            memory_stall_seconds=used.memory_stall_seconds,
            pids=used.pids,
            source=self.group.held_by if self.group else "proc-sum",
            memory_peak_source=peak_source,
            reason=reason,
        )

    def _peak(self, used: GroupUsage) -> tuple[int | None, str, str]:
        """The most memory, where that is from, and why there is none."""
        if self.group is not None:
            peak = used.memory_peak_bytes
            if peak is None:
                return None, "", "this kernel keeps no peak"
            return peak, self.group.held_by, ""
        seen = self._watched.peak_bytes if self._watched else None
        if seen is None and used.memory_bytes is None:
            return None, "", "nothing was seen of it without cgroups"
        return max(seen or 0, used.memory_bytes or 0), "sampled", ""

    def _totals(self) -> Usage:
        """What it used in all, as the kernel counted it to the end."""
        used = self.launched.used
        if self.group is not None and used is not None:
            peak, peak_source, reason = self._peak(used)
            return Usage(
                sandbox_id=self.sandbox_id,
                cpu_seconds=self.launched.cpu_seconds
                if used.cpu_seconds is None
                else used.cpu_seconds,
                memory_bytes=0,
                memory_peak_bytes=peak,
                memory_stall_seconds=used.memory_stall_seconds,
                pids=0,
                source=self.group.held_by,
                memory_peak_source=peak_source,
                final=True,
                reason=reason,
            )
        if self.launched.cpu_seconds is None:
            return Usage(
                sandbox_id=self.sandbox_id,
                final=True,
                reason="its launcher ended before it could tell the totals",
            )
        seen = self._watched.peak_bytes if self._watched else None
        return Usage(
            sandbox_id=self.sandbox_id,
            # What nobody waited for is not in it, and may have been seen.
            cpu_seconds=max(self.launched.cpu_seconds, self._cpu_seen),
            memory_bytes=0,
            memory_peak_bytes=seen,
            pids=0,
            source="rusage",
            memory_peak_source="" if seen is None else "sampled",
            final=True,
            reason="it ended before its memory was looked at" if seen is None else "",
        )

    def _group_usage(self) -> GroupUsage:
        return self.group.usage() if self.group else meters.process_sum(self.launched.pid)

    async def _clear_up(self) -> None:
        """Wait until nothing is left on the host, then hand over how it ended."""
        try:
            await self.launcher.kill(self.launched)
            await self.launched.ended.wait()
            self.final = self._totals()
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
            left_out = await anyio.to_thread.run_sync(
                saving.save,
                self.workspace,
                self.saved,
                partial(self.vault.workspace_key, self.sandbox_id),
                self.sandbox_id,
            )
        except (OSError, SandboxError) as error:
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


def _as_bound(
    limit: Limit, before: Mapping[str, float | None], now: Mapping[str, float | None]
) -> Limit:
    """Return a limit as its group is bound now: the group's own bound has room for the agent."""
    was, is_now = before.get(limit.name), now.get(limit.name)
    if was == is_now or limit.value is None:
        return limit
    value = None if was is None or is_now is None else limit.value + is_now - was
    return attrs.evolve(limit, value=value, note="changed from outside since it was set up")

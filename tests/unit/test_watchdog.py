"""One task holds every sandbox to its time and disk, and fails closed."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest

from sandbox_sdk.engine.activity import Activity
from sandbox_sdk.engine.meters import FolderUse
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.watchdog import Bound, Watch, Watchdog
from sandbox_sdk.isolation.walls.cgroups import GroupUsage
from sandbox_sdk.values import Ended, EndKind, Resources, SandboxSpec

pytestmark = pytest.mark.anyio


@attrs.define(eq=False)
class Stopped:
    """Takes the verdict on one sandbox."""

    verdict: Ended | None = None
    told: anyio.Event = attrs.field(factory=anyio.Event)

    def __call__(self, verdict: Ended) -> None:
        self.verdict = verdict
        self.told.set()


def watch(stopped: Stopped, *bounds: Bound, timeout: float | None = None, pid: int = 0) -> Watch:
    return Watch(
        spec=SandboxSpec(name="watched", resources=Resources(), timeout=timeout),
        activity=Activity(),
        group=None,
        pid=pid or os.getpid(),
        bounds=bounds,
        most_pids=1_000_000,
        stop=stopped,
    )


@asynccontextmanager
async def watchdog() -> AsyncIterator[Watchdog]:
    supervisor = Supervisor()
    try:
        yield Watchdog(supervisor)
    finally:
        await supervisor.aclose()


async def test_each_is_ended_at_its_own_time_however_late_it_was_added() -> None:
    """The one with more time, which was there first, sleeps no other over its end."""
    late, early = Stopped(), Stopped()
    async with watchdog() as dog:
        await dog.add(watch(late, timeout=60))
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await dog.add(watch(early, timeout=0.05))
        await early.told.wait()
    assert early.verdict is not None
    assert (early.verdict.kind, early.verdict.limit) == (EndKind.TIMEOUT, "lifetime")
    assert anyio.current_time() - began >= 0.05
    assert late.verdict is None


async def test_a_folder_that_grows_too_large_ends_its_sandbox_only(tmp_path: Path) -> None:
    """Whoever keeps within its bound is left alone."""
    for name in ("large", "small"):
        (tmp_path / name).mkdir()
    large, small = (
        Bound(folder=tmp_path / name, limit="disk", most_bytes=64 * 1024, most_files=10)
        for name in ("large", "small")
    )
    grown, kept = Stopped(), Stopped()
    async with watchdog() as dog:
        await dog.add(watch(kept, small))
        await dog.add(watch(grown, large))
        (tmp_path / "large" / "file").write_bytes(bytes(128 * 1024))
        await grown.told.wait()
    assert grown.verdict is not None
    assert (grown.verdict.kind, grown.verdict.limit) == (EndKind.DISK, "disk")
    assert kept.verdict is None


async def test_what_cannot_be_measured_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that nobody can hold any more is not taken for kept."""

    def broken(pid: int) -> None:
        raise PermissionError("not shown")

    monkeypatch.setattr("sandbox_sdk.engine.meters.process_sum", broken)
    stopped = Stopped()
    async with watchdog() as dog:
        await dog.add(watch(stopped))
        await stopped.told.wait()
    assert stopped.verdict is not None
    assert stopped.verdict.kind is EndKind.INFRA
    assert "not shown" in stopped.verdict.detail


async def test_a_slow_walk_delays_no_count_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code inside can make a walk slow, and must not gain time for a fork bomb by it."""
    counts = iter([1, 1, 2_000_000])
    walks: list[Path] = []

    def count(pid: int) -> GroupUsage:
        return GroupUsage(cpu_seconds=0, memory_bytes=0, memory_peak_bytes=None, pids=next(counts))

    def walk(folder: Path, **most: int) -> FolderUse:
        walks.append(folder)
        threading.Event().wait(0.2)
        return FolderUse(bytes=0, files=0, complete=True)

    monkeypatch.setattr("sandbox_sdk.engine.meters.process_sum", count)
    monkeypatch.setattr("sandbox_sdk.engine.meters.folder_use", walk)
    stopped = Stopped()
    bound = Bound(folder=tmp_path, limit="disk", most_bytes=1, most_files=1)
    async with watchdog() as dog:
        await dog.add(watch(stopped, bound))
        await stopped.told.wait()
    assert stopped.verdict is not None
    assert (stopped.verdict.kind, stopped.verdict.limit) == (EndKind.PIDS, "pids")
    assert walks == [tmp_path]


async def test_one_that_left_is_not_looked_at_again() -> None:
    """Its time may pass."""
    gone, there = Stopped(), Stopped()
    async with watchdog() as dog:
        leaving = watch(gone, timeout=0.05)
        await dog.add(leaving)
        dog.discard(leaving)
        await dog.add(watch(there, timeout=0.1))
        await there.told.wait()
    assert gone.verdict is None

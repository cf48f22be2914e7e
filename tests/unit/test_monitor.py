"""No backend delays another's figures, and the tightest limit above decides what is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anyio
import attrs
import pytest

from sandbox_sdk.backends.base import Backend, Observer
from sandbox_sdk.engine.room import read_host
from sandbox_sdk.errors import StateError
from sandbox_sdk.isolation.walls.cgroups import Hierarchy
from sandbox_sdk.orchestrator import monitor as monitors
from sandbox_sdk.orchestrator.monitor import Monitor
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.values import GIB, MIB, SandboxInfo, SandboxSpec, Usage

pytestmark = pytest.mark.anyio


@attrs.define
class _Backend:
    """One sandbox's figures, or what goes wrong instead."""

    name: str
    hangs: bool = False
    fails: bool = False
    observers: list[Observer] = attrs.field(factory=list[Observer])

    async def running(self) -> tuple[SandboxInfo, ...]:
        return (SandboxInfo(id=self.name, spec=SandboxSpec(name=self.name)),)

    async def usage(self, ids: Sequence[str]) -> tuple[Usage, ...]:
        if self.hangs:
            await anyio.sleep_forever()
        if self.fails:
            raise StateError("the node is gone")
        return tuple(Usage(sandbox_id=id_, pids=3) for id_ in ids)

    def observe(self, observer: Observer) -> None:
        self.observers.append(observer)


async def host() -> HostState:
    return HostState(memory_bytes=GIB, available_bytes=GIB)


def monitor(*backends: _Backend) -> Monitor:
    return Monitor([cast(Backend, each) for each in backends], host, interval=60.0)


async def test_a_backend_that_hangs_or_fails_delays_no_others_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitors, "ANSWER_SECONDS", 0.1)
    watched = monitor(
        _Backend("hangs", hangs=True), _Backend("well"), _Backend("fails", fails=True)
    )
    with anyio.fail_after(2):
        snapshot = await watched.snapshot()
    hangs, well, fails = snapshot.sandboxes
    assert (well.sandbox_id, well.pids, well.reason) == ("well", 3, "")
    assert (hangs.pids, fails.pids) == (None, None)
    assert "did not answer" in hangs.reason
    assert "the node is gone" in fails.reason
    assert snapshot.pids == 3


async def test_a_host_that_cannot_be_read_hides_no_figures() -> None:
    async def unreadable() -> HostState:
        raise PermissionError("no /proc here")

    watched = Monitor([cast(Backend, _Backend("well"))], unreadable, interval=60.0)
    snapshot = await watched.snapshot()
    assert (snapshot.host, snapshot.pids) == (None, 3)


def group(folder: Path, version: int, limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    most, now = ("memory.max", "memory.current")
    if version == 1:
        most, now = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / most).write_text(f"{limit}\n")
    (folder / now).write_text(f"{used}\n")
    name = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 1\n{name} {cache}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_above_tells_what_is_left(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox_sdk.engine.room.ROOT", str(tmp_path))
    ours = tmp_path / ("memory/ours" if version == 1 else "pod/ours")
    group(ours, version, "max" if version == 2 else str(2**62), 8 * MIB, 0)
    if version == 1:
        group(ours, version, str(64 * MIB), 24 * MIB, 16 * MIB)
    else:
        group(ours.parent, version, str(64 * MIB), 24 * MIB, 16 * MIB)
        (ours / "memory.pressure").write_text("some avg10=37.50 avg60=0.00\nfull avg10=0\n")
    found = read_host(Hierarchy(version, {"memory": str(ours)}))
    assert (found.memory_bytes, found.available_bytes) == (64 * MIB, 56 * MIB)
    if version == 2:
        assert found.memory_pressure is not None
        assert found.memory_pressure >= 37.5


def test_without_groups_the_host_itself_tells() -> None:
    found = read_host(None)
    assert 0 < found.available_bytes < found.memory_bytes
    assert found.processors >= 1

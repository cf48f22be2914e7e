"""The orchestrator sees what sandboxes use as the kernel counts it, and nobody delays it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from host import GROUPS, inits

from sandbox_sdk import AsyncSandbox, AsyncSandboxClient, ConfigError, SandboxClient
from sandbox_sdk.values import MIB

pytestmark = pytest.mark.anyio

HELD, SPENT = 96 * MIB, 0.8
SPIN = """
import time
kept = b"x" * {held}
while time.process_time() < {seconds}:
    pass
"""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncSandboxClient]:
    async with AsyncSandboxClient(
        state_dir=tmp_path, orchestrator={"monitoring_interval": 0.1}
    ) as client:
        yield client


async def busy(client: AsyncSandboxClient, name: str = "busy") -> AsyncSandbox:
    sandbox = await client.create_sandbox(name)
    ran = await sandbox.run_code(SPIN.format(held=HELD, seconds=SPENT), context="kept")
    ran.check()
    return sandbox


def about(figure: float | None, expected: float, *, more: float) -> bool:
    """Whether a figure is what was expected and at most ``more`` above: what starting took."""
    return figure is not None and expected * 0.95 <= figure <= expected + more


async def test_figures_are_those_of_the_workload(client: AsyncSandboxClient) -> None:
    sandbox = await busy(client)
    seen = await (await client.get_orchestrator()).monitor_resources()
    (usage,) = seen.sandboxes
    assert usage.sandbox_id == sandbox.id
    assert usage.source.startswith("cgroup-v" if GROUPS else "proc-sum")
    assert about(usage.cpu_seconds, SPENT, more=0.3)
    assert about(usage.memory_bytes, HELD, more=48 * MIB)
    assert usage.memory_peak_source == (usage.source if GROUPS else "sampled")
    assert about(usage.memory_peak_bytes, HELD, more=48 * MIB)
    assert usage.pids is not None
    assert usage.pids >= 2
    assert seen.host is not None
    assert 0 < seen.host.available_bytes <= seen.host.memory_bytes


async def test_totals_of_what_ended_are_exact_without_a_look_before(
    client: AsyncSandboxClient,
) -> None:
    sandbox = await busy(client)
    await sandbox.cleanup()
    usage = await sandbox.usage()
    assert usage.final
    assert about(usage.cpu_seconds, SPENT, more=0.3)
    if GROUPS:
        assert about(usage.memory_peak_bytes, HELD, more=48 * MIB)
        assert usage.memory_peak_source == usage.source
    assert (await (await client.get_orchestrator()).monitor_resources()).sandboxes == ()


async def test_a_stopped_sandbox_delays_no_figures(client: AsyncSandboxClient) -> None:
    before = set(inits(os.getpid()))
    stopped = await client.create_sandbox("stopped")
    await stopped.setup()
    (pid,) = set(inits(os.getpid())) - before
    other = await busy(client, "other")
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        seen = await (await client.get_orchestrator()).monitor_resources()
        took = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    assert took < 1
    assert {usage.sandbox_id for usage in seen.sandboxes} == {stopped.id, other.id}
    assert None not in {usage.cpu_seconds for usage in seen.sandboxes}


async def test_history_counts_what_ended_between_two_points(client: AsyncSandboxClient) -> None:
    orchestrator = await client.get_orchestrator()
    sandbox = await busy(client)
    await sandbox.cleanup()
    with anyio.fail_after(10):
        async for _ in orchestrator.watch(interval=0.02):
            if sum(point.ended for point in await orchestrator.history()):
                break
    points = await orchestrator.history()
    assert about(sum(point.cpu_seconds for point in points), SPENT, more=0.3)
    assert points[-1].running == 0
    assert {point.unmeasured for point in points} == {0}


async def test_nothing_is_kept_of_times_when_nothing_ran(client: AsyncSandboxClient) -> None:
    orchestrator = await client.get_orchestrator()
    async for _ in orchestrator.watch(interval=0.3):
        break
    await orchestrator.monitor_resources()
    assert await orchestrator.history() == []


async def test_watching_has_a_pace_of_its_own(client: AsyncSandboxClient) -> None:
    orchestrator = await client.get_orchestrator()
    times: list[float] = []
    async for seen in orchestrator.watch(interval=0.05):
        times.append(seen.taken_at)
        if len(times) == 4:
            break
    assert times[-1] - times[0] >= 0.12
    with pytest.raises(ConfigError, match="interval"):
        await anext(orchestrator.watch(interval=0))


def test_the_blocking_face_watches_too(tmp_path: Path) -> None:
    with SandboxClient(state_dir=tmp_path) as client, client.create_sandbox("one") as sandbox:
        watching = client.get_orchestrator().watch(interval=0.01)
        seen = [next(watching), next(watching)]
        assert [usage.sandbox_id for usage in seen[1].sandboxes] == [sandbox.id]

"""Sandboxes that come and go, however they end, leave nothing on the host, nor in memory."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest
from endings import BOMB, ENDINGS, Ending, cleanup, cycle
from host import running, soon
from standing import anonymous_bytes, comes_back, look, settled, starters

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.values import MIB, EndKind, new_id

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LANES = 4
REPLACING = 8
"""Cycles after which none is left of what a replaced launcher had made ahead."""


@attrs.frozen
class Kind:
    """Sandboxes of one runtime and level.

    Attributes:
        runtime: What makes them.
        level: Their security level.
        ready: How many are kept ready.
        rounds: How often each ending is gone through.
    """

    runtime: str
    level: str
    ready: int
    rounds: int = 0

    def __str__(self) -> str:
        return f"{self.runtime}-{self.level}-{self.ready}"


KINDS = (
    Kind("zygote", "medium", ready=0, rounds=8),
    Kind("zygote", "medium", ready=2, rounds=8),
    Kind("zygote", "high", ready=0, rounds=8),
    Kind("zygote", "high", ready=2, rounds=8),
    Kind("bubblewrap", "medium", ready=0, rounds=3),
    Kind("bubblewrap", "medium", ready=2, rounds=3),
)
"""With eight endings, and one round more to warm up, some 350 cycles together."""


@asynccontextmanager
async def client_of(kind: Kind, state: Path) -> AsyncGenerator[AsyncSandboxClient]:
    config = {"runtime": kind.runtime, "orchestrator": {"pool_size": kind.ready}}
    async with AsyncSandboxClient(state_dir=state, config=config) as client:
        yield client


async def cycles(client: AsyncSandboxClient, level: str, endings: Sequence[Ending]) -> None:
    """Go through a cycle per ending, several at a time."""
    todo = iter(endings)

    async def lane() -> None:
        for ending in todo:
            await cycle(client, ending, level)

    async with anyio.create_task_group() as group:
        for _ in range(LANES):
            group.start_soon(lane)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_however_they_end_nothing_is_left(kind: Kind, tmp_path: Path) -> None:
    """What stands is what stood: with the client open, and after it was closed."""
    state = tmp_path / "state"
    before = look(state)
    async with client_of(kind, state) as client:
        await cycles(client, kind.level, ENDINGS)
        start = await settled(state, ready=kind.ready)
        await cycles(client, kind.level, ENDINGS * kind.rounds)
        assert await comes_back(state, start) == start
        assert await client.list_sandboxes() == []
    after = look(state)
    assert attrs.evolve(after, folders={}) == attrs.evolve(before, folders={})
    assert after.groups == 0
    assert {name: count for name, count in after.folders.items() if count} == {"agent": 1}


@pytest.mark.timeout(60)
async def test_ready_sandbox_that_cannot_be_handed_over_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    kind = Kind("zygote", "medium", ready=1)

    def refuse(self: StateFolders, ready: Path, id: str) -> Path:
        raise StateError(f"{ready.name} cannot become {id}: there is no room")

    async with client_of(kind, state) as client:
        await cycles(client, kind.level, [cleanup])
        start = await settled(state, ready=kind.ready)
        with monkeypatch.context() as full:
            full.setattr(StateFolders, "take_over", refuse)
            with pytest.raises(StateError, match="no room"):
                await cycle(client, cleanup, kind.level)
        (refused,) = await client.list_sandboxes()
        await client.delete_sandbox(refused.id)
        assert await comes_back(state, start) == start


MANY, GONE_SECONDS = 100, 2.0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("decision", ["cancel", "timeout", "cleanup", "delete"])
@pytest.mark.parametrize("runtime", ["zygote", "bubblewrap"])
async def test_fork_bomb_is_gone_after_the_decision(
    runtime: str, decision: str, tmp_path: Path
) -> None:
    """A hundred processes that ignore SIGTERM run until the decision, and no longer."""
    marker = new_id("mark")
    words = ["python", "-c", BOMB, str(MANY), marker]
    ends: list[EndKind] = []
    async with client_of(Kind(runtime, "medium", ready=0), tmp_path / "state") as client:
        sandbox = await client.create_sandbox("bomb")

        async def call() -> None:
            done = await sandbox.run_command(words, timeout=5 if decision == "timeout" else None)
            ends.append(done.ended.kind)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            assert await soon(lambda: len(running(marker)) == MANY + 1, seconds=30)
            if decision == "cancel":
                group.cancel_scope.cancel()
            elif decision == "cleanup":
                await sandbox.cleanup()
            elif decision == "delete":
                await client.delete_sandbox(sandbox.id)
        assert await soon(lambda: not running(marker), seconds=GONE_SECONDS)
        alive = decision in ("cancel", "timeout")
        assert not alive or (await sandbox.run_command("echo alive")).stdout == "alive\n"
    assert ends == {"cancel": [], "timeout": [EndKind.TIMEOUT]}.get(decision, [EndKind.CANCELLED])


@attrs.frozen(kw_only=True)
class Sample:
    """What was measured after some cycles.

    Attributes:
        cycles: How many.
        seconds: Since the first.
        sdk_bytes: Memory that this process itself filled.
        sdk_blocks: Pieces of memory that Python's objects take in it.
        zygote_bytes: Memory that the zygote itself filled.
    """

    cycles: int
    seconds: float
    sdk_bytes: int
    sdk_blocks: int
    zygote_bytes: int


def sample(cycles_: int, began: float) -> Sample:
    (zygote,) = starters()
    gc.collect()  # or what is only to be collected would come and go between samples
    return Sample(
        cycles=cycles_,
        seconds=time.monotonic() - began,
        sdk_bytes=anonymous_bytes(os.getpid()),
        sdk_blocks=sys.getallocatedblocks(),
        zygote_bytes=anonymous_bytes(zygote),
    )


async def used_for_long(state: Path, *, steps: int, step: int) -> list[Sample]:
    """Go through cycles of plain use; nothing may be left at the end of any step."""
    kind = Kind("zygote", "medium", ready=2)
    async with client_of(kind, state) as client:
        await cycles(client, kind.level, [cleanup] * step)
        start = await settled(state, ready=kind.ready)
        began = time.monotonic()
        samples = [sample(0, began)]
        for number in range(1, steps + 1):
            await cycles(client, kind.level, [cleanup] * step)
            if await comes_back(state, start) != start:
                # A launcher is replaced in time, and ends with the last of its sandboxes.
                await cycles(client, kind.level, [cleanup] * REPLACING)
            assert await comes_back(state, start) == start
            samples.append(sample(number * step, began))
            sys.stdout.write(f"{samples[-1]}\n")  # shown by nox -s soak, and when a test fails
        return samples


def growth(samples: Sequence[Sample], field: str) -> float:
    """Return by how much a field grows per cycle: the slope of the line of least squares."""
    return statistics.linear_regression(
        [each.cycles for each in samples], [getattr(each, field) for each in samples]
    ).slope


@pytest.mark.timeout(120)
async def test_memory_stays_flat(tmp_path: Path) -> None:
    """What a cycle leaves in this process is less than one object with its name takes."""
    samples = await used_for_long(tmp_path / "state", steps=6, step=50)
    assert growth(samples, "sdk_blocks") <= 2
    assert growth(samples, "zygote_bytes") * 1000 <= 2 * MIB


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
async def test_a_hundred_thousand_cycles(tmp_path: Path) -> None:
    """Every thousand cycles all stands as it stood; memory grows by at most 1 MiB in 10,000."""
    samples = await used_for_long(tmp_path / "state", steps=100, step=1000)
    assert growth(samples, "sdk_bytes") * 10_000 <= MIB
    assert growth(samples, "zygote_bytes") * 10_000 <= MIB

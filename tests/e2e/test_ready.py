"""Sandboxes that stand ready: nobody's before they are taken, and then one owner's only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from host import GROUPS, below, command_line, inits, soon

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.engine import launchers
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture(params=["medium", "high"] if GROUPS else ["medium"])
async def client(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncSandboxClient]:
    settings = {"orchestrator": {"pool_size": 2}, "security": {"level": request.param}}
    async with AsyncSandboxClient(state_dir=tmp_path / "state", config=settings) as client:
        yield client


async def _used(client: AsyncSandboxClient, number: int) -> AsyncSandbox:
    sandbox = await client.create_sandbox(
        f"number {number}",
        env={"WHOSE": str(number)},
        files={"given": str(number), "folder/given": "x"},
        timeout=30 + number,
    )
    await sandbox.setup()
    return sandbox


async def test_each_is_one_owners_own(client: AsyncSandboxClient) -> None:
    """Env, files, limits of time and what code leaves behind are one sandbox's, ready or not."""
    code = """
import os
found = (os.environ["WHOSE"], open("given").read(), sorted(os.listdir(".")), os.listdir("/tmp"))
open("left", "w").close(); open("/tmp/left", "w").close()
found
"""
    for number in range(4):
        sandbox = await _used(client, number)
        done = await sandbox.run_code(code)
        assert done.text == repr((str(number), str(number), ["folder", "given"], []))
        assert {limit.value for limit in sandbox.limits if limit.name == "timeout"} == {30 + number}
        await sandbox.cleanup()
        assert await soon(lambda: inits(os.getpid())), "one is made ready for the next"


async def test_one_that_died_ready_is_replaced(client: AsyncSandboxClient) -> None:
    await (await _used(client, 0)).cleanup()
    assert await soon(lambda: len(inits(os.getpid())) == 1)
    (ready,) = inits(os.getpid())
    os.kill(ready, 9)
    assert await soon(lambda: ready not in inits(os.getpid()))
    sandbox = await _used(client, 1)
    assert (await sandbox.run_command("cat given")).stdout == "1"


async def test_nothing_ready_is_left_by_a_closed_client(tmp_path: Path) -> None:
    settings = {"orchestrator": {"pool_size": 2}}
    async with AsyncSandboxClient(state_dir=tmp_path / "state", config=settings) as client:
        await _used(client, 0)
        assert await soon(lambda: len(inits(os.getpid())) == 2)
    assert inits(os.getpid()) == []
    assert list((tmp_path / "state" / "ready").iterdir()) == []


async def test_a_seed_makes_random_numbers_repeat(client: AsyncSandboxClient) -> None:
    """Also numpy's, imported later; without one no two sandboxes draw the same."""
    code = "import random, numpy\n(random.random(), float(numpy.random.rand()))"
    drawn: dict[int | None, list[str | None]] = {7: [], 8: [], None: []}
    for seed, texts in drawn.items():
        for context in (None, "kept"):
            sandbox = await client.create_sandbox("drawn", seed=seed, template="host")
            texts.append((await sandbox.run_code(code, context=context)).text)
            await sandbox.cleanup()
    assert drawn[7][0] == drawn[7][1]
    assert len({text for texts in drawn.values() for text in texts}) == 4


async def test_a_launcher_is_replaced_after_many_sandboxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the former live on, and it goes with the last of them."""
    monkeypatch.setattr(launchers, "_MOST_LAUNCHES", 2)
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        sandboxes = [await client.create_sandbox(str(number)) for number in range(5)]
        async with anyio.create_task_group() as group:
            for sandbox in sandboxes:
                group.start_soon(sandbox.setup)
        assert len(_zygotes()) >= 2
        for sandbox in sandboxes:
            assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
            await sandbox.cleanup()
        await (await client.create_sandbox("last")).setup()
        assert len(_zygotes()) == 1


def _zygotes() -> list[int]:
    mine = below(os.getpid())
    inside = set(inits(os.getpid()))
    return [
        pid for pid in mine if " zygote " in command_line(pid) and not inside & {pid, *above(pid)}
    ]


def above(pid: int) -> list[int]:
    """Return a process's ancestors below us."""
    found: list[int] = []
    while pid not in (0, os.getpid()):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found

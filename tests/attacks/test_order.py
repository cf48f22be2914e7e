"""Faults of the host's own doing: threads that end, forks, clocks that jump, calls out of order."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import anyio
import pytest
from attacking import Kind
from host import inits

from sandbox_sdk import SandboxClient
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import SandboxClosed, SandboxEnded, SandboxError, SandboxNotFound
from sandbox_sdk.values import EndKind

DAY = 86_400


def test_a47_what_started_it_ends(kind: Kind, tmp_path: Path) -> None:
    """A sandbox outlives the thread that set it up and a fork of its owner, and is closed once."""
    with SandboxClient(state_dir=tmp_path / "state", config=kind.settings) as client:
        sandbox = client.create_sandbox("outlives", waive=kind.waive)
        thread = threading.Thread(target=sandbox.setup)
        thread.start()
        thread.join()
        (init,) = inits(os.getpid())
        child = os.fork()
        if child == 0:
            os._exit(0)  # as a worker of a pool does
        os.waitpid(child, 0)
        assert sandbox.run_command("echo alive").stdout == "alive\n"
        assert inits(os.getpid()) == [init]
    assert inits(os.getpid()) == []


@pytest.mark.anyio
@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a50_clock_that_jumps(
    client: AsyncSandboxClient, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    """A day more or less on the host's clock ends nothing early, and lets nothing run on."""
    now = time.time
    sandbox = await client.create_sandbox("jumps", timeout=60, idle_timeout=30)
    await sandbox.setup()
    began = time.monotonic()
    async with sandbox.start_command(["sleep", "1000"]) as sleeper:
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
        done = await sandbox.run_command("sleep 1000", timeout=0.5)
        assert done.ended.kind is EndKind.TIMEOUT
        await sleeper.kill()
    assert time.monotonic() - began < 5
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"


@pytest.mark.anyio
async def test_a51_all_at_once(client: AsyncSandboxClient) -> None:
    """Set up five times at once it is one sandbox; ended and deleted at once it is gone, once."""
    before = set(inits(os.getpid()))
    sandbox = await client.create_sandbox("at once")
    twin = await client.create_sandbox("at once")
    assert sandbox.id != twin.id
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(sandbox.setup)
    assert sandbox.isolation is not None
    answers: list[str] = []

    async def use() -> None:
        try:
            answers.append((await sandbox.run_command("echo alive")).stdout)
        except (SandboxClosed, SandboxEnded, SandboxNotFound) as error:
            answers.append(error.code)

    async def delete() -> None:
        try:
            await client.delete_sandbox(sandbox.id)
        except SandboxNotFound as error:
            answers.append(error.code)

    async with anyio.create_task_group() as group:
        for act in (use, delete, use, sandbox.cleanup, delete, use):
            group.start_soon(act)
    assert len(answers) >= 3
    assert set(answers) <= {"alive\n", "", "closed", "sandbox_ended", "not_found"}
    with pytest.raises(SandboxError):
        await sandbox.run_command("true")
    assert [record.id for record in await client.list_sandboxes()] == [twin.id]
    assert set(inits(os.getpid())) == before

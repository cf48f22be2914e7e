"""Level ``low``: what a sandbox leaves running is gone with it, though no PID namespace ends it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from host import below, command_line, running, soon, status

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind, new_id

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LINGER = """
trap '' TERM HUP INT
(setsid sh -c 'trap "" TERM HUP INT; setsid sh -c "sleep 1000; :" $1 & sleep 1000; :' sh $1 &)
echo begun
"""
BOMB = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(100):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(1000)
print("begun", flush=True)
time.sleep(1000)
"""


@pytest.fixture(params=[True, False], ids=["group", "no group"])
async def sandbox(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncSandbox]:
    """Return a sandbox that is set up, with a control group where there is one, and without."""
    if not request.param:
        monkeypatch.setattr(cgroups, "find", lambda: (None, "there is none in this test"))
    settings = {"security": {"level": "low"}, "default_resources": {"pids": 300}}
    async with AsyncSandboxClient(state_dir=tmp_path / "state", config=settings) as client:
        sandbox = await client.create_sandbox("lingering")
        await sandbox.setup()
        yield sandbox


def zygote() -> int:
    """Return the process that clones itself."""
    (found,) = [
        pid
        for pid in below(os.getpid())
        if " plain " in command_line(pid) and status(pid)["PPid"] == str(os.getpid())
    ]
    return found


def agent() -> int:
    """Return the only clone of it."""
    (found,) = [pid for pid in below(zygote()) if status(pid)["PPid"] == str(zygote())]
    return found


async def linger(sandbox: AsyncSandbox) -> str:
    """Leave processes running that no session or parent leads to; return what marks them."""
    marker = new_id("mark")
    done = await sandbox.run_command(["sh", "-c", LINGER, "sh", marker])
    assert done.stdout == "begun\n"
    assert await soon(lambda: len(running(marker)) >= 2)
    return marker


async def test_cleanup(sandbox: AsyncSandbox) -> None:
    """``cleanup()`` returns when all is gone, temporary files too."""
    marker = await linger(sandbox)
    await sandbox.files.write("kept", b"1")
    told = await sandbox.run_command("touch $TMPDIR/left; echo $TMPDIR; pwd")
    tmp, workspace = map(Path, told.stdout.splitlines())
    assert (tmp / "left").exists()
    await sandbox.cleanup()
    assert not running(marker)
    assert not tmp.exists()
    assert (workspace / "kept").exists()


@pytest.mark.parametrize("find", [agent, zygote])
async def test_kill_of_what_holds_it(sandbox: AsyncSandbox, find: Callable[[], int]) -> None:
    """Nothing survives the death of the agent or of the zygote, and it can be set up again."""
    marker = await linger(sandbox)
    async with sandbox.start_command(["sleep", "1000"]) as process:
        os.kill(find(), signal.SIGKILL)
        assert (await process.wait()).kind is EndKind.SANDBOX_DIED
    assert await soon(lambda: not running(marker))
    await sandbox.setup()
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"


async def test_code_that_kills_its_agent(sandbox: AsyncSandbox) -> None:
    """It ends its own sandbox, as no result of its program, and nothing is left."""
    marker = await linger(sandbox)
    done = await sandbox.run_command(f"kill -KILL {agent()}; sleep 1000", timeout=10)
    assert done.ended.kind is EndKind.SANDBOX_DIED
    assert await soon(lambda: not running(marker))


async def test_bomb_that_ignores_signals(sandbox: AsyncSandbox) -> None:
    """A hundred orphans of a call are gone with it, and of a sandbox with that."""
    marker = new_id("mark")
    words = ["python", "-c", BOMB, marker]
    async with sandbox.start_command(words) as process:
        assert await anext(aiter(process.stdout)) == b"begun\n"
        assert await soon(lambda: len(running(marker)) > 100)
    assert not running(marker)
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
    async with sandbox.start_command(words) as process:
        assert await anext(aiter(process.stdout)) == b"begun\n"
        await sandbox.cleanup()
    assert not running(marker)

"""Attacks through a command's own terminal: on the caller, on the agent, on others' calls."""

from __future__ import annotations

import os

import anyio
import pytest
from host import running, told

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind

pytestmark = pytest.mark.anyio


async def test_a17_typing_into_a_terminal_of_the_sandbox(sandbox: AsyncSandbox) -> None:
    """A command on a terminal types nothing into it, high bits set or not."""
    done = await sandbox.run_command(["python", "attacks/inject_input.py"], tty=True, timeout=15)
    assert done.ok, done.ended.detail
    tried = told(done.stdout)
    assert tried.pop("/dev/tty") == "EPERM"
    assert set(tried.values()) == {"EPERM"}
    assert "INJECTED" not in done.stdout


async def test_a17_keys_of_another_command(sandbox: AsyncSandbox, agent: int) -> None:
    """The side that reads the keys is the agent's; who opens one gets a terminal of his own."""
    script = f"""
import fcntl, os, struct, termios
opened = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
print("/dev/pts/%d" % struct.unpack("I", fcntl.ioctl(opened, 0x80045430, bytes(4))))  # TIOCGPTN
os.listdir("/proc/{agent}/fd")
"""
    async with sandbox.start_command("tty; cat", tty=True) as process:
        keyboard = (await anext(process.stdout, b"")).decode().strip()
        done = await sandbox.run_command(["python", "-c", script])
    assert "PermissionError" in done.stderr
    assert keyboard.startswith("/dev/pts/")
    assert done.stdout.startswith("/dev/pts/")
    assert done.stdout.strip() != keyboard


async def test_a40_flood_through_a_terminal(client: AsyncSandboxClient) -> None:
    """Endless output on a terminal is cut and ended as from a pipe."""
    async with await client.create_sandbox("flood", resources={"output": "64KiB"}) as sandbox:
        done = await sandbox.run_command(["yes"], tty=True, timeout=30)
    assert done.ended.kind is EndKind.OUTPUT_LIMIT
    assert done.ended.truncated


_LONG = f"1000.{os.getpid()}"
"""Seconds that mark the processes of these tests."""
_STOP_OUTPUT = """exec python -c "
import termios
print('ready', flush=True)
termios.tcflow(1, termios.TCOOFF)
print('never' * 100_000)
"
"""


@pytest.mark.parametrize(
    "script",
    [
        f"stty -icanon -echo min 0 time 1; echo ready; sleep {_LONG}",
        _STOP_OUTPUT,
        "echo ready; kill -STOP $$",
        f"trap '' HUP INT TERM; echo ready; exec 0<&- 1>&- 2>&-; sleep {_LONG}",
    ],
    ids=["raw", "stopped output", "stopped", "closed"],
)
async def test_a40_stuck_terminal(sandbox: AsyncSandbox, script: str) -> None:
    """Whatever a command does to its terminal, others go on and a kill ends it."""
    async with sandbox.start_command(script, tty=True) as process:
        seen = b""
        async for data in process.stdout:
            seen += data
            if b"ready" in seen:
                break
        assert b"ready" in seen
        with anyio.move_on_after(0.2):
            await process.write(b"x" * 1_000_000)
        await process.resize(100, 50)
        assert (await sandbox.run_command(["echo", "on"], timeout=10)).stdout == "on\n"
        with anyio.fail_after(10):
            await process.kill()
            assert (await process.wait()).kind is EndKind.CANCELLED
    assert not running(_LONG)

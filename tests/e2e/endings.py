"""The ways in which a sandbox comes to its end, each as one cycle from nothing to nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import anyio
from attacking import LIMITS
from host import below, command_line, inits, running, soon

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind, new_id

MEMORY = "128MiB"
"""What every sandbox here gets, so that all have the shape of those that stand ready."""

BOMB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(1000)
print("full", flush=True)
time.sleep(1000)
"""
"""Starts as many processes as its first argument says, and none of them heeds SIGTERM."""

Ending = Callable[[AsyncSandboxClient, AsyncSandbox], Awaitable[object]]


async def cleanup(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """Cleaned up after use."""
    assert (await sandbox.run_code("6 * 7")).text == "42"
    assert (await sandbox.run_command("echo x > kept; cat kept")).stdout == "x\n"
    await sandbox.cleanup()


async def delete(client: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """Deleted with a program, its process and a context running."""
    await sandbox.run_code("x = 1", context="kept")
    async with sandbox.start_command("sleep 1000 & echo begun; wait") as process:
        async for _said in process.stdout:
            break
        await client.delete_sandbox(sandbox.id)


async def kill(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """Its PID 1 killed from the host, in the middle of a call."""
    marker = new_id("mark")

    def program() -> list[int]:
        return [pid for pid in running(marker) if "sleep 1000" in command_line(pid)]

    async with anyio.create_task_group() as group:
        group.start_soon(_died, sandbox, ["sh", "-c", "sleep 1000; :", marker])
        assert await soon(program, seconds=30)
        (init,) = [pid for pid in inits(os.getpid()) if program()[0] in below(pid)]
        os.kill(init, signal.SIGKILL)


async def _died(sandbox: AsyncSandbox, command: list[str]) -> None:
    assert (await sandbox.run_command(command)).ended.kind is EndKind.SANDBOX_DIED


async def call_timeout(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """A call past its time, with a process that left its session."""
    done = await sandbox.run_command("trap '' TERM; setsid sleep 1000 & sleep 1000", timeout=0.1)
    assert done.ended.kind is EndKind.TIMEOUT


async def out_of_memory(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """A call that wants more memory than there is."""
    assert not (await sandbox.run_code("x = b'x' * (1 << 30)", timeout=10)).ok


async def fork_bomb(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """Many processes that ignore SIGTERM."""
    async with sandbox.start_command(["python", "-c", BOMB, "20"]) as process:
        async for _said in process.stdout:
            break
        await sandbox.cleanup()


async def given_up(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """Its start, or its first call, cancelled at whatever moment that is."""
    with anyio.move_on_after(0.002 * (int.from_bytes(os.urandom(1)) % 16)):
        await sandbox.run_code("import time; time.sleep(1000)")


async def set_up_again(_: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """Cleaned up and started anew over its workspace."""
    await sandbox.files.write("kept", "x")
    await sandbox.cleanup()
    await sandbox.setup()
    assert await sandbox.files.read_text("kept") == "x"


ENDINGS: tuple[Ending, ...] = (
    cleanup, delete, kill, call_timeout, out_of_memory, fork_bomb, given_up, set_up_again,
)  # fmt: skip


async def cycle(client: AsyncSandboxClient, ending: Ending, level: str) -> None:
    """Create a sandbox, use it until it ends in this way, and delete what is left."""
    waived = LIMITS if level == "high" else ()
    sandbox = await client.create_sandbox(
        "cycle", resources={"memory": MEMORY}, security_level=level, waive=waived
    )
    await ending(client, sandbox)
    if ending is not delete:
        await client.delete_sandbox(sandbox.id)

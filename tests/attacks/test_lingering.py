"""Attacks by staying: what will not end, or comes back after its time."""

from __future__ import annotations

import subprocess
import sys
import time

import anyio
import pytest
from attacking import OpenClient
from host import running, soon

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind, new_id

pytestmark = pytest.mark.anyio

DAEMON = """
import os, time
heard, tell = os.pipe()
if os.fork():
    os.read(heard, 1)
    print("left", flush=True)
    os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
null = os.open("/dev/null", os.O_RDWR)
for descriptor in (0, 1, 2): os.dup2(null, descriptor)
os.write(tell, b".")
while True: time.sleep(1)
"""
WAYS = {
    "ignores every signal": (
        "import signal, time\n"
        "for number in set(signal.valid_signals()) - {9, 19}: signal.signal(number, 1)\n"
        "print('left', flush=True)\n"
        "while True: time.sleep(1)"
    ),
    "leaves its session twice": DAEMON,
    "stops itself": (
        "import os, signal\nprint('left', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)"
    ),
    "stops itself below a parent that waits": (
        "import os, signal\n"
        "child = os.fork()\n"
        "if child == 0: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "print('left', flush=True)\n"
        "os.waitpid(child, 0)"
    ),
    "leaves zombies": (
        "import os, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "print('left', flush=True)\n"
        "while True: time.sleep(1)"
    ),
    "forks as fast as it dies": (
        "import os\nprint('left', flush=True)\nwhile True:\n    if os.fork(): os._exit(0)"
    ),
}
"""Programs that a timeout by SIGTERM, or the death of one process, would not end."""


@pytest.fixture
def marker() -> str:
    """Return an argument by which the host finds the processes of this test."""
    return new_id("mark")


async def test_a42_survivors_outside(marker: str) -> None:
    """Outside, what leaves its session outlives its parent: the attack works."""
    done = subprocess.run([sys.executable, "-c", DAEMON, marker], capture_output=True, check=True)
    assert done.stdout == b"left\n"
    (survivor,) = running(marker)
    subprocess.run(["kill", "-KILL", str(survivor)], check=True)
    assert await soon(lambda: not running(marker))


async def test_a42_what_will_not_end(client: AsyncSandboxClient, marker: str) -> None:
    """A call ends at its timeout, and a second later nothing of it is left."""

    async def run(way: str) -> None:
        sandbox = await client.create_sandbox(way)
        await sandbox.setup()
        # The shell stays, so that the call itself runs on whatever the program does.
        words = ["sh", "-c", 'python -c "$0" "$1"; sleep 1000', WAYS[way], marker]
        began = time.monotonic()
        done = await sandbox.run_command(words, timeout=1)
        assert time.monotonic() - began < 3, way
        assert done.stdout == "left\n", way
        assert done.ended.kind is EndKind.TIMEOUT, way
        assert (await sandbox.run_command("echo alive")).stdout == "alive\n", way

    async with anyio.create_task_group() as group:
        for way in WAYS:
            group.start_soon(run, way)
    assert await soon(lambda: not running(marker), seconds=1)


async def test_a42_killing_the_keeper(sandbox: AsyncSandbox, marker: str) -> None:
    """A guest that kills the process which keeps count of it ends its own call, and all below."""
    code = (
        "import os, time\n"
        "if os.fork() == 0: time.sleep(1000)\n"
        "os.kill(os.getppid(), 9)\n"
        "time.sleep(1000)"
    )
    done = await sandbox.run_command(["python", "-c", code, marker], timeout=5)
    assert (done.ended.kind, done.ended.signal) == (EndKind.SIGNAL, 9)
    assert await soon(lambda: not running(marker), seconds=1)
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"


async def test_a43_what_waits_for_the_end(client: AsyncSandboxClient, marker: str) -> None:
    """Nothing that code left behind is there once ``cleanup()`` returned, nor at the next start."""
    sandbox = await client.create_sandbox("time bomb")
    await sandbox.run_command(["python", "-c", DAEMON, marker])
    assert running(marker), "the daemon outlives its command, as daemons do"
    code = (
        f"import subprocess; subprocess.Popen(['sleep', '1000', '{marker}'], start_new_session=1)"
    )
    await sandbox.run_code(code)
    await sandbox.cleanup()
    assert running(marker) == []
    await sandbox.setup()
    listed = await sandbox.run_command("cat /proc/[0-9]*/cmdline")
    await sandbox.cleanup()
    assert marker not in listed.stdout


async def test_a43_what_waits_for_the_clients_end(own_client: OpenClient, marker: str) -> None:
    """Closing the client ends what runs in every sandbox of it."""
    async with await own_client() as client:
        for number in range(3):
            sandbox = await client.create_sandbox(f"bomb {number}")
            await sandbox.run_command(["python", "-c", DAEMON, marker])
        assert len(running(marker)) == 3
    assert running(marker) == []


async def test_a43_lifetime(client: AsyncSandboxClient, marker: str) -> None:
    """At the end of its life a sandbox takes along what sleeps on past it."""
    sandbox = await client.create_sandbox("short", timeout=1)
    await sandbox.run_command(["python", "-c", DAEMON, marker])
    assert running(marker)
    assert await soon(lambda: not running(marker), seconds=3)
    assert sandbox.info.ended is None or sandbox.info.ended.limit == "lifetime"

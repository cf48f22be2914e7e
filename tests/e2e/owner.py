"""An owner of sandboxes that works until it is killed: sets up, runs commands and experiments.

Usage: ``python owner.py STATE_DIR MARKER [fork]``. It tells, a line each: ``started ID`` of every
sandbox, ``finished RUN`` once a run's result was returned, and with ``fork`` the ``child`` that
lives on.
"""

from __future__ import annotations

import os
import signal
import sys

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox

SANDBOXES = 2
EXPERIMENT = "open('made', 'w').write('x' * 10_000); print('done')"


def tell(*words: object) -> None:
    """Say something to the test, at once."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def experiments(sandbox: AsyncSandbox) -> None:
    """Run experiments one after another, for ever."""
    while True:
        result = await sandbox.run_experiment({"code": EXPERIMENT, "artifacts": ["made"]})
        tell("finished", result.id)


async def work(client: AsyncSandboxClient, number: int, marker: str) -> None:
    """Set a sandbox up and use it for ever."""
    sandbox = await client.create_sandbox(f"owned {number}")
    await sandbox.setup()
    await sandbox.files.write("kept", sandbox.id)
    tell("started", sandbox.id)
    async with anyio.create_task_group() as group:
        group.start_soon(experiments, sandbox)
        while True:
            await sandbox.run_command(["sh", "-c", "sleep 1000 & echo", marker])
            await anyio.sleep(0.05)  # idle now and then, as real owners are


async def main(state_dir: str, marker: str) -> None:
    """Work in several sandboxes at once, with others kept ready."""
    async with (
        AsyncSandboxClient(
            state_dir=state_dir, config={"orchestrator": {"pool_size": 2}}
        ) as client,
        anyio.create_task_group() as group,
    ):
        for number in range(SANDBOXES):
            group.start_soon(work, client, number, marker)


async def fork(state_dir: str, marker: str) -> None:
    """Hold a sandbox and fork a child that keeps all our descriptors open."""
    async with AsyncSandboxClient(state_dir=state_dir) as client:
        sandbox = await client.create_sandbox("forked")
        async with sandbox.start_command(["sh", "-c", "sleep 1000; :", marker]):
            child = os.fork()
            if child == 0:
                signal.pause()
            tell("child", child)
            tell("started", sandbox.id)
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(fork if sys.argv[3:] == ["fork"] else main, sys.argv[1], sys.argv[2])

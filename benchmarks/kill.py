"""A fork bomb is gone 100 ms (p95) after the decision; its neighbour's p95 is at most 1.5 times.

At least 100 processes that ignore every signal they may, and try to fork for ever, against their
limit of processes. They are ended by a call's ``timeout``, and by ``cleanup()``. From the
decision (the moment at which the time is up; the call of ``cleanup()``) it is timed until the last
process of the bomb has ended, as the kernel tells, and the call has returned.

Statements of a neighbour, another sandbox of the same client, are timed before each bomb and while
it rages.

``--count`` is the number of bombs for each way.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.to_thread import run_sync
from bench import processes
from bench.measure import Case, Failed, Run, main
from bench.table import Promise
from bench.world import NO_POOL, judged

from sandbox_sdk import AsyncSandbox, AsyncSandboxClient, CommandResult

COUNT = 30
GONE, WORSE = 0.1, 1.5
BOMB = 100
STATEMENTS = 50
UP_SECONDS, GONE_SECONDS = 20.0, 20.0
LOOK_SECONDS = 0.02
TIMEOUT = 4.0
"""Of the call that is to time out, in seconds: the bomb must be up, and found, within it."""

# Where no control group counts memory, pages that forks share count once for each of them.
RESOURCES = {"memory": "4GiB", "cpu": 1, "pids": BOMB + 16}

BY_TIMEOUT, BY_CLEANUP = "bomb gone after a timeout", "bomb gone after cleanup()"
CALM, DURING = "neighbour's statement, calm", "neighbour's statement, during a bomb"

_PROGRAM = """
import os, signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.02)
"""


async def _found(marker: str, seconds: float) -> processes.Watched:
    """Wait until the bomb is up, and watch its processes: fewer, if that took too long."""
    pids: list[int] = []
    with anyio.move_on_after(seconds):
        while len(pids) < BOMB:
            await anyio.sleep(LOOK_SECONDS)
            pids = processes.marked(marker, processes.below(os.getpid()))
    return processes.Watched(pids)


async def _ended(watched: processes.Watched) -> float:
    """Return the moment at which the last process was found to have ended.

    Raises:
        Failed: The bomb was not up, or some of it live on.
    """
    gone = await run_sync(watched.gone, GONE_SECONDS)
    moment = time.perf_counter()
    watched.close()
    if len(watched) < BOMB:
        raise Failed(f"only {len(watched)} processes of the bomb were up in time")
    if not gone:
        raise Failed(f"some of {len(watched)} processes live after {GONE_SECONDS:g} s")
    return moment


@asynccontextmanager
async def _bombed(client: AsyncSandboxClient) -> AsyncGenerator[tuple[AsyncSandbox, list[str]]]:
    """Give a sandbox and the command of a bomb that can be told by its last argument."""
    with judged():
        sandbox = await client.create_sandbox("bomb", resources=RESOURCES)
        try:
            await sandbox.setup()
            yield sandbox, ["python3", "-c", _PROGRAM, f"bomb-{secrets.token_hex(8)}"]
        finally:
            await client.delete_sandbox(sandbox.id)


async def by_timeout(client: AsyncSandboxClient) -> float:
    """Return the seconds from a call's timeout to the end of all it had started."""
    async with _bombed(client) as (sandbox, command):
        watched: list[processes.Watched] = []
        calls: list[tuple[float, float, CommandResult]] = []

        async def call() -> None:
            decided = time.perf_counter() + TIMEOUT
            result = await sandbox.run_command(command, timeout=TIMEOUT)
            calls.append((decided, time.perf_counter(), result))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            watched.append(await _found(command[-1], TIMEOUT))
        ((decided, returned, result),) = calls
        if returned < decided:
            raise Failed(f"the bomb ended before the timeout: {result.ended}")
        return max(await _ended(watched[0]), returned) - decided


async def by_cleanup(run: Run, client: AsyncSandboxClient, neighbour: AsyncSandbox) -> float:
    """Return the seconds of a cleanup with a bomb in it; time the neighbour before and during."""
    await _statements(run, CALM, neighbour)
    async with _bombed(client) as (sandbox, command), sandbox.start_command(command):
        watched = await _found(command[-1], UP_SECONDS)
        await _statements(run, DURING, neighbour)
        decided = time.perf_counter()
        await sandbox.cleanup()
        return await _ended(watched) - decided


async def _statements(run: Run, label: str, neighbour: AsyncSandbox) -> None:
    for _ in range(STATEMENTS):
        began = time.perf_counter()
        done = await neighbour.run_code("1", context="main")
        seconds = time.perf_counter() - began
        if done.ok:
            run.add(label, seconds)
        else:
            run.fail(label, str(done.ended))


async def body(run: Run) -> list[Promise]:
    """Set off bombs in turn."""
    async with AsyncSandboxClient(config=NO_POOL, state_dir=run.state) as client:
        neighbour = await client.create_sandbox("neighbour")
        await neighbour.run_code("1", context="main")
        cases = [
            Case(label=BY_TIMEOUT, measure=lambda: by_timeout(client)),
            Case(label=BY_CLEANUP, measure=lambda: by_cleanup(run, client, neighbour)),
        ]
        await run.alternate(cases, rounds=run.count)
    calm, during = run.figure(CALM, "p95"), run.figure(DURING, "p95")
    return [
        run.promise(BY_TIMEOUT, "p95", goal=GONE),
        run.promise(BY_CLEANUP, "p95", goal=GONE),
        run.promise(CALM, "p95", unit="us"),
        run.promise(DURING, "p95", unit="us"),
        Promise(
            what="neighbour's p95 during a bomb, over calm",
            unit="x",
            ours=during / calm if during and calm else None,
            goal=WORSE,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main("kill", __doc__, COUNT, body))

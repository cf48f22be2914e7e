"""1,000 live sandboxes: up in 2 s, 2 GiB, a statement's p50 <= 0.15 ms, torn down in 0.5 s.

All are created and set up, 16 at a time, with numpy preloaded, and stay; statements then go to one
after the other. Memory is what the kernel can no longer give (``MemAvailable``), all of the SDK
included; as root, also the proportional share (PSS) of a sample's processes. Torn down is what
``aclose()`` does, until no process is left.

``--count`` is the number of sandboxes. Each needs descriptors of the SDK's process and of its
launcher: a few are made first, and if the limit (``ulimit -n``) is too low for all, it is said how
high it must be. As root each needs a uid too: see ``uid_range``.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import anyio
from bench import processes
from bench.measure import Failed, Refused, Run, main
from bench.noise import available_bytes
from bench.table import Promise
from bench.world import NO_POOL, SMALL, judged, numpy_world

from sandbox_sdk import AsyncSandbox, AsyncSandboxClient

COUNT = 1000
UP_SECONDS, UP_BYTES, STATEMENT, DOWN_SECONDS = 2.0, 2 * 1024**3, 0.15e-3, 0.5
AT_A_TIME = 16
FIRST = 4
SAMPLE = 20
SPARE_FILES = 256
GONE_SECONDS = 60.0

UP, MEMORY, PSS = "all up", "memory of all", "PSS of one sandbox"
AMONG, DOWN = "a statement among them", "all torn down"


async def _up(client: AsyncSandboxClient, arguments: Mapping[str, Any]) -> AsyncSandbox:
    sandbox = await client.create_sandbox("one of many", **arguments)
    await sandbox.setup()
    return sandbox


async def _all_up(
    client: AsyncSandboxClient, arguments: Mapping[str, Any], number: int
) -> list[AsyncSandbox]:
    limiter = anyio.CapacityLimiter(AT_A_TIME)
    standing: list[AsyncSandbox] = []

    async def one() -> None:
        async with limiter:
            standing.append(await _up(client, arguments))

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(one)
    return standing


def _files() -> int:
    """Return the descriptors of the process that has most of them: ours, or a launcher."""
    return max(processes.open_files(pid) for pid in (os.getpid(), *_launchers()))


def _launchers() -> list[int]:
    return [pid for pid in processes.below(os.getpid()) if processes.parent(pid) == os.getpid()]


def _room_for(number: int, each: float) -> str:
    """Return why there is no room for so many, or nothing."""
    needed = int(number * each) + SPARE_FILES
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if needed <= allowed:
        return ""
    return f"{number} sandboxes need some {needed} open files, {allowed} are allowed: ulimit -n"


async def body(run: Run) -> list[Promise]:
    """Raise the limit of open files, and measure."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = AsyncSandboxClient(config=NO_POOL, state_dir=run.state)
    try:
        with judged():
            await _measure(run, client)
    except (Failed, Refused) as error:
        run.absent[UP] = str(error)
    finally:
        await client.aclose()
    each = run.figure(MEMORY)
    run.notes.append(f"{run.count} sandboxes, {AT_A_TIME} at a time")
    if each is not None:
        run.notes.append(f"memory of each: {each / run.count / 1024:.0f} KiB")
    full = run.count >= COUNT
    return [
        run.promise(UP, unit="s", goal=UP_SECONDS if full else None),
        run.promise(MEMORY, unit="MiB", goal=UP_BYTES if full else None),
        run.promise(PSS, unit="MiB"),
        run.promise(AMONG, unit="us", goal=STATEMENT),
        run.promise(AMONG, "p99", unit="us"),
        run.promise(DOWN, unit="s", goal=DOWN_SECONDS if full else None),
    ]


async def _measure(run: Run, client: AsyncSandboxClient) -> None:
    world = await numpy_world(client, run)
    arguments = {**world.arguments, "resources": SMALL}
    await _up(client, arguments)
    files = _files()
    await _all_up(client, arguments, FIRST)
    each = (_files() - files) / FIRST
    if no_room := _room_for(run.count, each):
        raise Refused(no_room)
    run.notes.append(f"open files of each sandbox in the fullest process: {each:g}")
    before = set(processes.below(os.getpid()))
    free = available_bytes()
    began = time.perf_counter()
    standing = await _all_up(client, arguments, run.count)
    run.add(UP, time.perf_counter() - began)
    run.add(MEMORY, free - available_bytes())
    for sandbox in standing:
        await sandbox.run_code("1", context="main")
    for sandbox in standing:
        began = time.perf_counter()
        done = await sandbox.run_code("1", context="main")
        seconds = time.perf_counter() - began
        if done.ok:
            run.add(AMONG, seconds)
        else:
            run.fail(AMONG, str(done.ended))
    made = [pid for pid in processes.below(os.getpid()) if pid not in before]
    shares = [processes.proportional_bytes(pid) for pid in made[:: max(len(made) // SAMPLE, 1)]]
    known = [share for share in shares if share is not None]
    if len(known) == len(shares):
        run.add(PSS, sum(known) / len(known) * len(made) / len(standing))
    else:
        run.absent[PSS] = "only root may look into a sandbox's processes"
    watched = processes.Watched(processes.below(os.getpid()))
    began = time.perf_counter()
    await client.aclose()
    gone = watched.gone(GONE_SECONDS)
    seconds = time.perf_counter() - began
    watched.close()
    if gone:
        run.add(DOWN, seconds)
    else:
        run.fail(DOWN, f"processes are left after {GONE_SECONDS:g} s")


if __name__ == "__main__":
    sys.exit(main("many", __doc__, COUNT, body))

"""A blocking call costs at most 80 us over the async one.

The same trivial coroutine method, awaited on a loop and called through the portal, in turn. The
reference is what the standard library offers for the same crossing between two threads,
``asyncio.run_coroutine_threadsafe``, which neither cancels nor cleans up.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time

from anyio.to_thread import run_sync
from bench.measure import Case, Run, main
from bench.table import Promise

from sandbox_sdk_sync._portal import Portal

GOAL = 80e-6
COUNT = 15
CALLS = 500
AWAITED, CALLED, STANDARD = "await", "blocking call", "run_coroutine_threadsafe"


class Core:
    """The smallest async object."""

    async def double(self, number: int) -> int:
        """Return twice the number."""
        return 2 * number


async def asynchronous(core: Core) -> float:
    """Return seconds per awaited call."""
    started = time.perf_counter()
    for number in range(CALLS):
        await core.double(number)
    return (time.perf_counter() - started) / CALLS


def blocking(core: Core, portal: Portal) -> float:
    """Return seconds per call through the portal."""
    started = time.perf_counter()
    for number in range(CALLS):
        portal.call(core.double, number)
    return (time.perf_counter() - started) / CALLS


def standard(core: Core, loop: asyncio.AbstractEventLoop) -> float:
    """Return seconds per call through ``run_coroutine_threadsafe``."""
    started = time.perf_counter()
    for number in range(CALLS):
        asyncio.run_coroutine_threadsafe(core.double(number), loop).result()
    return (time.perf_counter() - started) / CALLS


async def body(run: Run) -> list[Promise]:
    """Measure all ways in turn, each call from a thread without a loop."""
    core, portal, loop = Core(), await run_sync(Portal), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    cases = [
        Case(label=AWAITED, measure=lambda: asynchronous(core)),
        Case(label=CALLED, measure=lambda: run_sync(blocking, core, portal)),
        Case(label=STANDARD, measure=lambda: run_sync(standard, core, loop)),
    ]
    await run.alternate(cases, rounds=run.count)
    loop.call_soon_threadsafe(loop.stop)
    await run_sync(thread.join)
    loop.close()
    await run_sync(portal.close)
    return [
        run.over(CALLED, AWAITED, unit="us", goal=GOAL),
        run.over(STANDARD, AWAITED, unit="us"),
        run.promise(CALLED, unit="us", against=STANDARD),
    ]


if __name__ == "__main__":
    sys.exit(main("blocking_call", __doc__, COUNT, body))

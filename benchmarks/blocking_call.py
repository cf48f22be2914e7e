"""A blocking call costs at most 80 us over the async one.

The same trivial coroutine method, awaited on a loop and called through the portal, in alternating
rounds of one run; medians. The reference is what the standard library offers for the same crossing
between two threads, ``asyncio.run_coroutine_threadsafe``, which neither cancels nor cleans up.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time

import anyio

from sandbox_sdk_sync._portal import Portal

GOAL = 80.0
ROUNDS = 15
CALLS = 500


class Core:
    """The smallest async object."""

    async def double(self, number: int) -> int:
        """Return twice the number."""
        return 2 * number


def asynchronous(core: Core) -> float:
    """Return microseconds per awaited call."""

    async def run() -> float:
        started = time.perf_counter()
        for number in range(CALLS):
            await core.double(number)
        return time.perf_counter() - started

    return anyio.run(run) / CALLS * 1e6


def blocking(core: Core, portal: Portal) -> float:
    """Return microseconds per call through the portal."""
    started = time.perf_counter()
    for number in range(CALLS):
        portal.call(core.double, number)
    return (time.perf_counter() - started) / CALLS * 1e6


def standard(core: Core, loop: asyncio.AbstractEventLoop) -> float:
    """Return microseconds per call through ``run_coroutine_threadsafe``."""
    started = time.perf_counter()
    for number in range(CALLS):
        asyncio.run_coroutine_threadsafe(core.double(number), loop).result()
    return (time.perf_counter() - started) / CALLS * 1e6


def main() -> int:
    """Print the medians; return 1 if the goal is missed."""
    core, portal, loop = Core(), Portal(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    rounds = [
        (asynchronous(core), blocking(core, portal), standard(core, loop)) for _ in range(ROUNDS)
    ]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    portal.close()
    awaited, called, reference = (statistics.median(column) for column in zip(*rounds, strict=True))
    over = called - awaited
    print(f"{'':30} {'us':>8} {'over async':>11}")
    print(f"{'await':30} {awaited:8.2f}")
    print(f"{'blocking call':30} {called:8.2f} {over:+11.2f}   goal {GOAL:+.0f}")
    print(
        f"{'run_coroutine_threadsafe':30} {reference:8.2f} {reference - awaited:+11.2f}   "
        f"ratio {called / reference:.2f}"
    )
    met = over <= GOAL
    print("met" if met else "missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

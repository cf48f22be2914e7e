"""A trial without model time costs at most 1 ms of own CPU, durable, its journal synced in groups.

A batch of trials that a scripted model answers, without sandboxes: processor time of the whole
process per trial, planning and tables included. Beside it what a journal alone costs: as many tasks
of bare asyncio that append four events each to one file, synced in groups, and know nothing of
plans, budgets, retries or results.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time

from bench.measure import Case, Run, main
from bench.table import Promise

from sandbox_sdk import AsyncSandboxClient

GOAL = 1e-3
COUNT = 10
TRIALS = 1_000
AT_ONCE = 100
BATCH, BARE = "trial of a batch", "bare asyncio with a journal"


async def batch(client: AsyncSandboxClient, turn: int) -> float:
    """Return seconds of processor time per trial."""
    rows = [{"input": f"turn {turn} question {number}"} for number in range(TRIALS)]
    started = time.process_time()
    result = await client.run_batch({"model": "mock/echo", "dataset": rows}, run="new")
    if result.counted != TRIALS:
        raise AssertionError(f"{result.counted} of {TRIALS} trials count")
    return (time.process_time() - started) / TRIALS


async def bare() -> float:
    """Return seconds of processor time per task."""
    pending: list[bytes] = []
    synced = asyncio.Lock()
    numbers = iter(range(TRIALS))
    with tempfile.TemporaryFile() as file:

        def write(lines: list[bytes]) -> None:
            file.write(b"".join(lines))
            file.flush()
            os.fdatasync(file.fileno())

        async def note(number: int, what: str) -> None:
            event = {"time": time.time(), "type": what, "trial": number, "data": "x" * 200}
            pending.append(json.dumps(event).encode() + b"\n")
            async with synced:
                if pending:
                    lines, pending[:] = pending[:], []
                    await asyncio.to_thread(write, lines)

        async def work() -> None:
            for number in numbers:
                for what in ("started", "requested", "responded", "finished"):
                    await note(number, what)

        started = time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        return (time.process_time() - started) / TRIALS


async def body(run: Run) -> list[Promise]:
    """Measure both in turn."""
    turns = itertools.count()
    async with AsyncSandboxClient(state_dir=run.state) as client:
        cases = [
            Case(label=BATCH, measure=lambda: batch(client, next(turns))),
            Case(label=BARE, measure=bare),
        ]
        await run.alternate(cases, rounds=run.count)
    return [
        run.promise(BATCH, unit="ms", goal=GOAL, against=BARE),
        run.promise(BARE, unit="ms"),
    ]


if __name__ == "__main__":
    sys.exit(main("batch", __doc__, COUNT, body))

"""A trial without model time costs at most 1 ms of own CPU and 3 KiB of memory, durable.

A batch of trials that a scripted model answers, without sandboxes: processor time of the whole
process per trial, planning and tables included, the journal synced in groups; and, once, by how
much the peak of memory grows over 10,000 trials more (1,000 for each round). Then trials that each
run a command in a fresh sandbox, as trials per second.

Beside it what a journal alone costs: as many tasks of bare asyncio that append four events each to
one file, synced in groups, and know nothing of plans, budgets, retries or results. And Inspect, if
it is installed: its scripted model, and its ``local`` sandbox, which is a folder and no wall.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from anyio.to_thread import run_sync
from bench import inspect_ai
from bench.measure import Case, Failed, Run, main
from bench.table import Promise

from sandbox_sdk import AsyncSandboxClient

GOAL = 1e-3
COUNT = 10
TRIALS = 1_000
AT_ONCE = 100
BATCH, BARE = "trial of a batch", "bare asyncio with a journal"

MOST_MEMORY = 3 * 1024
MANY = 1_000
"""Trials of the batch whose memory is measured, for each round that is asked for."""

BOXED_TRIALS = 100
BOXED_AT_ONCE = 8
BOXED = f"trials with a sandbox each, {BOXED_AT_ONCE} at once"

INSPECT, INSPECT_MEMORY = "Inspect, own process", "Inspect, memory"
INSPECT_BOXED = f"Inspect with local sandbox, {BOXED_AT_ONCE} at once"
INSPECT_SAMPLES, INSPECT_EVERY = 400, 5


async def batch(client: AsyncSandboxClient, turn: int) -> float:
    """Return seconds of processor time per trial."""
    rows = [{"input": f"turn {turn} question {number}"} for number in range(TRIALS)]
    started = time.process_time()
    result = await client.run_batch({"model": "mock/echo", "dataset": rows}, run="new")
    if result.counted != TRIALS:
        raise AssertionError(f"{result.counted} of {TRIALS} trials count")
    return (time.process_time() - started) / TRIALS


async def memory(client: AsyncSandboxClient, trials: int) -> float:
    """Return the bytes by which the peak of memory grows with each trial of one batch."""
    await run_sync(_forget_peak)
    before = _peak()
    rows = [{"input": f"memory question {number}"} for number in range(trials)]
    result = await client.run_batch({"model": "mock/echo", "dataset": rows}, run="new")
    if result.counted != trials:
        raise Failed(f"{result.counted} of {trials} trials count")
    return (_peak() - before) / trials


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def boxed(client: AsyncSandboxClient, turn: int) -> float:
    """Return trials per second that each run one command in a fresh sandbox."""
    call = {"tool_calls": [{"name": "bash", "arguments": {"command": "echo one"}}]}
    config = {
        **{"model": "mock/script", "tools": ["bash"], "max_concurrency": BOXED_AT_ONCE},
        **{"parameters": {"extra_body": {"script": [call, "done"]}}},
        "dataset": [f"turn {turn} question {number}" for number in range(BOXED_TRIALS)],
    }
    started = time.perf_counter()
    result = await client.run_batch(config, run="new")
    if result.counted != BOXED_TRIALS:
        raise Failed(f"{result.counted} of {BOXED_TRIALS} trials count")
    return BOXED_TRIALS / (time.perf_counter() - started)


async def inspect(run: Run) -> float:
    """Return seconds of Inspect's processor time per sample; its memory is noted beside."""
    found = await run_sync(inspect_ai.slope, INSPECT_SAMPLES)
    run.add(INSPECT_MEMORY, found.memory)
    return found.cpu


async def inspect_boxed() -> float:
    """Return Inspect's samples per second with a sandbox each."""
    slope = await run_sync(
        lambda: inspect_ai.slope(BOXED_TRIALS, boxed=True, at_once=BOXED_AT_ONCE)
    )
    return slope.rate


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
    """Measure memory first, while the process is small, then the others in turn."""
    turns = itertools.count()
    async with AsyncSandboxClient(state_dir=run.state) as client:
        await batch(client, next(turns))  # what a first batch loads is no trial's
        many = MANY * run.count
        held = f"memory of one of {many:,} trials"
        await run.measured(Case(label=held, measure=lambda: memory(client, many)))
        cases = [
            Case(label=BATCH, measure=lambda: batch(client, next(turns))),
            Case(label=BARE, measure=bare),
            Case(label=BOXED, measure=lambda: boxed(client, next(turns))),
            Case(label=INSPECT, measure=lambda: inspect(run), every=INSPECT_EVERY),
            Case(label=INSPECT_BOXED, measure=inspect_boxed, every=INSPECT_EVERY),
        ]
        await run.alternate(cases, rounds=run.count)
    return [
        run.promise(BATCH, unit="ms", goal=GOAL, against=BARE),
        run.promise(BARE, unit="ms"),
        run.promise(INSPECT, unit="ms", against=BATCH),
        run.promise(held, unit="KiB", goal=MOST_MEMORY, against=INSPECT_MEMORY),
        run.promise(BOXED, unit="/s", against=INSPECT_BOXED, more=True),
    ]


if __name__ == "__main__":
    sys.exit(main("batch", __doc__, COUNT, body))

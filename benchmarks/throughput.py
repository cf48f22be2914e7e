"""Sandboxes per second, from nothing to deleted, with a numpy result: >= 500/s, 20 times bwrap's.

Blocks of sandboxes, at most 1, 4 or 16 at a time, each created, set up, asked for one numpy
statement, and deleted with its record and workspace. Each has a network namespace of its own, as
every sandbox has. Measured without a pool, and at 16 also with the pool that a client has by
default. The reference is bubblewrap with the same interpreter and numpy, as many at a time, in
blocks of a tenth of the size.

``--count`` is the number of sandboxes in a block.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import anyio
from anyio.to_thread import run_sync
from bench import references
from bench.measure import Case, Failed, Measure, Refused, Run, main
from bench.references import BWRAP
from bench.table import Promise
from bench.world import NO_POOL, cold, numpy_world

from sandbox_sdk import AsyncSandboxClient

AT_A_TIME = (1, 4, 16)
RATE, TIMES = 500, 20
COUNT = 200
ROUNDS = 5


async def block(one: Measure, number: int, at_a_time: int) -> float:
    """Return how many per second were done.

    Raises:
        Failed: One of them failed.
        Refused: This machine does not offer them.
    """
    limiter = anyio.CapacityLimiter(at_a_time)
    faults: list[Failed | Refused] = []

    async def limited() -> None:
        async with limiter:
            try:
                await one()
            except (Failed, Refused) as fault:
                faults.append(fault)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(limited)
    seconds = time.perf_counter() - began
    for fault in faults:
        if isinstance(fault, Refused):
            raise fault
        raise Failed(f"{len(faults)} of {number} failed: {fault}")
    return number / seconds


async def body(run: Run) -> list[Promise]:
    """Measure blocks of each kind in turn."""
    async with (
        AsyncSandboxClient(config=NO_POOL, state_dir=run.state) as client,
        AsyncSandboxClient(state_dir=run.state) as pooled,
    ):
        world = await numpy_world(client, run)
        ours = {f"sandboxes, {each} at a time": each for each in AT_A_TIME}
        theirs = {f"{BWRAP}, {each} at a time": each for each in AT_A_TIME}
        with_pool = f"sandboxes, {AT_A_TIME[-1]} at a time, default pool"
        bwrap = partial(run_sync, references.bubblewrap(world.site))
        fewer = -(-run.count // 10)
        cases = [
            *(
                Case(
                    label=label,
                    measure=partial(block, partial(cold, client, world.arguments), run.count, each),
                )
                for label, each in ours.items()
            ),
            Case(
                label=with_pool,
                measure=partial(
                    block, partial(cold, pooled, world.arguments), run.count, AT_A_TIME[-1]
                ),
            ),
            *(
                Case(label=label, measure=partial(block, bwrap, max(fewer, each), each))
                for label, each in theirs.items()
            ),
        ]
        await run.alternate(cases, rounds=ROUNDS)
    rows = [*zip(ours, theirs, strict=True), (with_pool, list(theirs)[-1])]
    return [
        run.promise(
            label,
            unit="/s",
            goal=None if label == next(iter(ours)) else RATE,
            against=against,
            times=TIMES,
            more=True,
        )
        for label, against in rows
    ]


if __name__ == "__main__":
    sys.exit(main("throughput", __doc__, COUNT, body))

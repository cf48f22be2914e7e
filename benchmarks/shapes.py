"""Time to the first result in the shapes of the public sandbox benchmarks; nothing is promised.

Sequential: one after the other. Staggered: one started every 50 ms. Burst: all at once. Each is
created, set up, asked for one numpy statement, and deleted; timed is creation to result, with the
pool that a client has by default. The public benchmarks do 100 of each and tell the median, p95,
p99 and how many succeeded. The reference is bubblewrap with the same interpreter and numpy.

``--count`` is the number of sandboxes in each shape.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import anyio
from anyio.to_thread import run_sync
from bench import references
from bench.measure import Case, Measure, Run, main
from bench.references import BWRAP
from bench.table import Promise
from bench.world import cold, numpy_world

from sandbox_sdk import AsyncSandboxClient

COUNT = 100
ROUNDS = 3
APART_SECONDS = 0.05
STATISTICS = ("p50", "p95", "p99")


async def sequential(run: Run, case: Case, number: int) -> None:
    """Start each when the one before is done."""
    for _ in range(number):
        await run.measured(case)


async def staggered(run: Run, case: Case, number: int) -> None:
    """Start one every 50 ms, whether or not those before are done."""
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(run.measured, case)
            await anyio.sleep(APART_SECONDS)


async def burst(run: Run, case: Case, number: int) -> None:
    """Start all at once."""
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(run.measured, case)


async def body(run: Run) -> list[Promise]:
    """Measure shape after shape, ours and the reference in turn."""
    shapes = {"sequential": sequential, "staggered": staggered, "burst": burst}
    async with AsyncSandboxClient(state_dir=run.state) as client:
        world = await numpy_world(client, run)
        threads = anyio.CapacityLimiter(run.count)
        kinds: dict[str, Measure] = {
            "sandbox": partial(cold, client, world.arguments),
            BWRAP: partial(run_sync, references.bubblewrap(world.site), limiter=threads),
        }
        for measure in kinds.values():
            await measure()
        for _ in range(ROUNDS):
            for shape, together in shapes.items():
                for kind, measure in kinds.items():
                    number = run.count if kind == "sandbox" else max(run.count // 4, 1)
                    if shape == "burst":
                        number = run.count
                    began = time.perf_counter()
                    await together(run, Case(label=f"{kind}, {shape}", measure=measure), number)
                    if shape == "burst":
                        run.add(f"{kind}, burst: all done", time.perf_counter() - began)
    return [
        *(
            run.promise(f"sandbox, {shape}", each, against=f"{BWRAP}, {shape}")
            for shape in shapes
            for each in STATISTICS
        ),
        run.promise("sandbox, burst: all done", against=f"{BWRAP}, burst: all done"),
    ]


if __name__ == "__main__":
    sys.exit(main("shapes", __doc__, COUNT, body))

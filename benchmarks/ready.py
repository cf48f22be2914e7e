"""From the pool to the first result: p50 <= 0.25 ms, p99 <= 1 ms.

A sandbox of the shape that is asked for stands ready. Timed are ``setup()`` and the first numpy
statement in the default context, and, as a figure of its own, the same with ``create_sandbox()``
before it. Between two measurements the pool is given the time to make the next one ready; one that
was not ready in time is measured all the same, and shows at the upper end.

In the same rounds: a bare fork of a Python that has numpy imported.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import anyio
from bench import references
from bench.measure import Case, Run, main
from bench.references import FORK, blocking
from bench.table import Promise
from bench.world import first_result, judged, numpy_world, pooled

from sandbox_sdk import AsyncSandboxClient

LEVELS = ("medium", "high")
P50, P99 = 0.25e-3, 1e-3
COUNT = 300
READY = 4
SETTLE_SECONDS = 0.05
"""A folder shows a ready sandbox from its start on; after so long it is proven too."""


async def from_the_pool(
    run: Run, client: AsyncSandboxClient, label: str, arguments: dict[str, Any]
) -> float:
    """Return the seconds from ``setup()`` to a result; note those with the creation before it."""
    with judged():
        began = time.perf_counter()
        sandbox = await client.create_sandbox("ready", **arguments)
        created = time.perf_counter()
        try:
            await sandbox.setup()
            await first_result(sandbox)
            ended = time.perf_counter()
        finally:
            await client.delete_sandbox(sandbox.id)
    run.add(label, ended - began)
    await _stocked(run)
    return ended - created


async def _stocked(run: Run) -> None:
    """Wait until as many sandboxes stand ready as the pool keeps, but not for ever."""
    folder = run.state / "ready"
    with anyio.move_on_after(2):
        while len(list(folder.iterdir())) < len(LEVELS):  # noqa: ASYNC110 - the pool tells no one
            await anyio.sleep(0.002)
    await anyio.sleep(SETTLE_SECONDS)


async def body(run: Run) -> list[Promise]:
    """Measure all cases in turn."""
    async with AsyncSandboxClient(config=pooled(READY), state_dir=run.state) as client:
        world = await numpy_world(client, run)
        labels = {level: f"from the pool, {level}: setup + statement" for level in LEVELS}
        whole = {level: f"from the pool, {level}: create + setup + statement" for level in LEVELS}
        with references.forks(world.site) as fork:
            ours = [
                Case(
                    label=labels[level],
                    measure=partial(
                        from_the_pool,
                        run,
                        client,
                        whole[level],
                        {**world.arguments, "security_level": level},
                    ),
                )
                for level in LEVELS
            ]
            await run.alternate([*ours, Case(label=FORK, measure=blocking(fork))], rounds=run.count)
    promises: list[Promise] = []
    for level in LEVELS:
        if refused := run.absent.get(labels[level]):
            run.absent[whole[level]] = refused
        promises += [
            run.promise(labels[level], goal=P50, against=FORK),
            run.promise(labels[level], "p99", goal=P99, against=FORK),
            run.promise(whole[level], against=FORK),
        ]
    return promises


if __name__ == "__main__":
    sys.exit(main("ready", __doc__, COUNT, body))

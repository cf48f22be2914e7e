"""A sandbox from nothing to a numpy result: p50 <= 3 ms, p99 <= 8 ms, 20 times bwrap's speed.

Through the public API, at ``medium`` and ``high``: ``create_sandbox()``, ``setup()`` with every
wall proven, and one numpy statement in the default context. None stands ready (``pool_size`` 0);
the template with numpy is built and its modules preloaded beforehand. The deletion is not timed.

In the same rounds: a bare fork of a Python that has numpy imported, which is the floor; bubblewrap
with this interpreter and the same numpy; the interpreter alone; and peers where installed.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import references
from bench.measure import Case, Run, main
from bench.references import BWRAP, FORK, PLAIN, blocking
from bench.table import Promise
from bench.world import NO_POOL, cold, numpy_world

from sandbox_sdk import AsyncSandboxClient

LEVELS = ("medium", "high")
P50, P99, TIMES = 3e-3, 8e-3, 20
COUNT = 300


async def body(run: Run) -> list[Promise]:
    """Measure all cases in turn."""
    async with AsyncSandboxClient(config=NO_POOL, state_dir=run.state) as client:
        world = await numpy_world(client, run)
        ours = [
            Case(
                label=f"cold, {level}",
                measure=partial(cold, client, {**world.arguments, "security_level": level}),
            )
            for level in LEVELS
        ]
        with references.forks(world.site) as fork, references.peers(run, world.site) as peers:
            beside = [
                Case(label=FORK, measure=blocking(fork)),
                Case(label=BWRAP, measure=blocking(references.bubblewrap(world.site)), every=3),
                Case(label=PLAIN, measure=blocking(references.plain(world.site)), every=3),
            ]
            await run.alternate([*ours, *beside, *peers], rounds=run.count)
    promises: list[Promise] = []
    for case in ours:
        promises += [
            run.promise(case.label, goal=P50, against=BWRAP, times=TIMES),
            run.promise(case.label, "p99", goal=P99, against=BWRAP),
        ]
    others = (FORK, PLAIN, *(peer.label for peer in peers))
    return [*promises, *(run.promise(other, against=BWRAP) for other in others)]


if __name__ == "__main__":
    sys.exit(main("cold", __doc__, COUNT, body))

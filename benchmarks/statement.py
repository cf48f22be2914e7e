"""A statement in a running sandbox: p50 <= 0.1 ms async, <= 0.2 ms blocking; a process <= 1.5 ms.

The statement runs in a kept context, through the async class on its loop and through the blocking
class in a thread. A new process is ``run_command(["true"])``; code in a fresh context is a new
process too, forked inside.

In the same rounds: a line to a plain Python over pipes and its answer, which is the floor of a
statement; ``true`` as a plain child process, and in bubblewrap.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from anyio.to_thread import run_sync
from bench import references
from bench.measure import Case, Failed, Run, main
from bench.references import blocking
from bench.table import Promise
from bench.world import NO_POOL, judged

from sandbox_sdk import AsyncSandboxClient, CodeResult, CommandResult, SandboxClient

ASYNC, BLOCKING, PROCESS = 0.1e-3, 0.2e-3, 1.5e-3
COUNT = 1000
REPEAT = 20

KEPT = "statement, kept context, async"
KEPT_BLOCKING = "statement, kept context, blocking"
COMMAND = "new process, async"
FRESH = "code, fresh context, async"
RESIDENT = "plain Python over pipes"
CHILD = "true, plain child"
BWRAP_TRUE = "bwrap + true"


async def timed(call: Callable[[], Awaitable[CodeResult | CommandResult]]) -> float:
    """Return the seconds of one call, which must end ``ok``."""
    with judged():
        began = time.perf_counter()
        result = await call()
        seconds = time.perf_counter() - began
    if not result.ok:
        raise Failed(str(result.ended))
    return seconds


class Blocking:
    """A sandbox of the blocking client. Used in a thread without a loop, as scripts use it."""

    def __init__(self, state: Path) -> None:
        self._client = SandboxClient(config=NO_POOL, state_dir=state)
        self._sandbox = self._client.create_sandbox("blocking")

    def statement(self) -> float:
        """Return the seconds of one statement."""
        with judged():
            began = time.perf_counter()
            result = self._sandbox.run_code("1", context="main")
            seconds = time.perf_counter() - began
        if not result.ok:
            raise Failed(str(result.ended))
        return seconds

    def close(self) -> None:
        """End it."""
        self._client.close()


async def body(run: Run) -> list[Promise]:
    """Measure all cases in turn, each several times in a row."""
    beside = await run_sync(Blocking, run.state)
    try:
        await _measure(run, beside)
    finally:
        await run_sync(beside.close)
    return [
        run.promise(KEPT, unit="us", goal=ASYNC, against=RESIDENT),
        run.promise(KEPT, "p99", unit="us", against=RESIDENT),
        run.promise(KEPT_BLOCKING, unit="us", goal=BLOCKING, against=RESIDENT),
        run.promise(KEPT_BLOCKING, "p99", unit="us", against=RESIDENT),
        run.promise(COMMAND, goal=PROCESS, against=BWRAP_TRUE),
        run.promise(FRESH, goal=PROCESS, against=BWRAP_TRUE),
        run.promise(CHILD, against=BWRAP_TRUE),
    ]


async def _measure(run: Run, beside: Blocking) -> None:
    async with AsyncSandboxClient(config=NO_POOL, state_dir=run.state) as client:
        ours = await client.create_sandbox("async")
        with references.resident() as resident:
            cases = (
                (KEPT, lambda: timed(lambda: ours.run_code("1", context="main"))),
                (KEPT_BLOCKING, lambda: run_sync(beside.statement)),
                (COMMAND, lambda: timed(lambda: ours.run_command(["true"]))),
                (FRESH, lambda: timed(lambda: ours.run_code("1"))),
                (RESIDENT, blocking(resident)),
                (CHILD, blocking(references.command(["true"], answer=""))),
                (BWRAP_TRUE, blocking(references.bubblewrap_true())),
            )
            await run.alternate(
                [Case(label=each, measure=call, repeat=REPEAT) for each, call in cases],
                rounds=-(-run.count // REPEAT),
            )


if __name__ == "__main__":
    sys.exit(main("statement", __doc__, COUNT, body))

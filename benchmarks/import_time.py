"""``import sandbox_sdk`` costs at most 0.06 s over bare Python.

Fresh interpreters in turn, on a warm cache. What the first use of a class costs, import included,
has no goal, and is shown so that the first figure hides nothing.
"""

from __future__ import annotations

import sys

from bench.measure import Case, Run, main
from bench.references import blocking, command
from bench.table import Promise

GOAL = 0.06
COUNT = 15
BARE, IMPORT, FIRST_USE = "python -c pass", "import sandbox_sdk", "the same, and first use"
PROGRAMS = {
    BARE: "pass",
    IMPORT: "import sandbox_sdk",
    FIRST_USE: "from sandbox_sdk import AsyncSandboxClient",
}


async def body(run: Run) -> list[Promise]:
    """Measure all programs in turn."""
    cases = [
        Case(label=label, measure=blocking(command([sys.executable, "-c", program], answer="")))
        for label, program in PROGRAMS.items()
    ]
    await run.alternate(cases, rounds=run.count)
    return [
        run.over(IMPORT, BARE, unit="ms", goal=GOAL),
        run.over(FIRST_USE, BARE, unit="ms"),
    ]


if __name__ == "__main__":
    sys.exit(main("import_time", __doc__, COUNT, body))

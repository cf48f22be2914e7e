"""How many sandboxes to keep ready: our rule beside others, in a simulation of half an hour.

Nothing is measured but rules: requests come at chance or in bursts, a start takes a second, four
start at once and 32 may be there; work is log-normal with a median of 2.7 s. The others are as
their documentation tells.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import pools
from bench.measure import Run, main
from bench.table import Promise

COUNT = 4
SECONDS = 1800.0
RULES: dict[str, Callable[[], pools.Rule]] = {
    "ours": pools.Ours,
    "none ready": lambda: pools.Fixed(0),
    "always 4 ready": lambda: pools.Fixed(4),
    "by utilisation (HPA)": pools.Utilisation,
    "by concurrency (Knative)": pools.Concurrency,
}
LOADS = {"steady": pools.steady, "bursts": pools.bursts}


async def body(run: Run) -> list[Promise]:
    """Simulate every rule under both loads, with as many seeds as asked for."""
    for load, arrivals in LOADS.items():
        for name, rule in RULES.items():
            for seed in range(run.count):
                found = pools.simulate(rule(), arrivals(seed, SECONDS), seed, SECONDS)
                run.add(f"{load}, {name}: hot", found.hot)
                run.add(f"{load}, {name}: 95th percentile of waits", found.wait_p95)
                run.add(f"{load}, {name}: sandbox-seconds idle", found.idle_seconds)
                run.add(f"{load}, {name}: discarded", found.discarded)
    promises: list[Promise] = []
    for load in LOADS:
        for name in RULES:
            series = f"{load}, {name}"
            # Beside the rule by utilisation: as many find one ready, for less that stands idle.
            against = f"{load}, by utilisation (HPA)" if name == "ours" else ""
            promises += [
                run.promise(
                    f"{series}: hot",
                    unit="",
                    against=f"{against}: hot" if against else "",
                    more=True,
                ),
                run.promise(f"{series}: 95th percentile of waits", unit="s"),
                run.promise(
                    f"{series}: sandbox-seconds idle",
                    unit="",
                    against=f"{against}: sandbox-seconds idle" if against else "",
                ),
                run.promise(f"{series}: discarded", unit=""),
            ]
    return promises


if __name__ == "__main__":
    sys.exit(main("simulation", __doc__, COUNT, body))

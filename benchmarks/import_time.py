"""``import sandbox_sdk`` costs at most 0.06 s over bare Python.

Interleaved runs on a warm cache; medians of one run. The second figure is what the first use of
a class costs, import included: it has no goal, and is shown so that the first hides nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

GOAL = 0.06
RUNS = 15
BARE = "pass"
IMPORT = "import sandbox_sdk"
FIRST_USE = "from sandbox_sdk import AsyncSandboxClient"


def seconds(program: str) -> float:
    """Return how long a fresh interpreter takes to run ``program``."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - started


def main() -> int:
    """Print the medians; return 1 if the goal is missed."""
    programs = (BARE, IMPORT, FIRST_USE)
    for program in programs:  # bytecode and file cache
        seconds(program)
    rounds = [[seconds(program) for program in programs] for _ in range(RUNS)]
    bare, ours, first = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{'':30} {'seconds':>8} {'over bare':>10}")
    print(f"{'python -c pass':30} {bare:8.3f}")
    print(f"{'import sandbox_sdk':30} {ours:8.3f} {ours - bare:+10.3f}   goal {GOAL:+.3f}")
    print(f"{'the same, and first use':30} {first:8.3f} {first - bare:+10.3f}   no goal")
    met = ours - bare <= GOAL
    print("met" if met else "missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

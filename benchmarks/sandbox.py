"""Times a sandbox's start, calls and end through the public API, beside bare bubblewrap.

Every round does each thing once, so that all see the same machine; medians are printed. The
reference is ``bwrap`` starting the same interpreter for the same statement, with no agent, no
limits and no proof of its walls.

    python benchmarks/sandbox.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.isolation.runtimes.bubblewrap import find

ROUNDS = 30
REFERENCE = "bare bwrap + python -c 1"


async def timed(
    times: dict[str, list[float]], name: str, call: Callable[[], Awaitable[object]]
) -> None:
    """Add the seconds that one call took."""
    began = time.perf_counter()
    await call()
    times.setdefault(name, []).append(time.perf_counter() - began)


def reference() -> None:
    """Start Python in bare bubblewrap, for one statement."""
    options = ["--unshare-all", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("lib", "lib64", "bin"):
        options += ["--symlink", f"usr/{folder}", f"/{folder}"]
    subprocess.run([str(find()), *options, "/usr/bin/python3", "-c", "1"], check=True)


async def main(rounds: int) -> None:
    """Print the table."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSandboxClient(state_dir=f"{folder}/state") as client:
            warm = await client.create_sandbox("warm")
            await warm.run_code("1", context="kept")
            steady: dict[str, Callable[[], Awaitable[object]]] = {
                "command": partial(warm.run_command, ["true"]),
                "code, fresh context": partial(warm.run_code, "1"),
                "code, kept context": partial(warm.run_code, "1", context="kept"),
                "file written": partial(warm.files.write, "f", b"x"),
                REFERENCE: partial(anyio.to_thread.run_sync, reference),
            }
            for _ in range(rounds):
                sandbox = await client.create_sandbox("timed")
                await timed(times, "set up, walls proven", sandbox.setup)
                first = partial(sandbox.run_code, "1")
                await timed(times, "first code, fresh context", first)
                await timed(times, "clean up, nothing left", sandbox.cleanup)
                for name, call in steady.items():
                    await timed(times, name, call)
    base = statistics.median(times[REFERENCE])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:28} p50 {middle * 1e3:8.2f} ms   {middle / base:6.2f} x bare bwrap")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)

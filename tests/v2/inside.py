"""What the machine runs as root: each check of control groups, version 2, by a kernel of its own.

Writes one JSON object per check, its name and, if it failed, why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind

MIB = 1024 * 1024
LIMITS = cgroups.GroupLimits(memory_bytes=48 * MIB, cpu=0.2, pids=8)
USER = 1000


def hierarchy() -> cgroups.Hierarchy:
    """Return where groups are made; fail where there is no such place."""
    found, reason = cgroups.find()
    assert found is not None, reason
    return found


@contextmanager
def group(name: str) -> Generator[cgroups.Group]:
    """Make a group that is gone afterwards."""
    made = hierarchy().create(name, LIMITS)
    try:
        yield made
    finally:
        if not made.remove():
            made.kill()
            until(made.remove)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def inside(made: cgroups.Group, do: Callable[[], None]) -> int:
    """Do something in a child within the group; return its pid."""
    child = os.fork()
    if child == 0:
        try:
            made.join()
            do()
        finally:
            os._exit(0)
    return child


def status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def limits_are_the_kernels() -> None:
    """What was asked for is what the kernel reads back."""
    with group("limits") as made:
        assert made.version == 2
        folder = Path(made.folders["memory"])
        read = {
            name: (folder / name).read_text().strip()
            for name in ("memory.max", "cpu.max", "pids.max", "memory.oom.group")
        }
    assert read == {
        "memory.max": str(LIMITS.memory_bytes),
        "cpu.max": "20000 100000",
        "pids.max": "8",
        "memory.oom.group": "0",
    }, read


def memory_kills_one_process() -> None:
    """The kernel kills the one that takes too much, counts it, and keeps the peak."""
    with group("memory") as made:
        quiet = inside(made, signal.pause)
        greedy = inside(made, lambda: bytearray(b"x" * (100 * MIB)).clear())
        assert status(greedy) == -signal.SIGKILL
        assert made.counters().oom_kills == 1
        assert made.pids() == [quiet]
        used = made.usage()
        assert used.memory_peak_bytes is None or used.memory_peak_bytes > 40 * MIB, used
        assert used.memory_stall_seconds is not None or made.version == 1
        made.kill()
        assert status(quiet) == -signal.SIGKILL


def forks_are_refused_and_counted() -> None:
    """Past the limit a fork fails, and the group counts it."""

    def bomb() -> None:
        for _ in range(LIMITS.pids + 3):
            try:
                if os.fork() == 0:
                    signal.pause()
            except BlockingIOError:
                continue
        signal.pause()

    with group("pids") as made:
        child = inside(made, bomb)
        until(lambda: made.counters().pids_refused >= 3)
        assert made.usage().pids == LIMITS.pids
        made.kill()
        assert status(child) == -signal.SIGKILL
        until(lambda: not made.pids())


def kill_outruns_forks() -> None:
    """One write ends processes that fork as fast as they can."""

    def breed() -> None:
        while True:
            try:
                os.fork()
            except BlockingIOError:
                os.sched_yield()

    with group("breeders") as made:
        child = inside(made, breed)
        until(lambda: made.counters().pids_refused)
        made.kill()
        assert status(child) == -signal.SIGKILL
        until(made.remove)  # by the one call of kill


def quota_holds() -> None:
    """Two spinning processes together get a fifth of one processor."""

    def spin() -> None:
        while True:
            pass

    with group("quota") as made:
        children = [inside(made, spin) for _ in range(2)]
        until(lambda: len(made.pids()) == 2)
        began, before = time.monotonic(), made.cpu_seconds() or 0
        time.sleep(3)
        took, used = time.monotonic() - began, (made.cpu_seconds() or 0) - before
        made.kill()
        for child in children:
            status(child)
    assert 0.05 < used / took < 0.3, (used, took)


async def sandbox_has_true_limits(state: Path) -> None:
    """A sandbox at ``high``: every required limit by the kernel, and verdicts from its counters."""
    async with client(state) as opened:
        sandbox = await opened.create_sandbox(
            "v2", resources={"memory": "64MiB", "pids": 10, "cpu": 0.5}
        )
        async with sandbox:
            await verdicts_are_right(sandbox)
    assert hierarchy().leftovers() == []


async def verdicts_are_right(sandbox: AsyncSandbox) -> None:
    held = {limit.name: limit.held_by for limit in sandbox.limits}
    assert {held[name] for name in ("memory", "cpu", "pids")} == {"cgroup-v2"}, held
    assert sandbox.isolation is not None
    assert all(wall.in_force for wall in sandbox.isolation.walls)
    assert sandbox.isolation.waived == ()
    greedy = await sandbox.run_command(["python", "-c", "x = b'x' * 200_000_000"])
    assert greedy.ended.kind is EndKind.OOM, greedy
    bomb = "import os\nwhile True:\n    if os.fork() == 0: os.read(0, 1)"
    breeding = await sandbox.run_command(["python", "-c", bomb])
    assert breeding.ended.kind is EndKind.PIDS, breeding
    used = await sandbox.usage()
    assert used.source == "cgroup-v2", used
    assert (used.cpu_seconds or 0) > 0
    alive = await sandbox.run_command("echo alive")
    assert alive.stdout == "alive\n", alive


async def undelegated_is_refused(state: Path) -> None:
    """A plain user without a group: ``high`` is refused, and ``medium`` says what holds instead."""
    async with client(state) as opened:
        sandbox = await opened.create_sandbox("v2")
        refusal = await refused(sandbox)
        assert {wall.name for wall in refusal.walls} == {"memory", "cpu", "pids"}, refusal
        assert "is not delegated to this user" in str(refusal), refusal
        assert "To mend it: " in str(refusal), refusal
        async with await opened.create_sandbox("v2", security_level="medium") as sandbox:
            held = {limit.name: limit.held_by for limit in sandbox.limits}
            assert (held["memory"], held["cpu"], held["pids"]) == ("watchdog", "none", "rlimit")
            alive = await sandbox.run_command("echo alive")
            assert alive.stdout == "alive\n", alive


async def refused(sandbox: AsyncSandbox) -> IsolationError:
    try:
        await sandbox.setup()
    except IsolationError as error:
        return error
    raise AssertionError("high was given without a control group")


def client(state: Path) -> AsyncSandboxClient:
    return AsyncSandboxClient(
        state_dir=state, config={"runtime": "zygote", "security": {"level": "high"}}
    )


def as_user(check: Callable[[Path], Awaitable[None]], *, delegated: bool) -> None:
    """Do a check as a plain user, in a group that is or is not delegated to it."""
    own = Path("/sys/fs/cgroup/user")
    own.mkdir()
    state = Path(tempfile.mkdtemp())
    os.chown(state, USER, USER)
    if delegated:
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(own / name, USER, USER)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            (own / "cgroup.procs").write_text("0")
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            os.environ["HOME"] = str(state)
            anyio.run(check, state)
            code = 0
        except BaseException:  # noqa: BLE001 - the parent is told by the exit code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    try:
        assert status(child) == 0, "see above"
    finally:
        for folder, _, _ in os.walk(own, topdown=False):
            os.rmdir(folder)
        shutil.rmtree(state)


def as_root(check: Callable[[Path], Awaitable[None]]) -> None:
    """Do a check as root."""
    with tempfile.TemporaryDirectory() as state:
        anyio.run(check, Path(state))


OF_ANY_VERSION: dict[str, Callable[[], None]] = {
    "memory_kills_one_process": memory_kills_one_process,
    "forks_are_refused_and_counted": forks_are_refused_and_counted,
    "kill_outruns_forks": kill_outruns_forks,
    "quota_holds": quota_holds,
}
"""What holds in version 1 too, where a version 2 tree stands beside it."""

CHECKS: dict[str, Callable[[], None]] = {
    "limits_are_the_kernels": limits_are_the_kernels,
    **OF_ANY_VERSION,
    "high_as_root": partial(as_root, sandbox_has_true_limits),
    "high_as_a_user_with_a_delegated_group": partial(
        as_user, sandbox_has_true_limits, delegated=True
    ),
    "high_as_a_user_without": partial(as_user, undelegated_is_refused, delegated=False),
}


def main() -> None:
    for name, check in CHECKS.items():
        began, why = time.monotonic(), ""
        try:
            check()
        except Exception:  # noqa: BLE001 - whatever it is, the next check is done
            why = traceback.format_exc()
        told = {"check": name, "failed": why, "seconds": round(time.monotonic() - began, 1)}
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

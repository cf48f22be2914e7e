"""What tests look at on the host, from outside of every sandbox."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio

from sandbox_sdk.isolation.walls import cgroups

GROUPS = cgroups.find()[0] is not None
"""Whether this user may make control groups, without which `high` is refused, as is tested."""

ROOT = os.geteuid() == 0
"""Whether the tests run as root: then sandboxes are dropped to a uid of their own."""


def processes() -> Iterator[int]:
    """Yield the process ids that the host shows now."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def status(pid: int) -> dict[str, str]:
    """Return ``/proc/<pid>/status``, empty if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in fields}


def command_line(pid: int) -> str:
    """Return a process's arguments, joined by spaces; empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.replace(b"\0", b" ").decode("utf-8", "replace")


def running(marker: str) -> list[int]:
    """Return the processes, zombies left out, whose arguments hold ``marker``."""
    return [pid for pid in processes() if marker in command_line(pid)]


def below(ancestor: int) -> list[int]:
    """Return all processes below one, zombies included."""
    parents = {pid: int(status(pid).get("PPid", 0)) for pid in processes()}
    found: list[int] = []
    todo = [ancestor]
    while todo:
        parent = todo.pop()
        children = [pid for pid, its in parents.items() if its == parent]
        found += children
        todo += children
    return found


def inits(ancestor: int) -> list[int]:
    """Return the agent of every sandbox below a process.

    It is PID 1 of its namespace, or at `low`, where there is none, what a zygote cloned.
    """
    return [pid for pid in below(ancestor) if inner_pid(pid) == 1 or _is_plain_clone(pid)]


def inner_pid(pid: int) -> int:
    """Return the process id that a process has in its own namespace, 0 if it is gone."""
    return int(status(pid).get("NSpid", "0").split()[-1])


def _is_plain_clone(pid: int) -> bool:
    """Whether a process was cloned by a zygote of `low`; all that it forks has the same words."""
    zygote = int(status(pid).get("PPid", 0))
    owner = int(status(zygote).get("PPid", 0))
    return " plain " in command_line(zygote) and " plain " not in command_line(owner)


def uid(pid: int) -> int:
    """Return a process's real uid as the host sees it."""
    return int(status(pid)["Uid"].split()[0])


def resident_bytes(field: str = "VmRSS") -> int:
    """Return this process's memory: ``VmRSS`` now, ``VmHWM`` at most so far."""
    return int(status(os.getpid())[field].split()[0]) * 1024


def forget_peak() -> None:
    """Let ``VmHWM`` begin again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def free_bytes(folder: Path) -> int:
    """Return what is free on a folder's disk."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


async def soon(true: Callable[[], object], *, seconds: float = 5.0) -> bool:
    """Wait until a condition holds; return whether it did within the time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        await anyio.sleep(0.01)
    return True


def workspace_with(name: str, state: Path) -> Path:
    """Return the workspace that holds a file of this name, as the host reaches it.

    One in memory has a folder too, to which it is saved at its end; only a descriptor leads to
    what is in use.
    """
    kept = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    places = [*kept, *state.glob("sandboxes/*/workspace")]
    (found,) = [place for place in places if (place / name).exists()]
    return found


def told(text: str) -> dict[str, str]:
    """Return what an attack program told in its last line."""
    lines = text.strip().splitlines()
    answer: dict[str, str] = json.loads(lines[-1])
    return answer

"""What the host sees of the processes below this one."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path


def below(ancestor: int) -> list[int]:
    """Return all processes below one, zombies included."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (above := parent(int(name))):
            children.setdefault(above, []).append(int(name))
    found: list[int] = []
    todo = [ancestor]
    while todo:
        mine = children.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def marked(marker: str, pids: Iterable[int]) -> list[int]:
    """Return those of the processes whose arguments hold a marker; zombies have none."""
    return [pid for pid in pids if marker.encode() in _read(pid, "cmdline")]


def proportional_bytes(pid: int) -> int | None:
    """Return a process's share of memory (PSS), ``None`` where it may not be known.

    The agent of a sandbox cannot be looked into but by root.
    """
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def open_files(pid: int) -> int:
    """Return how many descriptors a process of ours has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Watched:
    """Processes whose end is awaited. A zombie has ended."""

    def __init__(self, pids: Collection[int]) -> None:
        """Watch those of the processes that are still there."""
        self._descriptors: list[int] = []
        for pid in pids:
            with suppress(ProcessLookupError):
                self._descriptors.append(os.pidfd_open(pid))

    def __len__(self) -> int:
        return len(self._descriptors)

    def gone(self, seconds: float) -> bool:
        """Wait until all have ended; return whether they did within the time."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for descriptor in self._descriptors:
            poll.register(descriptor, select.POLLIN)
        left = len(self._descriptors)
        while left and (rest := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(rest * 1000):
                poll.unregister(descriptor)
                left -= 1
        return not left

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def parent(pid: int) -> int:
    """Return a process's parent, 0 if it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""

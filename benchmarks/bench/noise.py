"""How busy the machine was with other work while something was measured."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

QUIET = 0.05
"""A measurement with a larger share of foreign CPU time is marked as noisy."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Noise:
    """Watches the machine from its making until ``told()``.

    CPU time counts as foreign if it is neither this process's nor that of a process below it that
    was waited for. What ended without being waited for counts as foreign too, so that the share is
    never told too small.
    """

    def __init__(self) -> None:
        self._began_at = time.time()
        self._began = time.monotonic()
        self._load = os.getloadavg()[0]
        self._busy, self._all = _machine_seconds()
        self._own = _own_seconds()

    def told(self) -> dict[str, Any]:
        """Return what was found; call it when all that was started has been waited for."""
        busy, whole = _machine_seconds()
        busy, whole = busy - self._busy, max(whole - self._all, 1 / _TICKS_PER_SECOND)
        own = _own_seconds() - self._own
        return {
            "started_at": self._began_at,
            "seconds": time.monotonic() - self._began,
            "load_before": self._load,
            "load_after": os.getloadavg()[0],
            "own_cpu_seconds": own,
            "own_cpu_share": min(own / whole, 1.0),
            "foreign_cpu_share": min(max((busy - own) / whole, 0.0), 1.0),
        }


def machine(folder: Path) -> dict[str, Any]:
    """Return what the figures depend on besides the code.

    Args:
        folder: Lies on the file system whose kind is told: records are written to it.
    """
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "memory_bytes": int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "file_system": _file_system(folder),
    }


def described(found: dict[str, Any]) -> str:
    """Return one line on how quiet the machine was."""
    foreign = found["foreign_cpu_share"]
    verdict = "" if foreign <= QUIET else "; NOISY: do not quote these figures"
    return (
        f"load {found['load_before']:.1f} -> {found['load_after']:.1f}, CPU of other programs "
        f"{foreign:.0%}, own {found['own_cpu_share']:.0%}, {found['seconds']:.0f} s, "
        f"Python {platform.python_version()}{verdict}"
    )


def available_bytes() -> int:
    """Return the memory that the kernel can still give."""
    return int(_field("/proc/meminfo", "MemAvailable").split()[0]) * 1024


def _machine_seconds() -> tuple[float, float]:
    """Return the busy, and all, CPU seconds of the machine since it started."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle, and idle while a disk works
    return (sum(ticks) - idle) / _TICKS_PER_SECOND, sum(ticks) / _TICKS_PER_SECOND


def _own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0"


def _file_system(folder: Path) -> str:
    """Return the kind of the mount that a folder lies on: the longest mount point above it."""
    found, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if folder.resolve().is_relative_to(point) and len(point) >= len(found):
            found, kind = point, right.split()[0]
    return kind

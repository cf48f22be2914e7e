"""Reads how much memory this machine, and the control groups above its sandboxes, have left."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sandbox_sdk.isolation.walls import cgroup_files as files
from sandbox_sdk.isolation.walls.cgroups import ROOT, Hierarchy
from sandbox_sdk.policies.host import HostState

_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_V2 = ("memory.max", "memory.current")


def read_host(hierarchy: Hierarchy | None) -> HostState:
    """Return what is left now, by the tightest of the host and every group above our sandboxes.

    Args:
        hierarchy: Where the sandboxes' groups are made; ``None`` is nowhere.
    """
    memory = _meminfo()
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    pressure = _pressure("/proc/pressure/memory")
    for folder in _above(hierarchy):
        limit, used = _limit(folder, hierarchy.version if hierarchy else 2)
        if limit is not None:
            total, available = min(total, limit), min(available, max(0, limit - used))
        inside = _pressure(f"{folder}/memory.pressure")
        if inside is not None:
            pressure = max(pressure or 0.0, inside)
    return HostState(
        memory_bytes=total,
        available_bytes=available,
        memory_pressure=pressure,
        load=os.getloadavg()[0],
        processors=len(os.sched_getaffinity(0)),
    )


def _meminfo() -> dict[str, int]:
    """Name -> bytes."""
    found: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith("kB"):
            found[name] = int(value.split()[0]) * 1024
    return found


def _above(hierarchy: Hierarchy | None) -> list[str]:
    """The folder of our groups and all above it but the root, whose use is the host's."""
    if hierarchy is None:
        return []
    folder = hierarchy.folders["memory"]
    root = ROOT if hierarchy.version == 2 else os.path.dirname(folder)
    found = [folder]
    while (folder := os.path.dirname(folder)) != root and folder.startswith(root + os.sep):
        found.append(folder)
    return found


def _limit(folder: str, version: int) -> tuple[int | None, int]:
    """A group's limit, ``None`` where it has none, and what it uses but could not give back."""
    most, now = _V2 if version == 2 else _V1
    try:
        said, used = files.read(f"{folder}/{most}").strip(), int(files.read(f"{folder}/{now}"))
        kept = files.fields(f"{folder}/memory.stat")
    except OSError:  # a group of somebody else's that goes, or has no memory controller
        return None, 0
    name = "inactive_file" if version == 2 else "total_inactive_file"
    return (None if said == "max" else int(said)), used - kept.get(name, 0)


def _pressure(path: str) -> float | None:
    """Percent of ten seconds that something waited; ``None`` where the kernel keeps none."""
    text = ""
    with suppress(OSError):  # no such file, or the kernel was started without pressure
        text = files.read(path)
    _, found, after = text.partition("some avg10=")
    return float(after.split()[0]) if found else None

"""Which part of this host holds each limit of a sandbox, said as it is."""

from __future__ import annotations

from sandbox_sdk.isolation.walls.cgroups import Hierarchy
from sandbox_sdk.values import Limit, SandboxSpec

WATCH_SECONDS = 0.25
"""How often the watchdogs look."""


def held(spec: SandboxSpec, hierarchy: Hierarchy | None, no_group: str) -> tuple[Limit, ...]:
    """Return every limit with what holds it.

    Args:
        spec: The sandbox.
        hierarchy: Where control groups can be made, or ``None``.
        no_group: Why there is none.
    """
    resources = spec.resources
    group = f"cgroup-v{hierarchy.version}" if hierarchy else ""
    looks = f"looked at every {WATCH_SECONDS:g} s"
    return (
        Limit(
            name="memory",
            value=resources.memory_bytes,
            held_by=group or "watchdog",
            note=""
            if group
            else f"{looks}; each process also by RLIMIT_DATA; shared memory and buffers that no "
            f"process has mapped are not counted ({no_group})",
        ),
        Limit(
            name="cpu",
            value=resources.cpu,
            held_by=group or "none",
            note=""
            if group
            else f"only an affinity mask, which code inside may widen ({no_group})",
        ),
        Limit(name="pids", value=resources.pids, held_by=group or "rlimit"),
        Limit(
            name="disk",
            value=resources.disk_bytes,
            held_by="watchdog",
            note=f"the workspace is a host folder; {looks} or, where that takes long, less often, "
            "so a fast writer overshoots it; files that are deleted but still open are not counted",
        ),
        Limit(name="disk_files", value=resources.disk_files, held_by="watchdog", note=f"{looks}"),
        Limit(
            name="tmp",
            value=resources.tmp_bytes,
            held_by="mount",
            note="the number of files in it is bounded by memory only",
        ),
        Limit(name="file_size", value=resources.file_size_bytes, held_by="rlimit"),
        Limit(name="open_files", value=resources.open_files, held_by="rlimit"),
        Limit(name="output", value=resources.output_bytes, held_by="host"),
        Limit(name="timeout", value=spec.timeout, held_by="host-clock"),
        Limit(name="idle_timeout", value=spec.idle_timeout, held_by="host-clock"),
    )

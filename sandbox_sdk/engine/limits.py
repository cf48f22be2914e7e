"""Which part of this host holds each limit of a sandbox, said as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sandbox_sdk.engine.plan import counts_processes
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.isolation import remedies
from sandbox_sdk.isolation.walls.cgroups import Hierarchy
from sandbox_sdk.policies import LEVELS, Policy
from sandbox_sdk.values import Limit, SandboxSpec, Wall

WATCH_SECONDS = 0.25
"""How often the watchdogs look."""

_BY_KERNEL = ("cgroup-v2", "cgroup-v1", "mount")
"""What holds a limit for all processes together, and cannot be outrun."""

_MOUNT_FIX = "use a runtime that mounts the workspace with a size"


def held(
    spec: SandboxSpec, hierarchy: Hierarchy | None, no_group: str, *, in_memory: bool
) -> tuple[Limit, ...]:
    """Return every limit with what holds it.

    Args:
        spec: The sandbox.
        hierarchy: Where control groups can be made, or ``None``.
        no_group: Why there is none.
        in_memory: Whether the workspace is a file system of its own, in memory.
    """
    resources = spec.resources
    group = f"cgroup-v{hierarchy.version}" if hierarchy else ""
    looks = f"looked at every {WATCH_SECONDS:g} s"
    rules = LEVELS[spec.security_level]
    counted = counts_processes(rules)
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
        Limit(
            name="pids",
            value=resources.pids,
            held_by=group or ("rlimit" if counted else "watchdog"),
            note="" if group or counted else f"{looks}: RLIMIT_NPROC would count all of the user's",
        ),
        Limit(
            name="disk",
            value=resources.disk_bytes,
            held_by="mount" if in_memory else "watchdog",
            note="the workspace lies in memory, which counts as the sandbox's"
            if in_memory
            else f"the workspace is a host folder; {looks} or, where that takes long, less often, "
            "so a fast writer overshoots it; files that are deleted but still open are not counted",
        ),
        Limit(
            name="disk_files",
            value=resources.disk_files,
            held_by="mount" if in_memory else "watchdog",
            note="" if in_memory else looks,
        ),
        Limit(
            name="tmp",
            value=resources.tmp_bytes,
            held_by="mount" if rules.namespaces else "watchdog",
            note="the number of files in it is bounded by memory only"
            if rules.namespaces
            else f"a host folder; {looks}; there is no /dev/shm",
        ),
        Limit(name="file_size", value=resources.file_size_bytes, held_by="rlimit"),
        Limit(name="open_files", value=resources.open_files, held_by="rlimit"),
        Limit(name="output", value=resources.output_bytes, held_by="host"),
        Limit(name="timeout", value=spec.timeout, held_by="host-clock"),
        Limit(name="idle_timeout", value=spec.idle_timeout, held_by="host-clock"),
    )


def require(policy: Policy, limits: Iterable[Limit], waive: Collection[str]) -> tuple[str, ...]:
    """Check that the kernel holds every limit that the level requires of it.

    Args:
        policy: The level's rules.
        limits: The sandbox's limits, as ``held`` returned them.
        waive: Limits that something weaker may hold; what the policy does not let waive is not.

    Returns:
        The required limits that the kernel does not hold, all of them waived.

    Raises:
        IsolationError: One is not held, and not waived; the message names each, with what holds it
            instead and the fix.
    """
    held = {limit.name: limit for limit in limits}
    weak = [held[name] for name in policy.required_limits if held[name].held_by not in _BY_KERNEL]
    allowed = set(waive).intersection(policy.waivable)
    missing = tuple(_missing(limit) for limit in weak if limit.name not in allowed)
    if missing:
        said = "; ".join(f"{wall.name}: {wall.detail}" for wall in missing)
        fixes = "; ".join(dict.fromkeys(wall.fix for wall in missing))
        raise IsolationError(
            f'security level "{policy.level}" is refused: the kernel does not hold these limits '
            f"here: {said}. To mend it: {fixes}. To go without: "
            f"waive={tuple(wall.name for wall in missing)}",
            level=policy.level,
            walls=missing,
        )
    return tuple(limit.name for limit in weak)


def _missing(limit: Limit) -> Wall:
    by = "held by nothing" if limit.held_by == "none" else f"held by {limit.held_by}"
    return Wall(
        name=limit.name,
        in_force=False,
        detail=f"{by}: {limit.note}" if limit.note else by,
        fix=_MOUNT_FIX if limit.name == "disk" else remedies.group_fix(),
    )

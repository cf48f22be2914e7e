"""What holds for a running sandbox: its walls, its limits, its use."""

from __future__ import annotations

import attrs

from sandbox_sdk.values.sandbox import SecurityLevel


@attrs.frozen(kw_only=True)
class Wall:
    """One wall of isolation, as found on this host or in force in a sandbox.

    Attributes:
        name: The kernel's word, for example ``seccomp`` or ``pid_namespace``.
        in_force: Whether it stands.
        detail: How that was found out, or the reason it does not stand.
        fix: What makes it stand, where it does not.
    """

    name: str
    in_force: bool
    detail: str = ""
    fix: str = ""


@attrs.frozen(kw_only=True)
class Isolation:
    """What is really in force in a running sandbox, proven from inside at set-up.

    Attributes:
        level: The security level, all of whose promises hold but those that were waived.
        runtime: What made the sandbox, for example ``bubblewrap``.
        walls: Every wall, with how it was proven; a waived one that is missing is not in force.
        waived: Walls and limits of the level that are missing here, by name, as the caller allowed.
    """

    level: SecurityLevel
    runtime: str
    walls: tuple[Wall, ...] = ()
    waived: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Limit:
    """One limit and what holds it.

    Attributes:
        name: ``memory``, ``cpu``, ``pids``, ``disk`` and so on.
        value: Bytes, seconds, cores or a count; ``None`` is no limit.
        held_by: ``cgroup-v2``, ``cgroup-v1``, ``rlimit``, ``watchdog``, ``mount``,
            ``host-clock``, or ``none`` where nothing on this host can hold it.
        note: What it does not cover, for example how far a watchdog may be overshot.
    """

    name: str
    value: float | None
    held_by: str
    note: str = ""


@attrs.frozen(kw_only=True)
class Usage:
    """What one sandbox uses now, or used in all. A figure that cannot be had is ``None``, never 0.

    Attributes:
        sandbox_id: The sandbox.
        cpu_seconds: CPU time of all its processes since it started.
        memory_bytes: Memory of all its processes.
        memory_peak_bytes: The most it ever was, or that was seen where the kernel keeps none.
        memory_stall_seconds: How long some process waited for memory, where the kernel keeps it: a
            sandbox near its limit is slow before it is killed.
        pids: Processes and threads.
        source: ``cgroup-v2``, ``cgroup-v1``, ``proc-sum`` or, after its end, ``rusage``.
        memory_peak_source: Where the peak is from: as ``source``, or ``sampled``, which misses
            what came and went between two looks.
        final: Whether it has ended and the figures are its totals, as the kernel counted them.
        reason: Why a figure is missing.
    """

    sandbox_id: str
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_stall_seconds: float | None = None
    pids: int | None = None
    source: str = ""
    memory_peak_source: str = ""
    final: bool = False
    reason: str = ""

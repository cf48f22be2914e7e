"""What a clone of the zygote does to itself where no namespace can be made: level ``low``."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

from sandbox_sdk.isolation.walls import (
    capabilities,
    cgroups,
    kernel,
    landlock,
    rlimits,
    seccomp,
)

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")
"""What may be used of ``/dev``; each gives a program something of its own, or nothing."""

_FIRST_TO_GO = b"1000"


class Walls(NamedTuple):
    """What is the same for every sandbox of a zygote.

    Attributes:
        seccomp: The compiled filter.
        readable: What may be read and executed.
        devices: What may be used of ``/dev``.
        passage: As root, the group that may pass through the state folder to a workspace; else 0.
    """

    seccomp: bytes
    readable: tuple[str, ...]
    devices: tuple[str, ...]
    passage: int


class Limits(NamedTuple):
    """What is this sandbox's own.

    Attributes:
        zygote: The process that must live.
        uid: As root, its uid and gid; else 0.
        gate: Of its control group, or of none.
        writable: Its folders; the first is where it begins.
        affinity: Cores it may run on.
        rlimits: Of the agent itself.
    """

    zygote: int
    uid: int
    gate: cgroups.Gate
    writable: tuple[str, ...]
    affinity: list[int]
    rlimits: dict[str, int]


def confine(walls: Walls, limits: Limits) -> None:
    """Give up every right; the order leaves no way back.

    Raises:
        OSError: The kernel refused a step; the process must end.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # a signal to a guest's own group must not reach the zygote's
    limits.gate.enter()
    _go_first_when_memory_ends()
    os.sched_setaffinity(0, limits.affinity)
    rlimits.apply(limits.rlimits)
    if limits.uid:
        _become(limits.uid, walls.passage)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # a changed uid clears it
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # and makes its own /proc files root's
    if os.getppid() != limits.zygote:
        os._exit(126)  # it died before it could be followed
    os.chdir(limits.writable[0])
    capabilities.clear()
    landlock.restrict(
        landlock.abi() or landlock.OLDEST,  # where there is none, the kernel says why
        readable=walls.readable,
        writable=(*limits.writable, *walls.devices),
    )
    seccomp.install(walls.seccomp)


def _become(uid: int, passage: int) -> None:
    """Be nobody else on this host, but with the way to the workspace.

    Raises:
        OSError: There is no such uid here, or this root may not change to it.
    """
    try:
        capabilities.drop_bounding()
        os.setgroups([passage])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        said = f"uid {uid} cannot be dropped to: {error.strerror}"
        raise OSError(error.errno, said) from error


def _go_first_when_memory_ends() -> None:
    """Let the host's own programs live; guests cannot say so later, for Landlock shuts /proc."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, _FIRST_TO_GO)
    os.close(descriptor)

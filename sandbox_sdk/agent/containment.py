"""What a cloned child of the zygote does to itself before it serves anyone."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

from sandbox_sdk.isolation.walls import (
    capabilities,
    cgroups,
    kernel,
    landlock,
    mounts,
    namespaces,
    rlimits,
    seccomp,
)

INSIDE_ID = 1000
"""The uid and gid that code inside sees as its own."""

WORKSPACE = "/workspace"
HOSTNAME = "sandbox"

FLAGS = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
)
"""What the child is cloned into; its network namespace is the zygote's at that moment."""

WRITABLE = ("/proc", "/dev", "/tmp", WORKSPACE)  # noqa: S108 - the sandbox's own


class Walls(NamedTuple):
    """What is the same for every sandbox of a zygote.

    Attributes:
        seccomp: The compiled filter.
        landlock: The version of Landlock to use; 0 is none.
        readable: Under Landlock, what may be read and executed besides ``WRITABLE``.
    """

    seccomp: bytes
    landlock: int
    readable: tuple[str, ...]


class Limits(NamedTuple):
    """What is this sandbox's own.

    Attributes:
        outside_id: Its uid and gid in the zygote's user namespace.
        gate: Of its control group, or of none.
        workspace: A detached mount.
        tmp_bytes: Size of ``/tmp`` and of ``/dev/shm``.
        affinity: Cores it may run on.
        rlimits: Of the agent itself.
    """

    outside_id: int
    gate: cgroups.Gate
    workspace: int
    tmp_bytes: int
    affinity: list[int]
    rlimits: dict[str, int]


def contain(walls: Walls, limits: Limits) -> None:
    """Build the last of this sandbox, then give up every right; the order leaves no way back.

    Raises:
        OSError: The kernel refused a step; the process must end.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # a signal to a guest's own group must not reach the zygote's
    mounts.proc("/proc")
    # A changed uid made this process non-dumpable, and its own /proc files root's.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    namespaces.map_ids(INSIDE_ID, limits.outside_id, limits.outside_id)
    limits.gate.enter()
    kernel.unshare(namespaces.CLONE_NEWCGROUP)  # now that the group is the one it shall show
    namespaces.set_hostname(HOSTNAME)
    mounts.write_protect("/proc/sys")
    mounts.tmpfs("/tmp", size_bytes=limits.tmp_bytes, mode=0o1777)  # noqa: S108
    mounts.tmpfs("/dev/shm", size_bytes=limits.tmp_bytes, mode=0o1777)  # noqa: S108
    mounts.terminals("/dev/pts")
    mounts.attach(limits.workspace, WORKSPACE)
    os.chdir(WORKSPACE)
    os.sched_setaffinity(0, limits.affinity)
    rlimits.apply(limits.rlimits)
    capabilities.drop_bounding()
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # a changed uid clears it
    capabilities.clear()
    if walls.landlock:
        landlock.restrict(walls.landlock, readable=walls.readable, writable=WRITABLE, tcp=True)
    seccomp.install(walls.seccomp)

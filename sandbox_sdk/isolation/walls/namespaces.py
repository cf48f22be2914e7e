"""Namespaces: their flags, and which ones a process is in."""

from __future__ import annotations

import os

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# CLONE_NEWTIME is left out: in clone(2) its bit belongs to the exit signal.
CLONE_FLAGS = (
    CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
)
"""Every namespace that ``clone(2)`` can make."""

NAMES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
"""Namespaces that a sandbox has of its own, as named in ``/proc/<pid>/ns``."""


def inodes(pid: str = "self") -> dict[str, int]:
    """Return name -> inode of each namespace of a process; equal inodes are one namespace.

    Raises:
        OSError: The process is gone, or its namespaces may not be seen.
    """
    return {name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in NAMES}

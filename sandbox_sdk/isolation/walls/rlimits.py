"""Limits that one process carries and its children inherit."""

from __future__ import annotations

import resource

NAMES = {
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "memlock": resource.RLIMIT_MEMLOCK,
}
"""The kernel's words, lower case, for the limits that are set."""


def apply(limits: dict[str, int]) -> None:
    """Set soft and hard limits of this process, never above the hard limit it has.

    Raises:
        OSError: The kernel refused.
    """
    for name, value in limits.items():
        which = NAMES[name]
        hard = resource.getrlimit(which)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bound, bound))

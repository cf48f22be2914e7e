"""What a process is allowed beyond its uid: given up, and read back from the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct

from sandbox_sdk.isolation.walls import kernel

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_VERSION_3 = 0x20080522
_HIGHEST = 64
_HEADER = struct.pack("=Ii", _VERSION_3, 0)  # of this process
_SETS = struct.Struct("=6I")

FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
"""The capability sets of ``/proc/<pid>/status``."""

_RIGHTS = re.compile(rb"^(Cap[A-Z][a-z]+|NoNewPrivs|Seccomp):\t(\w+)$", re.MULTILINE)


def status(pid: str = "self") -> dict[str, str]:
    """Return what ``/proc/<pid>/status`` tells of a process's rights, as name -> text.

    Raises:
        OSError: The process is gone.
    """
    with open(f"/proc/{pid}/status", "rb") as file:
        text = file.read()
    return {name.decode(): value.decode() for name, value in _RIGHTS.findall(text)}


def held(fields: dict[str, str]) -> list[str]:
    """Return the capability sets of ``status()`` that are not empty."""
    return [name for name in FIELDS if int(fields[name], 16) != 0]


def drop_bounding() -> None:
    """Empty the bounding set; needs CAP_SETPCAP, so it comes before the uid is changed.

    Raises:
        OSError: The kernel refused.
    """
    drop = kernel.libc.prctl
    for number in range(_HIGHEST):
        if drop(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            found = ctypes.get_errno()
            if found != errno.EINVAL:
                raise OSError(found, f"prctl(PR_CAPBSET_DROP, {number}): {os.strerror(found)}")
            return  # one more than this kernel knows


def regain() -> None:
    """Make every capability effective that a change of the effective uid took, and no other.

    Raises:
        OSError: The kernel refused.
    """
    _, low, low_kept, _, high, high_kept = _sets()
    _set(low, low, low_kept, high, high, high_kept)


def keep_through_exec() -> None:
    """Let the next exec leave every capability that this process has; uid 0 would be given them.

    Source: capabilities(7), ambient sets, Linux 4.3.

    Raises:
        OSError: The kernel refused.
    """
    effective, low, _, effective_high, high, _ = _sets()
    _set(effective, low, low, effective_high, high, high)
    for number in range(_HIGHEST):
        if (high << 32 | low) >> number & 1:
            raised = kernel.libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
            kernel.check(raised, f"prctl(PR_CAP_AMBIENT, {number})")


def clear() -> None:
    """Give up every capability and, for good, the way to get one by an exec.

    Raises:
        OSError: The kernel refused.
    """
    _set(0, 0, 0, 0, 0, 0)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _sets() -> tuple[int, ...]:
    """Effective, permitted and inheritable: the lower 32 numbers of each, then the higher."""
    sets = ctypes.create_string_buffer(_SETS.size)
    kernel.check(kernel.libc.capget(_HEADER, sets), "capget")
    return _SETS.unpack(sets)


def _set(*sets: int) -> None:
    """Set what ``_sets`` returns."""
    kernel.check(kernel.libc.capset(_HEADER, _SETS.pack(*sets)), "capset")

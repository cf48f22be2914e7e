"""System calls that Python has no function for, through ctypes."""

from __future__ import annotations

import ctypes
import os
import struct

MACHINE = os.uname().machine
"""The kernel's word for this processor, for example ``x86_64``."""

_OPENAT2 = 437  # one number on every architecture since the unified table

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_CLOSE_RANGE = 436

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def check(result: int, what: str) -> int:
    """Return ``result`` unless it is negative.

    Raises:
        OSError: The call failed; ``what`` is named in its text.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> int:
    """Call ``prctl(option, value, 0, 0, 0)``; arguments are passed as 64 bits.

    Raises:
        OSError: The kernel refused.
    """
    zero = ctypes.c_ulong(0)
    return check(
        libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl({option}, {value})"
    )


def attempt(number: int, *arguments: int) -> int:
    """Make a raw system call; return 0 if it worked, else the kernel's error number."""
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return ctypes.get_errno() if result < 0 else 0


def syscall(what: str, number: int, *arguments: object) -> int:
    """Make a raw system call and return its result.

    Args:
        what: Names the call in an error.
        number: The kernel's number of it.
        arguments: Integers and what ctypes takes as pointers.

    Raises:
        OSError: The kernel refused.
    """
    values = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return check(libc.syscall(ctypes.c_long(number), *values), what)


def close_range(first: int, last: int) -> None:
    """Close every descriptor from ``first`` to ``last``, both included. Linux 5.9."""
    if first <= last:
        syscall("close_range", _CLOSE_RANGE, first, last, 0)


def unshare(flags: int) -> None:
    """Move this process into new namespaces.

    Raises:
        OSError: The kernel refused.
    """
    check(libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace of a descriptor.

    Args:
        descriptor: An open file of ``/proc/<pid>/ns``.
        kind: The ``CLONE_NEW*`` flag it must be of.

    Raises:
        OSError: The kernel refused.
    """
    check(libc.setns(descriptor, kind), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Call ``mount(2)``.

    Raises:
        OSError: The kernel refused; target and source are named.
    """
    check(
        libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode(),
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {source} on {target}",
    )


def umount(target: str, flags: int) -> None:
    """Call ``umount2(2)``.

    Raises:
        OSError: The kernel refused.
    """
    check(libc.umount2(os.fsencode(target), flags), f"umount {target}")


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open ``path`` below the descriptor ``directory`` under resolution rules.

    Source: openat2(2), Linux 5.6.

    Raises:
        OSError: The path leaves the folder, crosses a forbidden link, or cannot be opened.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return check(
        libc.syscall(_OPENAT2, directory, os.fsencode(path), how, len(how)), f"openat2 {path}"
    )

"""Landlock: which version of it the kernel offers."""

from __future__ import annotations

import ctypes

_CREATE_RULESET = 444  # one number on every architecture since the unified table
_VERSION = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """Return the version of Landlock's interface, or 0 where it is absent or switched off.

    Source: landlock_create_ruleset(2).
    """
    number, size, flag = (
        ctypes.c_long(_CREATE_RULESET),
        ctypes.c_size_t(0),
        ctypes.c_uint32(_VERSION),
    )
    found: int = _libc.syscall(number, None, size, flag)
    return max(0, found)

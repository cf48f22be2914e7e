"""Landlock: a second wall around files, made by the process that stands behind it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from sandbox_sdk.isolation.walls import kernel

# One number each on every architecture since the unified table.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
_FILES_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_NET_TCP = 3

# Rights on files that each version of the interface knows, as a mask of the lowest bits.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NEWEST = 5

OLDEST = 1
"""The first version of the interface."""


def abi() -> int:
    """Return the version of Landlock's interface, or 0 where it is absent or switched off.

    Source: landlock_create_ruleset(2).
    """
    try:
        return kernel.syscall("landlock", _CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(
    version: int, *, readable: Iterable[str], writable: Iterable[str], tcp: bool = False
) -> None:
    """Let this process and all it starts reach no files but these; needs no_new_privs.

    Rules bind to what stands at a path now, so this comes after every mount. Where the kernel
    knows how, TCP, abstract sockets and signals to the outside are shut too.

    Args:
        version: As ``abi()`` told; at least 1.
        readable: Files and folders to read and execute.
        writable: Files and folders for everything.
        tcp: Leaves TCP to the network namespace, of which nothing but loopback may be left.

    Raises:
        OSError: A path is missing, or the kernel refused.
    """
    handled = (1 << _FILE_RIGHTS[min(version, _NEWEST)]) - 1
    network = _NET_TCP if version >= 4 and not tcp else 0
    scope = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    size = 24 if scope else 16 if network else 8
    attributes = struct.pack("=3Q", handled, network, scope)[:size]
    ruleset = kernel.syscall("landlock_create_ruleset", _CREATE_RULESET, attributes, size, 0)
    try:
        for rights, paths in ((_READ, readable), (handled, writable)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        kernel.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _FILES_ONLY
        rule = struct.pack("=Qi", rights, descriptor)
        kernel.syscall(f"landlock_add_rule {path}", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)

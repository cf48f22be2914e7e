"""The reference implementation of system call filters, through ctypes.

It must be there: on Debian and Ubuntu ``apt install libseccomp2``.
Source: seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from bpf import ARCHITECTURES

from sandbox_sdk.isolation.walls.seccomp import (
    ALLOW,
    KILL_PROCESS,
    Condition,
    errno_action,
)
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.policies import Policy, SocketFamily

LOW = 0xFFFFFFFF
FAMILIES, PROTOCOLS = range(64), range(1, 32)
"""Where a reference is one: libseccomp has no way to say "all but these"."""

_BAD_ARCHITECTURE = 2
_MASKED_EQUAL = 7
_EPERM, _EAFNOSUPPORT = errno_action(1), errno_action(97)

_library = ctypes.CDLL("libseccomp.so.2")
_library.seccomp_init.restype = ctypes.c_void_p


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def number(name: str, machine: str) -> int | None:
    """Return a call's number on a machine; ``None`` if it has none there, or is too new."""
    told: int = _library.seccomp_syscall_resolve_name_arch(
        ctypes.c_uint32(ARCHITECTURES[machine]), name.encode()
    )
    return told if told >= 0 else None


class Filter:
    """A filter in the making."""

    def __init__(self, machine: str, default: int) -> None:
        self._context = ctypes.c_void_p(_library.seccomp_init(ctypes.c_uint32(default)))
        native, wanted = _library.seccomp_arch_native(), ARCHITECTURES[machine]
        if native & LOW != wanted:
            _check(_library.seccomp_arch_add(self._context, ctypes.c_uint32(wanted)))
            _check(_library.seccomp_arch_remove(self._context, ctypes.c_uint32(native)))
        kill = ctypes.c_uint32(KILL_PROCESS)
        _check(_library.seccomp_attr_set(self._context, _BAD_ARCHITECTURE, kill))

    def add(self, action: int, name: str, *conditions: Condition) -> None:
        """Add a rule; one for a call that it does not know is left out."""
        native = _library.seccomp_syscall_resolve_name(name.encode())
        if native == -1:
            return
        comparisons = (_Comparison * len(conditions))(
            *(_Comparison(c.argument, _MASKED_EQUAL, c.mask, c.value) for c in conditions)
        )
        _check(
            _library.seccomp_rule_add_array(
                self._context, ctypes.c_uint32(action), native, len(conditions), comparisons
            )
        )

    def export(self) -> bytes:
        """Return the compiled filter."""
        descriptor = os.memfd_create("filter")
        with open(descriptor, "rb") as file:
            _check(_library.seccomp_export_bpf(self._context, descriptor))
            file.seek(0)
            return file.read()


def reference(policy: Policy, machine: str) -> tuple[bytes, bytes]:
    """Return two filters that mean together what a policy says, the deciding one first.

    An action other than the first one's ALLOW decides; else the second decides.
    """
    special = Filter(machine, ALLOW)
    for name, refused in policy.refused_calls.items():
        special.add(errno_action(refused), name)
    for request in policy.refused_ioctls:
        special.add(_EPERM, "ioctl", Condition(1, request))
    for call, families in (
        ("socket", policy.socket_families),
        ("socketpair", policy.socket_pairs),
    ):
        for conditions in _refused_families(families):
            special.add(_EAFNOSUPPORT, call, *conditions)
    listed = Filter(machine, _EPERM)
    allowed = NUMBERS[machine] if policy.allowed_calls is None else policy.allowed_calls
    for name in allowed:
        if name in policy.self_only_calls:
            listed.add(ALLOW, name, Condition(0, 0))
        elif name == "clone":
            listed.add(ALLOW, name, Condition(0, 0, mask=policy.refused_clone_flags))
        else:
            listed.add(ALLOW, name)
    return special.export(), listed.export()


def _refused_families(families: tuple[SocketFamily, ...]) -> Iterator[tuple[Condition, ...]]:
    protocols = {family.number: family.protocol for family in families}
    for family in FAMILIES:
        if family not in protocols:
            yield (Condition(0, family),)
        elif (only := protocols[family]) is not None:
            for protocol in PROTOCOLS:
                if protocol != only:
                    yield Condition(0, family), Condition(2, protocol)


def _check(result: int) -> None:
    assert result == 0, f"libseccomp: {os.strerror(-result)}"

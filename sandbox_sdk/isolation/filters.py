"""A policy's system call rules as a seccomp filter for this machine."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from sandbox_sdk.isolation.walls import seccomp
from sandbox_sdk.isolation.walls.seccomp import ALLOW, Condition, Rule, errno_action
from sandbox_sdk.policies import Policy, SocketFamily

_NOT_PERMITTED = errno_action(errno.EPERM)
_NO_SUCH_CALL = errno_action(errno.ENOSYS)
_NO_SUCH_FAMILY = errno_action(errno.EAFNOSUPPORT)


def build(policy: Policy, machine: str, *, memory_counted: bool = True) -> bytes:
    """Return the compiled filter of a policy.

    Args:
        policy: The level's rules.
        machine: The processor, in the kernel's word.
        memory_counted: Whether a control group counts all memory; else the calls are refused that
            take memory which no watchdog can see.

    Raises:
        KeyError: There is no system call table for the machine.
    """
    rules = list(_exceptions(policy, memory_counted=memory_counted))
    if policy.allowed_calls is None:
        return seccomp.compile_filter(rules, machine=machine)
    rules.extend(Rule(call, ALLOW) for call in policy.allowed_calls)
    return seccomp.compile_allow_list(
        rules, machine=machine, refused=_NOT_PERMITTED, unknown=_NO_SUCH_CALL
    )


def _exceptions(policy: Policy, *, memory_counted: bool) -> Iterator[Rule]:
    """Yield what is decided by call or argument, whatever else is allowed."""
    refused = {**policy.refused_calls, **({} if memory_counted else policy.uncounted_calls)}
    for call, number in sorted(refused.items()):
        yield Rule(call, errno_action(number))
    for call in policy.self_only_calls:
        yield Rule(call, ALLOW, (Condition(0, 0),))
        yield Rule(call, _NOT_PERMITTED)
    flags = Condition(0, mask=policy.refused_clone_flags, any_bit=True)
    yield Rule("clone", _NOT_PERMITTED, (flags,))
    for request in policy.refused_ioctls:
        yield Rule("ioctl", _NOT_PERMITTED, (Condition(1, request),))
    yield from _sockets("socket", policy.socket_families)
    yield from _sockets("socketpair", policy.socket_pairs)


def _sockets(call: str, families: tuple[SocketFamily, ...]) -> Iterator[Rule]:
    for family in families:
        conditions = [Condition(0, family.number)]
        if family.protocol is not None:
            conditions.append(Condition(2, family.protocol))
        yield Rule(call, ALLOW, tuple(conditions))
    yield Rule(call, _NO_SUCH_FAMILY)

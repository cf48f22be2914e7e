"""A policy's system call rules as a seccomp filter for this machine."""

from __future__ import annotations

import errno

from sandbox_sdk.isolation.walls import seccomp
from sandbox_sdk.policies import Policy


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
    refuse = seccomp.errno_action
    refused = {**policy.refused_calls, **({} if memory_counted else policy.uncounted_calls)}
    rules = [seccomp.Rule(name, refuse(number)) for name, number in sorted(refused.items())]
    for call in policy.self_only_calls:
        rules.append(seccomp.Rule(call, seccomp.ALLOW, (seccomp.Condition(0, 0),)))
        rules.append(seccomp.Rule(call, refuse(errno.EPERM)))
    flags = seccomp.Condition(0, mask=policy.refused_clone_flags, any_bit=True)
    rules.append(seccomp.Rule("clone", refuse(errno.EPERM), (flags,)))
    rules.extend(
        seccomp.Rule("ioctl", refuse(errno.EPERM), (seccomp.Condition(1, number),))
        for number in policy.refused_ioctls
    )
    for call in ("socket", "socketpair"):
        for family in policy.socket_families:
            conditions = [seccomp.Condition(0, family.number)]
            if family.protocol is not None:
                conditions.append(seccomp.Condition(2, family.protocol))
            rules.append(seccomp.Rule(call, seccomp.ALLOW, tuple(conditions)))
        rules.append(seccomp.Rule(call, refuse(errno.EAFNOSUPPORT)))
    return seccomp.compile_filter(rules, machine=machine)

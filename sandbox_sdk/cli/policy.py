"""``policy``: the rules of a security level, one to a line, so that two levels can be compared."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from typing import get_args

import click

from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.policies import BUILT, LEVELS, WAIVABLE, Policy, SocketFamily, policy
from sandbox_sdk.values import SecurityLevel

_CLONE_FLAGS = {
    0x00020000: "CLONE_NEWNS",
    0x02000000: "CLONE_NEWCGROUP",
    0x04000000: "CLONE_NEWUTS",
    0x08000000: "CLONE_NEWIPC",
    0x10000000: "CLONE_NEWUSER",
    0x20000000: "CLONE_NEWPID",
    0x40000000: "CLONE_NEWNET",
}
_IOCTLS = {0x5412: "TIOCSTI", 0x541C: "TIOCLINUX"}


@click.command("policy")
@global_options
@click.argument("level", type=click.Choice(get_args(SecurityLevel)))
def policy_(level: SecurityLevel) -> None:
    """Print the rules of security level LEVEL, sorted, one to a line.

    To compare: diff <(sandbox-sdk policy medium) <(sandbox-sdk policy high)
    """
    run(lambda session: _policy(session, level))


async def _policy(session: Session, level: SecurityLevel) -> int:
    rules = LEVELS.get(level) or policy(level)
    described = describe(rules)
    for about, lines in described.items():
        for line in lines:
            session.output.line(f"{about}: {line}")
    session.output.document({"level": level, "offered": level in BUILT, "rules": described})
    if level not in BUILT:
        session.output.note(f'security level "{level}" is not offered by this version yet')
    return 0


def describe(rules: Policy) -> Mapping[str, list[str]]:
    """Return the rules of a level in words: what they are about -> what they say, sorted."""
    return {
        "promise": sorted(rules.promises),
        "not promised": sorted(rules.not_promised),
        "wall": sorted(rules.walls),
        "limit held by the kernel": sorted(rules.required_limits),
        "may be waived": sorted(f"{name} ({WAIVABLE[name]})" for name in rules.waivable),
        "namespaces": ["own"] if rules.namespaces else ["the host's"],
        "landlock": ["yes" if rules.landlock else "no"],
        "network": [rules.network],
        "workspace": [rules.workspace],
        "template by default": [rules.default_template],
        "system call allowed": sorted(rules.allowed_calls or ()),
        "system call refused": _refused(rules.refused_calls),
        "system call refused where no control group counts memory": _refused(rules.uncounted_calls),
        "system call for the caller itself only": sorted(rules.self_only_calls),
        "any other system call": ["allowed"]
        if rules.allowed_calls is None
        else ["EPERM; ENOSYS if it is of a later kernel"],
        "clone flag refused": sorted(
            name for flag, name in _CLONE_FLAGS.items() if rules.refused_clone_flags & flag
        ),
        "ioctl refused": sorted(_IOCTLS[number] for number in rules.refused_ioctls),
        "socket family": _families(rules.socket_families),
        "socket pair": _families(rules.socket_pairs),
    }


def _refused(calls: Mapping[str, int]) -> list[str]:
    return sorted(f"{call} with {errno.errorcode[number]}" for call, number in calls.items())


def _families(families: Iterable[SocketFamily]) -> list[str]:
    return sorted(
        socket.AddressFamily(family.number).name
        + ("" if family.protocol is None else f" with protocol {family.protocol}")
        for family in families
    ) or ["none"]

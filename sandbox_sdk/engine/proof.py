"""From what an agent found out about itself to walls that are proven, or refused."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from sandbox_sdk.errors import IsolationError, ProtocolError
from sandbox_sdk.isolation.walls import capabilities, namespaces
from sandbox_sdk.policies import Policy
from sandbox_sdk.values import Wall

_REFUSED = {errno.EPERM, errno.ENOSYS}
_SEALED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}
_KEPT_DESCRIPTORS = [0, 1, 2, 3]


def prove(
    policy: Policy, hello: Mapping[str, Any], *, host_uid: int, allowed_env: frozenset[str]
) -> tuple[Wall, ...]:
    """Return the policy's walls, each with how it was proven.

    Args:
        policy: The level's rules.
        hello: What the agent reported, before any guest code ran.
        host_uid: The uid of PID 1 as the host sees it.
        allowed_env: Variables that the interpreter itself needs.

    Raises:
        IsolationError: A wall does not stand; the message names each.
        ProtocolError: The report is not complete.
    """
    try:
        found = _walls(hello, host_uid, allowed_env)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the agent's report is not complete: {error!r}") from error
    missing = tuple(found[name] for name in policy.walls if not found[name].in_force)
    if missing:
        names = "; ".join(f"{wall.name}: {wall.detail}" for wall in missing)
        raise IsolationError(
            f'security level "{policy.level}" is refused: not proven from inside: {names}. '
            "Run: sandbox-sdk doctor",
            level=policy.level,
            walls=missing,
        )
    return tuple(found[name] for name in policy.walls)


def _walls(hello: Mapping[str, Any], host_uid: int, allowed_env: frozenset[str]) -> dict[str, Wall]:
    status: dict[str, str] = hello["status"]
    own = namespaces.inodes()
    found: dict[str, Wall] = {}

    def wall(name: str, in_force: bool, detail: str) -> None:
        found[name] = Wall(name=name, in_force=in_force, detail=detail)

    for name, inode in own.items():
        theirs = hello["namespaces"][name]
        wall(f"{name}_namespace", theirs != inode, f"inode {theirs}, the host's is {inode}")
    held = capabilities.held(status)
    wall("capabilities", not held, f"sets not empty: {', '.join(held) or 'none'}")
    wall("no_new_privileges", status["NoNewPrivs"] == "1", f"NoNewPrivs {status['NoNewPrivs']}")
    wall("unprivileged_uid", host_uid != 0, f"host uid {host_uid}")
    open_calls = [name for name, number in hello["refused_calls"].items() if number not in _REFUSED]
    wall(
        "seccomp",
        status["Seccomp"] == "2" and not open_calls,
        f"Seccomp {status['Seccomp']}, calls not refused: {', '.join(open_calls) or 'none'}",
    )
    wall("socket_families", hello["vsock"] != 0, f"AF_VSOCK: {_word(hello['vsock'])}")
    nested = hello["user_namespace"]
    wall("no_nested_user_namespaces", nested != 0, f"unshare(CLONE_NEWUSER): {_word(nested)}")
    wall("read_only_root", not hello["writable"], f"writable: {hello['writable'] or 'none'}")
    unsealed = [path for path, number in hello["sealed_files"].items() if number not in _SEALED]
    wall("sealed_proc", not unsealed, f"can be opened to write: {unsealed or 'none'}")
    extra = set(hello["environ"]) - allowed_env
    wall("empty_environment", not extra, f"variables: {sorted(extra) or 'none'}")
    wall(
        "no_inherited_descriptors",
        hello["descriptors"] == _KEPT_DESCRIPTORS,
        f"open: {hello['descriptors']}",
    )
    wall("untraceable_agent", hello["dumpable"] == 0, f"dumpable {hello['dumpable']}")
    if hello["interfaces"] != ["lo"]:
        wall("net_namespace", False, f"interfaces {hello['interfaces']}")
    if hello["processes"] != [1]:
        wall("pid_namespace", False, f"sees processes {hello['processes']}")
    return found


def _word(number: int) -> str:
    return errno.errorcode.get(number, str(number)) if number else "worked"

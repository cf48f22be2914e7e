"""From what an agent found out about itself to walls that are proven, or refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any

import attrs

from sandbox_sdk.errors import IsolationError, ProtocolError
from sandbox_sdk.isolation import remedies
from sandbox_sdk.isolation.walls import capabilities, namespaces
from sandbox_sdk.policies import Policy
from sandbox_sdk.values import Wall

_REFUSED = {errno.EPERM, errno.ENOSYS}
_SEALED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}
_UNREACHED = {errno.EPERM, errno.ESRCH}
_KEPT_DESCRIPTORS = [0, 1, 2, 3]
_CONTEXT_SOCKET = 4
_TRIED_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_NETLINK": 16, "AF_VSOCK": 40}

_FIXES = {
    "landlock": remedies.LANDLOCK_FIX,
    "outside_signals": "boot Linux 6.12 or newer, whose Landlock knows of signals",
    "own_uid": "use a plain user, who gets a user namespace for each sandbox, or set uid_range",
}


@attrs.frozen(kw_only=True)
class _Report:
    """All that a wall is judged by.

    Attributes:
        policy: The level's rules.
        hello: What the agent found, from inside.
        host_namespaces: The host's own namespaces.
        host_uid: The uid of PID 1 as the host sees it.
        allowed_env: Variables that the interpreter itself needs.
    """

    policy: Policy
    hello: Mapping[str, Any]  # Any: JSON; what is not as expected raises where it is read
    host_namespaces: Mapping[str, int]
    host_uid: int
    allowed_env: frozenset[str]


@attrs.frozen
class _Found:
    in_force: bool
    detail: str


def prove(
    policy: Policy,
    hello: Mapping[str, Any],
    *,
    host_uid: int,
    allowed_env: frozenset[str],
    waive: Collection[str] = (),
) -> tuple[Wall, ...]:
    """Return the policy's walls, each with how it was proven; a waived one may be missing.

    Args:
        policy: The level's rules.
        hello: What the agent reported, before any guest code ran.
        host_uid: The uid of PID 1 as the host sees it.
        allowed_env: Variables that the interpreter itself needs.
        waive: Walls that may be missing; what the policy does not let waive is not.

    Raises:
        IsolationError: A wall does not stand; the message names each, with the fix.
        ProtocolError: The report is not complete.
    """
    report = _Report(
        policy=policy,
        hello=hello,
        host_namespaces=_own_namespaces(),
        host_uid=host_uid,
        allowed_env=allowed_env,
    )
    try:
        walls = tuple(_judge(name, report, waive) for name in policy.walls)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the agent's report is not complete: {error!r}") from error
    missing = tuple(wall for wall in walls if not wall.in_force and wall.fix)
    if missing:
        names = "; ".join(f"{wall.name}: {wall.detail}. To mend it: {wall.fix}" for wall in missing)
        raise IsolationError(
            f'security level "{policy.level}" is refused: not proven from inside: {names}',
            level=policy.level,
            walls=missing,
        )
    return walls


@cache
def _own_namespaces() -> Mapping[str, int]:
    """Those of this process, which it does not leave."""
    return namespaces.inodes()


def host_uid(pid: int) -> int:
    """Return the uid of a process as the host sees it.

    Raises:
        OSError: It has ended.
    """
    return os.stat(f"/proc/{pid}").st_uid


def _judge(name: str, report: _Report, waive: Collection[str]) -> Wall:
    """Return one wall; one that is missing and not waived has a fix."""
    found = _JUDGES[name](report)
    if found.in_force:
        return Wall(name=name, in_force=True, detail=found.detail)
    if name in report.policy.waivable:
        if name in waive:
            return Wall(name=name, in_force=False, detail=f"waived; {found.detail}")
        fix = f'{_FIXES[name]}, or go without it: waive=("{name}",)'
    else:
        fix = _FIXES.get(name, "run: sandbox-sdk doctor")
    return Wall(name=name, in_force=False, detail=found.detail, fix=fix)


def _namespace(kind: str, report: _Report) -> _Found:
    theirs, ours = report.hello["namespaces"][kind], report.host_namespaces[kind]
    if kind == "net" and (interfaces := report.hello["interfaces"]) != ["lo"]:
        return _Found(False, f"interfaces {interfaces}")
    if kind == "pid" and (processes := report.hello["processes"]) != [1]:
        return _Found(False, f"sees processes {processes}")
    return _Found(theirs != ours, f"inode {theirs}, the host's is {ours}")


def _no_nested_user_namespaces(report: _Report) -> _Found:
    nested = report.hello["user_namespace"]
    return _Found(nested != 0, f"unshare(CLONE_NEWUSER): {_word(nested)}")


def _capabilities(report: _Report) -> _Found:
    status = report.hello["status"]
    held = capabilities.held(status)
    if report.host_uid == os.geteuid() and status["NoNewPrivs"] == "1":
        # Only root can empty it, and without new privileges nothing comes out of it.
        held = [name for name in held if name != "CapBnd" or report.policy.namespaces]
    return _Found(not held, f"sets not empty: {', '.join(held) or 'none'}")


def _no_new_privileges(report: _Report) -> _Found:
    said = report.hello["status"]["NoNewPrivs"]
    return _Found(said == "1", f"NoNewPrivs {said}")


def _unprivileged_uid(report: _Report) -> _Found:
    return _Found(report.host_uid != 0, f"host uid {report.host_uid}")


def _own_uid(report: _Report) -> _Found:
    """As root each sandbox holds a uid of its own; a plain user's must have its own namespace."""
    shared = report.host_uid in (0, os.geteuid())
    own_namespace = report.hello["namespaces"]["user"] != report.host_namespaces["user"]
    said = "in a user namespace of its own" if own_namespace else "in the host's user namespace"
    return _Found(not shared or own_namespace, f"host uid {report.host_uid}, {said}")


def _seccomp(report: _Report) -> _Found:
    said, tried = report.hello["status"]["Seccomp"], report.hello["refused_calls"]
    worked = [name for name in report.policy.tried_calls if tried[name] not in _REFUSED]
    return _Found(
        said == "2" and not worked,
        f"Seccomp {said}, calls not refused: {', '.join(worked) or 'none'}",
    )


def _socket_families(report: _Report) -> _Found:
    allowed = {family.number for family in report.policy.socket_families}
    tried = report.hello["sockets"]
    refused = [name for name, number in _TRIED_FAMILIES.items() if number not in allowed]
    said = ", ".join(f"{name}: {_word(tried[name])}" for name in refused)
    return _Found(all(tried[name] == errno.EAFNOSUPPORT for name in refused), said)


def _landlock(report: _Report) -> _Found:
    """Only Landlock refuses to read the root folder: its permissions are open to all."""
    said = report.hello["landlock"]
    return _Found(
        said == errno.EACCES,
        f"opening the root folder, which no rule allows: {_word(said)}",
    )


def _outside_signals(report: _Report) -> _Found:
    said = report.hello["outside_signal"]
    return _Found(said in _UNREACHED, f"a signal to the process that made it: {_word(said)}")


def _read_only_root(report: _Report) -> _Found:
    writable = report.hello["writable"]
    return _Found(not writable, f"writable: {writable or 'none'}")


def _sealed_proc(report: _Report) -> _Found:
    tried = report.hello["sealed_files"].items()
    unsealed = [path for path, number in tried if number not in _SEALED]
    return _Found(not unsealed, f"can be opened to write: {unsealed or 'none'}")


def _empty_environment(report: _Report) -> _Found:
    extra = set(report.hello["environ"]) - report.allowed_env
    return _Found(not extra, f"variables: {sorted(extra) or 'none'}")


def _no_inherited_descriptors(report: _Report) -> _Found:
    descriptors = report.hello["descriptors"]
    kept = _KEPT_DESCRIPTORS + [_CONTEXT_SOCKET] * report.hello["ahead"]
    return _Found(descriptors == kept, f"open: {descriptors}")


def _untraceable_agent(report: _Report) -> _Found:
    dumpable = report.hello["dumpable"]
    return _Found(dumpable == 0, f"dumpable {dumpable}")


_JUDGES: Mapping[str, Callable[[_Report], _Found]] = {
    **{f"{kind}_namespace": partial(_namespace, kind) for kind in namespaces.NAMES},
    "no_nested_user_namespaces": _no_nested_user_namespaces,
    "capabilities": _capabilities,
    "no_new_privileges": _no_new_privileges,
    "unprivileged_uid": _unprivileged_uid,
    "own_uid": _own_uid,
    "seccomp": _seccomp,
    "socket_families": _socket_families,
    "landlock": _landlock,
    "outside_signals": _outside_signals,
    "read_only_root": _read_only_root,
    "sealed_proc": _sealed_proc,
    "empty_environment": _empty_environment,
    "no_inherited_descriptors": _no_inherited_descriptors,
    "untraceable_agent": _untraceable_agent,
}


def _word(number: int) -> str:
    return errno.errorcode.get(number, str(number)) if number else "worked"

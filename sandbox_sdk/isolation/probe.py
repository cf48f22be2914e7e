"""What this host really allows, wall by wall, with the reason and the fix for what is missing.

Nothing is concluded from settings where it can be tried: namespaces are made, a process contains
itself as a zygote's clone does, and ``bwrap`` is run, in processes of their own that end at once,
as the uid that a sandbox would have.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.isolation import hygiene, remedies, trials
from sandbox_sdk.isolation.runtimes.base import RUN
from sandbox_sdk.isolation.runtimes.bubblewrap import Bubblewrap, find
from sandbox_sdk.isolation.walls import cgroups, kernel
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.values import SecurityLevel, Wall

OLDEST_KERNEL = (5, 6)
"""The oldest kernel with ``openat2``, which reads what hostile code left behind."""

_FROM_MEDIUM: tuple[SecurityLevel, ...] = ("medium", "high", "maximum")
_FROM_HIGH: tuple[SecurityLevel, ...] = ("high", "maximum")
_BEFORE_NAMESPACES = ("mount namespace", "uid")


@attrs.frozen(kw_only=True)
class Probe:
    """One wall as found on this host.

    Attributes:
        wall: The wall, with reason and fix where it is missing.
        needed_by: The levels that cannot be had without it; none for what is only good to know.
    """

    wall: Wall
    needed_by: tuple[SecurityLevel, ...] = ()


def missing(probes: tuple[Probe, ...], level: SecurityLevel) -> tuple[Wall, ...]:
    """Return the walls that keep this host from a security level."""
    return tuple(p.wall for p in probes if level in p.needed_by and not p.wall.in_force)


def probe_host(uid_range: tuple[int, int]) -> tuple[Probe, ...]:
    """Find out what this host allows. Blocks for some ten milliseconds.

    Args:
        uid_range: First and number of the user ids that root gives to sandboxes.
    """
    root = os.geteuid() == 0
    # The last of the range is the least likely to be in use.
    uid = sum(uid_range) - 1 if root else 0
    tried = trials.kernel(uid)
    droppable = tried.get("failed") not in _BEFORE_NAMESPACES
    clone = trials.clone(uid) if droppable else _not_tried("zygote_sandbox")
    program = Bubblewrap(find())
    installed = program.probe()
    sandbox = _not_tried("bubblewrap_sandbox")
    if droppable and program.path and all(wall.in_force for wall in installed):
        sandbox = trials.program(program.path, uid)
    # Either runtime is enough for medium; without both, all that they lack is to be mended.
    by_any = () if clone.in_force or sandbox.in_force else _FROM_MEDIUM
    group, no_group = cgroups.find()
    return (
        Probe(wall=_machine(), needed_by=_FROM_MEDIUM),
        Probe(wall=_kernel_version(), needed_by=_FROM_MEDIUM),
        Probe(wall=_filters(tried), needed_by=_FROM_MEDIUM),
        *([Probe(wall=_run_folder(), needed_by=_FROM_MEDIUM)] if root else []),
        *([Probe(wall=_spare_uids(tried, uid), needed_by=_FROM_MEDIUM)] if root else []),
        Probe(wall=_namespaces(tried), needed_by=by_any if droppable else ()),
        # Only the zygote's sandboxes have their workspace in memory, and Landlock.
        Probe(wall=clone, needed_by=by_any or _FROM_HIGH),
        *(Probe(wall=wall, needed_by=by_any) for wall in (*installed, sandbox)),
        Probe(wall=_control_groups(group, no_group), needed_by=_FROM_HIGH),
        Probe(wall=_landlock(tried), needed_by=_FROM_HIGH),
        *(Probe(wall=wall) for wall in hygiene.look()),
    )


def _machine() -> Wall:
    known = kernel.MACHINE in NUMBERS
    fix = "" if known else f"use one of: {', '.join(NUMBERS)}"
    return Wall(name="machine", in_force=known, detail=kernel.MACHINE, fix=fix)


def _kernel_version() -> Wall:
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    enough = numbers is not None and tuple(map(int, numbers.groups())) >= OLDEST_KERNEL
    fix = "" if enough else f"boot Linux {'.'.join(map(str, OLDEST_KERNEL))} or newer"
    return Wall(name="kernel", in_force=enough, detail=f"Linux {release}", fix=fix)


# Any: what the trial said, as JSON.
def _filters(tried: Mapping[str, Any]) -> Wall:
    usable = tried["filters"] == errno.EFAULT  # it went as far as to read the null pointer
    return Wall(
        name="seccomp",
        in_force=usable,
        detail="system call filters can be installed" if usable else "no system call filters",
        fix="" if usable else remedies.SECCOMP_FIX,
    )


def _run_folder() -> Wall:
    try:
        os.makedirs(RUN, exist_ok=True)
        reason = "" if os.access(RUN, os.W_OK) else "not writable"
    except OSError as error:
        reason = f"cannot be made: {error.strerror}"
    return Wall(
        name="run_folder",
        in_force=not reason,
        detail=f"{RUN}: {reason or 'writable'}",
        fix="mount a tmpfs on /run, or use a plain user" if reason else "",
    )


def _spare_uids(tried: Mapping[str, Any], uid: int) -> Wall:
    failed = tried.get("failed") in _BEFORE_NAMESPACES
    return Wall(
        name="spare_uids",
        in_force=not failed,
        detail=f"root cannot make a {tried['failed']} for sandboxes: {tried['why']}"
        if failed
        else f"root can drop to uid {uid}",
        fix=""
        if not failed
        else "set uid_range in config.yaml to ids that /proc/self/uid_map has, or use a plain user"
        if tried["failed"] == "uid"
        else f"use a plain user, for this root lacks CAP_SYS_ADMIN; {remedies.CONTAINER_FIX}",
    )


def _namespaces(tried: Mapping[str, Any]) -> Wall:
    failed = tried.get("failed")
    if failed in _BEFORE_NAMESPACES:
        return _not_tried("user_namespaces")
    if failed:
        cause = remedies.find_cause()
        return Wall(
            name="user_namespaces",
            in_force=False,
            detail=f"{failed}: {tried['why']}; {cause.reason}",
            fix=cause.fix,
        )
    return Wall(name="user_namespaces", in_force=True, detail="made one, and all others in it")


def _not_tried(name: str) -> Wall:
    return Wall(
        name=name,
        in_force=False,
        detail="not tried, as something it needs is missing",
        fix="mend that first, then look again",
    )


def _control_groups(group: cgroups.Hierarchy | None, reason: str) -> Wall:
    if group is not None:
        return Wall(name="cgroups", in_force=True, detail=f"version {group.version}, writable")
    return Wall(
        name="cgroups",
        in_force=False,
        detail=f"{reason}; limits are held by rlimits and watchdogs instead",
        fix=remedies.group_fix(),
    )


def _landlock(tried: Mapping[str, Any]) -> Wall:
    version = tried["landlock"]
    return Wall(
        name="landlock",
        in_force=version > 0,
        detail=f"ABI {version}" if version else "absent or switched off",
        fix="" if version else "boot with lsm=landlock,... on Linux 5.13 or newer",
    )

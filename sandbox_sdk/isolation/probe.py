"""What this host really allows, wall by wall, with the reason and the fix for what is missing.

Nothing is concluded from settings where it can be tried: namespaces are made, and ``bwrap`` run,
in processes of their own that end at once, as the uid that a sandbox would have.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

import sandbox_sdk
from sandbox_sdk.isolation import hygiene, remedies
from sandbox_sdk.isolation.runtimes.base import RUN
from sandbox_sdk.isolation.runtimes.bubblewrap import Bubblewrap, find
from sandbox_sdk.isolation.walls import cgroups, kernel
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.values import SecurityLevel, Wall

OLDEST_KERNEL = (5, 6)
"""The oldest kernel with ``openat2``, which reads what hostile code left behind."""

_FROM_MEDIUM: tuple[SecurityLevel, ...] = ("medium", "high", "maximum")
_FROM_HIGH: tuple[SecurityLevel, ...] = ("high", "maximum")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/nix")
_SECONDS = 20.0
_BEFORE_NAMESPACES = ("mount namespace", "uid")
_NOT_TRIED = Wall(
    name="bubblewrap_sandbox",
    in_force=False,
    detail="not tried, as something it needs is missing",
    fix="mend that first, then look again",
)
_TRIAL = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from sandbox_sdk.isolation.trial import main; main(*sys.argv[2:])"
)


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
    tried = _try_kernel(uid)
    program = Bubblewrap(find())
    installed = program.probe()
    droppable = tried.get("failed") not in _BEFORE_NAMESPACES
    usable = droppable and all(wall.in_force for wall in installed)
    sandbox = _sandbox(program.path, uid) if program.path and usable else _NOT_TRIED
    # Where only bwrap may make user namespaces, bwrap's are all that is needed.
    needed = () if sandbox.in_force or not droppable else _FROM_MEDIUM
    group, no_group = cgroups.find()
    return (
        Probe(wall=_machine(), needed_by=_FROM_MEDIUM),
        Probe(wall=_kernel_version(), needed_by=_FROM_MEDIUM),
        Probe(wall=_filters(tried), needed_by=_FROM_MEDIUM),
        *([Probe(wall=_run_folder(), needed_by=_FROM_MEDIUM)] if root else []),
        *([Probe(wall=_spare_uids(tried, uid), needed_by=_FROM_MEDIUM)] if root else []),
        Probe(wall=_namespaces(tried), needed_by=needed),
        *(Probe(wall=wall, needed_by=_FROM_MEDIUM) for wall in (*installed, sandbox)),
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
        fix="" if usable else "boot a kernel that has CONFIG_SECCOMP_FILTER=y",
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
        return attrs.evolve(_NOT_TRIED, name="user_namespaces")
    if failed:
        cause = remedies.find_cause()
        return Wall(
            name="user_namespaces",
            in_force=False,
            detail=f"{failed}: {tried['why']}; {cause.reason}",
            fix=cause.fix,
        )
    return Wall(name="user_namespaces", in_force=True, detail="made one, and all others in it")


def _sandbox(bwrap: Path, uid: int) -> Wall:
    """Let ``bwrap`` make a sandbox around a program that ends at once."""
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    for folder in filter(os.path.exists, _SYSTEM):
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        else:
            options += ["--ro-bind", folder, folder]
    options += ["--proc", "/proc", "--dev", "/dev", "/bin/sh", "-c", "exit 0"]
    stage, shown, path = "", "", str(bwrap)
    if uid and not bwrap.is_relative_to("/usr"):
        # As the launcher does: the program, with its libraries, may lie below root's own home.
        packages = next((p for p in bwrap.parents if p.name == "site-packages"), bwrap.parent)
        stage, shown = f"{RUN}/stage", str(packages)
        path = f"{stage}/shown/{bwrap.relative_to(packages)}"
    ended = _try("program", uid, stage, shown, path, *options)
    if ended.returncode == 0:
        return attrs.evolve(_NOT_TRIED, in_force=True, detail=f"{bwrap} made one", fix="")
    said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
    explained = remedies.explain(ended.stderr)
    return attrs.evolve(
        _NOT_TRIED,
        detail=f"{bwrap} failed: {said[-1]}",
        fix=str(explained)
        if explained
        else f"see what it says: {shlex.join([str(bwrap), *options])}",
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


def _try_kernel(uid: int) -> Mapping[str, Any]:
    ended = _try("kernel", uid)
    try:
        said: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        reason = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"filters": 0, "landlock": 0, "failed": "trial", "why": reason[-1]}
    return said


def _try(task: str, uid: int, *rest: str) -> subprocess.CompletedProcess[str]:
    """Run a trial. It can be refused anything, and a hanging one is a refusal too."""
    packages = str(Path(sandbox_sdk.__file__).parent.parent)
    python = getattr(sys, "_base_executable", sys.executable)
    argv = [python, "-I", "-S", "-c", _TRIAL, packages, task, str(uid), *rest]
    try:
        return subprocess.run(
            argv,
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"hung for {_SECONDS:g} s"
        return subprocess.CompletedProcess(argv, returncode=-1, stdout="", stderr=reason)

"""Control groups: where this host lets them be made, with which limits.

One interface over three drivers: version 2; version 1, with a version 2 tree beside it where one
is writable; and none. A group's name is its sandbox's id, so that what a dead owner left can be
found and removed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

from sandbox_sdk.isolation.walls import cgroup_files as files
from sandbox_sdk.isolation.walls.cgroup import (
    CONTROLLERS,
    UNIFIED,
    Counters,
    Gate,
    Group,
    GroupUsage,
)

__all__ = [
    "PARENT", "ROOT", "Counters", "Gate", "Group", "GroupLimits", "GroupUsage", "Hierarchy", "find",
]  # fmt: skip

ROOT = "/sys/fs/cgroup"
PARENT = "sandbox-sdk"
"""The folder of ours that holds one group per sandbox."""

_BESIDE = f"{PARENT}-host"
"""Where processes move that stand in a group which is to have groups below it."""

_CPU_PERIOD = 100_000  # microseconds; what a new group has
_LEAST_QUOTA = 1000
_MOST_ROUNDS = 20
_EMPTY_SECONDS = 60.0


class GroupLimits(NamedTuple):
    """What a group may use.

    Attributes:
        memory_bytes: Memory and swap together.
        cpu: CPU seconds per second.
        pids: Processes and threads.
    """

    memory_bytes: int
    cpu: float
    pids: int


class Hierarchy(NamedTuple):
    """Where groups can be made on this host. ``folders`` maps a controller to our parent folder."""

    version: int
    folders: dict[str, str]

    def create(self, name: str, limits: GroupLimits) -> Group:
        """Make the group ``name`` with its limits.

        Raises:
            OSError: Not permitted, or the kernel refused a limit; no group is left then.
        """
        group = self.group(name)
        try:
            for folder in dict.fromkeys(group.folders.values()):
                with suppress(FileExistsError):
                    os.mkdir(folder)
            self._limit(group.folders, limits)
        except BaseException:
            group.remove()
            raise
        return group

    def _limit(self, folders: dict[str, str], limits: GroupLimits) -> None:
        memory, cpu, pids = (folders[key] for key in CONTROLLERS)
        most, quota = str(limits.memory_bytes), max(_LEAST_QUOTA, round(limits.cpu * _CPU_PERIOD))
        # At the limit the kernel kills one process, of a guest's before any of the agent's: the
        # whole group (memory.oom.group) would end calls that did nothing wrong.
        if self.version == 2:
            files.write(f"{memory}/memory.max", most)
            files.write_known(f"{memory}/memory.swap.max", "0")
            files.write(f"{cpu}/cpu.max", f"{quota} {_CPU_PERIOD}")
        else:
            files.write(f"{memory}/memory.limit_in_bytes", most)
            if not files.write_known(f"{memory}/memory.memsw.limit_in_bytes", most):
                files.write(f"{memory}/memory.swappiness", "0")  # swap is not counted: use none
            files.write(f"{cpu}/cpu.cfs_quota_us", str(quota))
        files.write(f"{pids}/pids.max", str(limits.pids))

    def leftovers(self) -> list[str]:
        """Return the names of all groups that stand below our parent folders."""
        names: set[str] = set()
        for folder in dict.fromkeys(self.folders.values()):
            with os.scandir(folder) as entries:
                names.update(entry.name for entry in entries if entry.is_dir())
        return sorted(names)

    def sweep(self) -> None:
        """Remove groups that nothing runs in any more, of owners that left no other trace.

        Raises:
            OSError: Not permitted.
        """
        newest = time.time() - _EMPTY_SECONDS  # before that one may wait for its first process
        for name in self.leftovers():
            group = self.group(name)
            standing = filter(os.path.exists, group.folders.values())
            with suppress(FileNotFoundError):  # its owner may remove it at this moment
                if all(os.stat(folder).st_mtime < newest for folder in standing):
                    group.remove()

    def group(self, name: str) -> Group:
        """Return the group ``name``, whether or not it stands."""
        return Group(self.version, {key: f"{path}/{name}" for key, path in self.folders.items()})


def find() -> tuple[Hierarchy | None, str]:
    """Return the writable hierarchy of this host, or ``None`` and the reason.

    In version 2 that is at the root for root, else below the group that this process was delegated.
    """
    if not os.path.exists(f"{ROOT}/cgroup.controllers"):
        return _find_v1()
    own = ROOT + _own_path()
    found, reason = _find_v2(ROOT if os.geteuid() == 0 else own)
    if found is None and own != ROOT and os.geteuid() == 0:
        return _find_v2(own)
    return found, reason


def _find_v2(base: str) -> tuple[Hierarchy | None, str]:
    folder = f"{base}/{PARENT}"
    try:
        missing = set(CONTROLLERS) - set(files.read(f"{base}/cgroup.controllers").split())
        if missing:
            return None, f"{base} offers no {', '.join(sorted(missing))} controller"
        with suppress(FileExistsError):
            os.mkdir(folder)
        for level in (base, folder):
            _switch_on(level)
    except OSError as error:
        with suppress(OSError):
            os.rmdir(folder)  # fails where sandboxes of others stand in it
        return None, f"{base} is not delegated to this user ({error.strerror})"
    return Hierarchy(2, dict.fromkeys(CONTROLLERS, folder)), ""


def _switch_on(folder: str) -> None:
    """Let the groups below a folder be bounded."""
    path = f"{folder}/cgroup.subtree_control"
    wanted = set(CONTROLLERS) - set(files.read(path).split())
    if wanted:
        _make_room(folder)
        files.write(path, " ".join(f"+{name}" for name in sorted(wanted)))


def _make_room(folder: str) -> None:
    """Move the processes in a group beside: only the real root may have them and groups below."""
    if not os.path.exists(f"{folder}/cgroup.type"):
        return
    leaf = f"{folder}/{_BESIDE}"
    for _ in range(_MOST_ROUNDS):  # they may fork meanwhile
        pids = files.read(f"{folder}/cgroup.procs").split()
        if not pids:
            return
        with suppress(FileExistsError):
            os.mkdir(leaf)
        for pid in pids:
            with suppress(ProcessLookupError):
                files.write(f"{leaf}/cgroup.procs", pid)


def _find_v1() -> tuple[Hierarchy | None, str]:
    folders: dict[str, str] = {}
    for name in CONTROLLERS:
        folder, reason = _parent_v1(name)
        if reason:
            return None, reason
        folders[name] = folder
    unified = os.path.exists(f"{ROOT}/{UNIFIED}/cgroup.procs")
    for name in (UNIFIED, "cpuacct") if unified else ("cpuacct",):  # either keeps time
        folder, reason = _parent_v1(name)
        if not reason:
            folders[name] = folder
            break
    return Hierarchy(1, folders), ""


def _parent_v1(name: str) -> tuple[str, str]:
    """Return our parent folder in a tree of version 1, and why it is of no use."""
    tree = os.path.realpath(f"{ROOT}/{name}")  # several names may stand for one tree
    folder = f"{tree}/{PARENT}"
    try:
        with suppress(FileExistsError):
            os.mkdir(folder)
    except OSError as error:
        return folder, f"{tree} is not writable ({error.strerror})"
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        return folder, f"{folder} is not writable by this user"
    return folder, ""


def _own_path() -> str:
    """Return the group that this process was started in, as version 2 names it."""
    for line in files.read("/proc/self/cgroup").splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            return path.removesuffix(f"/{_BESIDE}").rstrip("/")
    return ""

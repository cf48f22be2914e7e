"""One control group: entered, read, killed and removed, in version 2, version 1 or both.

In version 1 it is one folder per controller. Where a version 2 tree stands beside them, a folder
there, which bounds nothing, kills and freezes all of it at once and tells times and pressure.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import NamedTuple

from sandbox_sdk.isolation.walls import cgroup_files as files

CONTROLLERS = ("memory", "cpu", "pids")
"""What a group must bound."""

UNIFIED = "unified"
"""Names the folder in the version 2 tree, where version 1 bounds the group."""


_UNBOUNDED = 1 << 62


class Counters(NamedTuple):
    """What the kernel counted in a group.

    Attributes:
        oom_kills: Processes killed for memory.
        pids_refused: Forks refused for the pids limit.
    """

    oom_kills: int = 0
    pids_refused: int = 0


class GroupUsage(NamedTuple):
    """What a group uses now; ``None`` is a figure that this kernel does not keep.

    Attributes:
        cpu_seconds: Processor time since it was made.
        memory_bytes: Memory of all its processes, their files in memory included.
        memory_peak_bytes: The most it had at once.
        pids: Processes and threads.
        memory_stall_seconds: How long some process of it waited for memory.
    """

    cpu_seconds: float | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    pids: int | None
    memory_stall_seconds: float | None = None


class Gate(NamedTuple):
    """The way into a group, as descriptors.

    Attributes:
        folder: To be cloned into, in version 2; -1 is none.
        files: For a single-threaded process to enter through, in version 1.
    """

    folder: int = -1
    files: tuple[int, ...] = ()

    def enter(self) -> None:
        """Move this process in, where it was not cloned into the group.

        Raises:
            OSError: The group is gone.
        """
        for file in self.files:
            os.write(file, b"0")

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (*self.files, self.folder):
            if descriptor >= 0:
                os.close(descriptor)


class Group(NamedTuple):
    """One sandbox's control group.

    Attributes:
        version: Of the controllers.
        folders: Controller -> its folder; of ``UNIFIED`` and ``cpuacct`` where they are had.
    """

    version: int
    folders: dict[str, str]

    @property
    def held_by(self) -> str:
        """``cgroup-v1`` or ``cgroup-v2``."""
        return f"cgroup-v{self.version}"

    def join(self) -> None:
        """Move this process into the group.

        Raises:
            OSError: Not permitted, or the group is gone.
        """
        for folder in self._unique():
            files.write(f"{folder}/cgroup.procs", "0")

    def gate(self) -> Gate:
        """Return what lets a clone in, also where no path leads to the group.

        Raises:
            OSError: Not permitted, or the group is gone.
        """
        tree = self._tree
        entered = [folder for folder in self._unique() if folder != tree]
        # Of these files only "tasks" takes no lock that waits for every processor of the host.
        flags = os.O_WRONLY | os.O_CLOEXEC
        return Gate(
            folder=os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if tree else -1,
            files=tuple(os.open(f"{folder}/tasks", flags) for folder in entered),
        )

    def pids(self) -> list[int]:
        """Return the processes in the group, as this process sees their numbers."""
        found: set[int] = set()
        for folder in self._unique():
            try:
                found.update(map(int, files.read(f"{folder}/cgroup.procs").split()))
            except OSError as error:
                if error.errno not in files.GONE:
                    raise
        # 0 stands for one that this PID namespace does not show; to kill 0 is to kill oneself.
        return sorted(found - {0})

    def kill(self) -> None:
        """Send SIGKILL to all that is in the group.

        Linux 5.14 has a file for it that nothing outruns. Before that what forks meanwhile is kept
        from it in version 2 (Linux 5.2), and needs another call in version 1.
        """
        tree = self._tree
        killed = bool(tree) and files.write_known(f"{tree}/cgroup.kill", "1")
        if killed and self.version == 2:
            return
        freeze = bool(tree) and not killed and files.write_known(f"{tree}/cgroup.freeze", "1")
        try:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        finally:
            if freeze:
                files.write_known(f"{tree}/cgroup.freeze", "0")

    def remove(self) -> bool:
        """Remove the group; return ``False`` while something in it still ends.

        Raises:
            OSError: Not permitted.
        """
        for folder in self._unique():
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
        return True

    def counters(self) -> Counters:
        """Return what was counted since the group was made; zeros once it is gone."""
        memory, pids = self.folders["memory"], self.folders["pids"]
        events = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            return Counters(
                oom_kills=files.fields(f"{memory}/{events}").get("oom_kill", 0),
                pids_refused=files.fields(f"{pids}/pids.events").get("max", 0),
            )
        except OSError as error:
            if error.errno not in files.GONE:
                raise
            return Counters()

    def cpu_seconds(self) -> float | None:
        """Return the processor time used so far; ``None`` where this kernel keeps none.

        Raises:
            OSError: The group is gone (``ENOENT``) or going (``ENODEV``).
        """
        if tree := self._tree:
            return files.fields(f"{tree}/cpu.stat")["usage_usec"] / 1e6
        if (account := self.folders.get("cpuacct")) is None:
            return None  # the cpu controller of version 1 keeps no time
        return int(files.read(f"{account}/cpuacct.usage")) / 1e9

    def usage(self) -> GroupUsage:
        """Return what the group uses now.

        Raises:
            OSError: The group is gone (``ENOENT``) or going (``ENODEV``).
        """
        memory, pids, tree = self.folders["memory"], self.folders["pids"], self._tree
        now, peak = ("memory.current", "memory.peak")
        if self.version == 1:
            now, peak = ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        return GroupUsage(
            cpu_seconds=self.cpu_seconds(),
            memory_bytes=int(files.read(f"{memory}/{now}")),
            memory_peak_bytes=files.number(f"{memory}/{peak}"),
            pids=int(files.read(f"{pids}/pids.current")),
            memory_stall_seconds=files.stalled_seconds(f"{tree}/memory.pressure") if tree else None,
        )

    def limits(self) -> dict[str, float | None]:
        """Return what bounds the group now: bytes, cores and a count; ``None`` is nothing.

        Raises:
            OSError: The group is gone (``ENOENT``) or going (``ENODEV``).
        """
        memory, cpu, pids = (self.folders[key] for key in CONTROLLERS)
        if self.version == 2:
            most = files.read(f"{memory}/memory.max")
            quota, period = files.read(f"{cpu}/cpu.max").split()
        else:
            most = files.read(f"{memory}/memory.limit_in_bytes")
            quota = files.read(f"{cpu}/cpu.cfs_quota_us")
            period = files.read(f"{cpu}/cpu.cfs_period_us")
        cores = _bound(quota)
        return {
            "memory": _bound(most),
            "cpu": None if cores is None else cores / int(period),
            "pids": _bound(files.read(f"{pids}/pids.max")),
        }

    @property
    def _tree(self) -> str:
        """Its folder of version 2, or nothing."""
        return self.folders["memory"] if self.version == 2 else self.folders.get(UNIFIED, "")

    def _unique(self) -> list[str]:
        return list(dict.fromkeys(self.folders.values()))


def _bound(text: str) -> float | None:
    """Return a bound as a kernel's file tells it; ``max``, -1 and the largest are none."""
    number = -1 if text.strip() == "max" else int(text)
    return number if 0 <= number < _UNBOUNDED else None

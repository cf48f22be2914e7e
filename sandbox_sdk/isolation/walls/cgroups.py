"""Control groups: one interface over v2, v1, and hosts where none is writable.

A sandbox's group is one folder per controller (v1) or one folder (v2). Its name carries the
sandbox's id, so that what a dead owner left can be found and removed.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, field

ROOT = "/sys/fs/cgroup"
PARENT = "sandbox-sdk"
"""The folder of ours, below the hierarchy's root, that holds one group per sandbox."""

_CPU_PERIOD = 100_000  # microseconds; the kernel's default
_CONTROLLERS = ("memory", "cpu", "pids")
_GONE = (errno.ENOENT, errno.ENODEV)  # a file opened before its group went gives ENODEV


@dataclass(frozen=True)
class GroupLimits:
    """What a group may use.

    Attributes:
        memory_bytes: Memory and swap together.
        cpu: CPU seconds per second.
        pids: Processes and threads.
    """

    memory_bytes: int
    cpu: float
    pids: int


@dataclass(frozen=True)
class Counters:
    """What the kernel counted in a group.

    Attributes:
        oom_kills: Processes killed for memory.
        pids_refused: Forks refused for the pids limit.
    """

    oom_kills: int = 0
    pids_refused: int = 0


@dataclass(frozen=True)
class GroupUsage:
    """What a group uses now; ``None`` is a figure that this kernel does not keep."""

    cpu_seconds: float | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    pids: int | None


@dataclass(frozen=True)
class Gate:
    """The way into a group, as descriptors.

    Attributes:
        folder: To be cloned into, in version 2; -1 is none.
        files: For a single-threaded process to enter through, in version 1.
    """

    folder: int = -1
    files: list[int] = field(default_factory=list)

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


@dataclass(frozen=True)
class Group:
    """One sandbox's control group. ``folders`` maps a controller to its folder."""

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
            _write(f"{folder}/cgroup.procs", "0")

    def gate(self) -> Gate:
        """Return what lets a clone in, also where no path leads to the group.

        Raises:
            OSError: Not permitted, or the group is gone.
        """
        if self.version == 2:
            folder = self.folders["memory"]
            return Gate(folder=os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        # Of these files only "tasks" takes no lock that waits for every processor of the host.
        flags = os.O_WRONLY | os.O_CLOEXEC
        return Gate(files=[os.open(f"{folder}/tasks", flags) for folder in self._unique()])

    def pids(self) -> list[int]:
        """Return the processes in the group, as this process sees their numbers."""
        found: set[int] = set()
        for folder in self._unique():
            try:
                found.update(map(int, _read(f"{folder}/cgroup.procs").split()))
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        return sorted(found)

    def kill(self) -> None:
        """Send SIGKILL to all that is in the group; what forks meanwhile needs another call."""
        if self.version == 2:
            _write(f"{self.folders['memory']}/cgroup.kill", "1")
            return
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

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
                oom_kills=_fields(f"{memory}/{events}").get("oom_kill", 0),
                pids_refused=_fields(f"{pids}/pids.events").get("max", 0),
            )
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return Counters()

    def usage(self) -> GroupUsage:
        """Return what the group uses now.

        Raises:
            OSError: The group is gone (``ENOENT``) or going (``ENODEV``).
        """
        memory, cpu, pids = (self.folders[name] for name in _CONTROLLERS)
        if self.version == 2:
            return GroupUsage(
                cpu_seconds=_fields(f"{cpu}/cpu.stat")["usage_usec"] / 1e6,
                memory_bytes=int(_read(f"{memory}/memory.current")),
                memory_peak_bytes=_optional(f"{memory}/memory.peak"),
                pids=int(_read(f"{pids}/pids.current")),
            )
        # The v1 cpu controller keeps no time; cpuacct does, where it shares the folder.
        account = self.folders.get("cpuacct", cpu)
        nanoseconds = _optional(f"{account}/cpuacct.usage")
        return GroupUsage(
            cpu_seconds=None if nanoseconds is None else nanoseconds / 1e9,
            memory_bytes=int(_read(f"{memory}/memory.usage_in_bytes")),
            memory_peak_bytes=_optional(f"{memory}/memory.max_usage_in_bytes"),
            pids=int(_read(f"{pids}/pids.current")),
        )

    def _unique(self) -> list[str]:
        return list(dict.fromkeys(self.folders.values()))


@dataclass(frozen=True)
class Hierarchy:
    """Where groups can be made on this host. ``folders`` maps a controller to our parent folder."""

    version: int
    folders: dict[str, str]

    def create(self, name: str, limits: GroupLimits) -> Group:
        """Make the group ``name`` with its limits.

        Raises:
            OSError: Not permitted, or the kernel refused a limit.
        """
        group = Group(self.version, {key: f"{path}/{name}" for key, path in self.folders.items()})
        for folder in dict.fromkeys(group.folders.values()):
            os.makedirs(folder, exist_ok=True)
        memory, cpu, pids = (group.folders[key] for key in _CONTROLLERS)
        quota = max(1000, round(limits.cpu * _CPU_PERIOD))  # the kernel's least is 1 ms
        if self.version == 2:
            _write(f"{memory}/memory.max", str(limits.memory_bytes))
            _write_optional(f"{memory}/memory.swap.max", "0")
            _write(f"{cpu}/cpu.max", f"{quota} {_CPU_PERIOD}")
        else:
            _write(f"{memory}/memory.limit_in_bytes", str(limits.memory_bytes))
            _write_optional(f"{memory}/memory.memsw.limit_in_bytes", str(limits.memory_bytes))
            _write(f"{cpu}/cpu.cfs_period_us", str(_CPU_PERIOD))
            _write(f"{cpu}/cpu.cfs_quota_us", str(quota))
        _write(f"{pids}/pids.max", str(limits.pids))
        return group

    def leftovers(self) -> list[str]:
        """Return the names of all groups that stand below our parent folders."""
        names: set[str] = set()
        for folder in dict.fromkeys(self.folders.values()):
            with os.scandir(folder) as entries:
                names.update(entry.name for entry in entries if entry.is_dir())
        return sorted(names)

    def group(self, name: str) -> Group:
        """Return the group ``name``, whether or not it stands."""
        return Group(self.version, {key: f"{path}/{name}" for key, path in self.folders.items()})


def find() -> tuple[Hierarchy | None, str]:
    """Return the writable hierarchy of this host, or ``None`` and the reason."""
    if os.path.exists(f"{ROOT}/cgroup.controllers"):
        return _find_v2()
    return _find_v1()


def _find_v2() -> tuple[Hierarchy | None, str]:
    base = ROOT if os.geteuid() == 0 else ROOT + _own_path()
    folder = f"{base}/{PARENT}"
    enable = " ".join(f"+{name}" for name in _CONTROLLERS)
    try:
        missing = set(_CONTROLLERS) - set(_read(f"{base}/cgroup.controllers").split())
        if missing:
            return None, f"{base} offers no {', '.join(sorted(missing))} controller"
        os.makedirs(folder, exist_ok=True)
        _leave_root(base)
        for level in (base, folder):
            _write(f"{level}/cgroup.subtree_control", enable)
    except OSError as error:
        return None, f"{base} is not delegated to this user ({error.strerror})"
    return Hierarchy(2, dict.fromkeys(_CONTROLLERS, folder)), ""


def _leave_root(base: str) -> None:
    """Make room for children: only the real root may have processes of its own beside them."""
    real_root = not os.path.exists(f"{base}/cgroup.type")
    if real_root or not (pids := _read(f"{base}/cgroup.procs").split()):
        return
    leaf = f"{base}/{PARENT}-host"
    os.makedirs(leaf, exist_ok=True)
    for pid in pids:
        _write(f"{leaf}/cgroup.procs", pid)


def _find_v1() -> tuple[Hierarchy | None, str]:
    folders: dict[str, str] = {}
    for name in (*_CONTROLLERS, "cpuacct"):
        folder = f"{ROOT}/{name}/{PARENT}"
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            if name in _CONTROLLERS:
                return None, f"{ROOT}/{name} is not writable ({error.strerror})"
            continue
        if not os.access(folder, os.W_OK):
            return None, f"{folder} is not writable by this user"
        folders[name] = folder
    return Hierarchy(1, folders), ""


def _own_path() -> str:
    for line in _read("/proc/self/cgroup").splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            return path.rstrip("/")
    return ""


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _write_optional(path: str, text: str) -> None:
    """Write where the kernel has the file: swap accounting is a kernel option."""
    if os.path.exists(path):
        _write(path, text)


def _optional(path: str) -> int | None:
    return int(_read(path)) if os.path.exists(path) else None


def _fields(path: str) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}

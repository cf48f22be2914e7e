"""The kernel's counters of one sandbox's group, read so cheaply that every call can afford it."""

from __future__ import annotations

import os
import re

from sandbox_sdk.isolation.walls.cgroup import Counters, Group

_LARGEST_READ = 4096
_OOM_KILLS = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_REFUSED = re.compile(rb"^max (\d+)$", re.MULTILINE)


class Gauge:
    """Keeps the counters' files open for as long as the sandbox runs."""

    def __init__(self, group: Group) -> None:
        """Open the files.

        Raises:
            OSError: The group is gone.
        """
        events = "memory.events" if group.version == 2 else "memory.oom_control"
        flags = os.O_RDONLY | os.O_CLOEXEC
        self._memory = os.open(f"{group.folders['memory']}/{events}", flags)
        self._pids = os.open(f"{group.folders['pids']}/pids.events", flags)

    def read(self) -> Counters:
        """Return what was counted since the group was made; zeros once it is gone."""
        return Counters(
            oom_kills=_number(self._memory, _OOM_KILLS), pids_refused=_number(self._pids, _REFUSED)
        )

    def close(self) -> None:
        """Close the files."""
        os.close(self._memory)
        os.close(self._pids)


def _number(file: int, pattern: re.Pattern[bytes]) -> int:
    try:
        found = pattern.search(os.pread(file, _LARGEST_READ, 0))
    except OSError:  # the group was removed
        return 0
    return int(found.group(1)) if found else 0
